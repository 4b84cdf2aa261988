"""One engine over the processes of `ttpu launch`: the first leads, the others do its steps."""

import concurrent.futures
import contextlib
import json
import os
import pathlib
import re
import signal

import httpx
import pytest

from launched import Job, free_port

MODELS = pathlib.Path(__file__).resolve().parents[1] / "fixtures/models"
STORY = ["--prompt", "Once upon a time", "--max-tokens", "24", "--json"]
# So that an answer does not depend on what else runs.
EXACT = ["--dtype", "f32", "--max-model-len", "512"]
SERVE = [*EXACT, "--port", "0", "--max-num-seqs", "4", "--log-format", "none"]
LONG = {"prompt": "The history of the world", "max_tokens": 400, "temperature": 0, "ignore_eos": True, "stream": True}


def process_of(job, number) -> int:
    """The process id of one of the job's processes of `ttpu`."""
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            variables = (folder / "environ").read_bytes().split(b"\0")
            if f"TTPU_TEST_MARK={job.mark}".encode() in variables and f"TTPU_PROCESS_ID={number}".encode() in variables:
                return int(folder.name)
    raise AssertionError(f"there is no process {number}")


def alone(command, *arguments):
    """Status, standard output, standard error of one process."""
    return Job(command, *arguments, before=()).end(seconds=300)


@pytest.fixture(name="pair")
def fixture_pair(command):
    """Starts two processes as hosts a and b, without a launcher to end them; each with arguments of its own."""
    with contextlib.ExitStack() as stack:
        def start(first, second, peer_timeout=15):
            port = free_port()
            jobs = []
            for number, arguments in enumerate((first, second)):
                jobs.append(Job(command, *arguments, before=(), env={
                    "TTPU_NUM_PROCESSES": "2", "TTPU_PROCESS_ID": str(number), "TTPU_HOSTS": "a,b",
                    "TTPU_COORDINATOR": f"127.0.0.1:{port}", "TTPU_PEER_TIMEOUT": str(peer_timeout)}))
                stack.callback(jobs[-1].process.kill)
            return jobs
        yield start


def url_of(job) -> str:
    return re.search(r"on (http://\S+)", job.wait_for("serving")).group(1)


def stream(url, body) -> dict[int, str]:
    """The texts of a streamed answer, which has to end as it should."""
    texts = {}
    with httpx.stream("POST", url + "/v1/completions", json={**body, "stream": True}, timeout=300) as response:
        assert response.status_code == 200, response.read()
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert lines[-1] == "[DONE]", lines[-1]
    for line in lines[:-1]:
        choice = json.loads(line)["choices"][0]
        texts[choice["index"]] = texts.get(choice["index"], "") + choice["text"]
    return texts


# Answers


def test_a_prompt_is_answered_once_and_as_by_one_process(command, launch, smollm2):
    status, expected, err = alone(command, "generate", str(smollm2), *STORY)
    assert status == 0, err
    status, out, err = launch("--local", "2", "--", "ttpu", "generate", str(smollm2), *STORY, env={"TTPU_LOG": "info"}).end()
    assert status == 0, err
    assert out == "[0] " + expected
    assert "[1] process 1 (localhost) follows process 0 (localhost)\n" in err
    steps = re.search(r"\[1\] .*process 1 \(localhost\) has done (\d+) steps", err)
    assert steps and int(steps.group(1)) >= 24, err


def test_a_file_of_prompts_is_answered_as_by_one_process(command, launch, smollm2, tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": f"{n} and {n + 1} make"}) + "\n" for n in range(6)))
    flags = ["generate", str(smollm2), "--input", str(prompts), "--max-tokens", "12", "--temperature", "0.7",
             "--max-num-seqs", "3", *EXACT, "--output"]
    status, _, err = alone(command, *flags, str(tmp_path / "one.jsonl"))
    assert status == 0, err
    status, out, err = launch("--local", "3", "--", "ttpu", *flags, str(tmp_path / "three.jsonl")).end(seconds=300)
    assert (status, out) == (0, ""), err
    one, three = (sorted((tmp_path / name).read_text().splitlines()) for name in ("one.jsonl", "three.jsonl"))
    assert len(one) == 6 and one == three


def test_a_server_answers_as_one_process_does(command, launch, smollm2):
    requests = [
        {"prompt": "Once upon a time", "max_tokens": 24, "temperature": 0},
        {"prompt": "The sea is", "max_tokens": 24, "temperature": 0.9, "seed": 3, "frequency_penalty": 0.7,
         "presence_penalty": 0.3},
        {"prompt": "Is the sky blue? Answer:", "max_tokens": 8, "temperature": 0, "structured_outputs": {"choice": [" yes", " no"]}},
        {"prompt": "One, two, three,", "max_tokens": 16, "temperature": 0, "logit_bias": {"3": -100, "28": -100}},
        {"prompt": "A list of colours:", "max_tokens": 16, "temperature": 1.1, "seed": 5, "n": 2, "repetition_penalty": 1.2},
        {"prompt": "Counting: 1 2 1 2 1 2", "max_tokens": 16, "temperature": 0, "min_tokens": 4, "bad_words": [" 3"]},
    ]

    def answer(url):
        with concurrent.futures.ThreadPoolExecutor(len(requests)) as pool:
            return list(pool.map(lambda body: stream(url, body), requests))

    one = Job(command, "serve", str(smollm2), *SERVE, before=())
    try:
        expected = answer(url_of(one))
        one.process.send_signal(signal.SIGTERM)
        assert one.end()[0] == 0
    finally:
        one.process.kill()
    assert expected[2][0] in (" yes", " no") and len(expected[4]) == 2
    both = launch("--local", "2", "--", "ttpu", "serve", str(smollm2), *SERVE)
    assert answer(url_of(both)) == expected
    both.process.send_signal(signal.SIGTERM)
    status, out, err = both.end()
    assert status == 0, err
    assert out == "" and "[1] process 1 (localhost) follows process 0 (localhost)\n" in err


def test_guesses_of_a_draft_model_are_followed(command, launch, smollm2):
    flags = [*STORY, *EXACT, "--num-speculative-tokens", "3", "--speculative-model", str(smollm2)]
    status, expected, err = alone(command, "generate", str(smollm2), *flags)
    assert status == 0, err
    status, out, err = launch("--local", "2", "--", "ttpu", "generate", str(smollm2), *flags).end(seconds=300)
    assert (status, out) == (0, "[0] " + expected), err


def test_a_benchmark_reports_once(launch):
    status, out, err = launch("--local", "2", "--", "ttpu", "bench", "throughput", str(MODELS / "llama"), "--num-prompts", "4",
                              "--input-len", "8", "--output-len", "8", "--json").end()
    assert status == 0, err
    assert json.loads(out.removeprefix("[0] "))["steps"] > 0


# The end


def test_what_runs_is_answered_to_the_end_before_all_are_ended(launch, smollm2):
    job = launch("--local", "2", "--", "ttpu", "serve", str(smollm2), *SERVE)
    with httpx.stream("POST", url_of(job) + "/v1/completions", json={**LONG, "max_tokens": 100}, timeout=300) as response:
        lines = (line for line in response.iter_lines() if line)
        next(lines)
        job.process.send_signal(signal.SIGTERM)
        lines = list(lines)
    assert lines[-1] == "data: [DONE]" and '"finish_reason":"length"' in lines[-2]
    status, _, err = job.end()
    assert status == 0, err


def test_a_process_that_is_killed_ends_all(launch, smollm2):
    job = launch("--local", "2", "--grace-period", "20", "--", "ttpu", "serve", str(smollm2), *SERVE)
    url_of(job)
    os.kill(process_of(job, 1), signal.SIGKILL)
    status, _, err = job.end()
    assert status == 128 + signal.SIGKILL
    assert "process 1 was ended by signal 9" in err


@pytest.mark.parametrize("how, why", [(signal.SIGKILL, "has ended without a goodbye"),
                                      (signal.SIGSTOP, "has not been heard of for 2 s")])
def test_a_follower_that_is_lost_ends_requests_with_its_name(pair, smollm2, how, why):
    serve = ["serve", str(smollm2), *SERVE]
    leader, follower = pair(serve, serve, peer_timeout=2)
    with httpx.stream("POST", url_of(leader) + "/v1/completions", json=LONG, timeout=300) as response:
        lines = (line for line in response.iter_lines() if line)
        next(lines)
        follower.process.send_signal(how)
        said = "\n".join(lines)
    assert f"process 1 (b) {why}" in said
    status, _, err = leader.end()
    assert status == 1
    assert f"process 1 (b) {why}" in err


def test_a_follower_that_is_lost_ends_a_leader_that_has_nothing_to_do(pair, smollm2):
    serve = ["serve", str(smollm2), *SERVE]
    leader, follower = pair(serve, serve)
    url_of(leader)
    follower.process.kill()
    status, _, err = leader.end()
    assert status == 1
    assert "process 1 (b) has ended without a goodbye" in err


def test_a_leader_that_is_lost_ends_its_followers_with_its_name(pair, smollm2):
    serve = ["serve", str(smollm2), *SERVE]
    leader, follower = pair(serve, serve)
    url_of(leader)
    leader.process.kill()
    status, _, err = follower.end()
    assert status == 1
    assert "process 0 (a) has ended without a goodbye" in err


def test_what_the_leader_refuses_ends_all_with_its_words(pair, smollm2):
    leader, follower = pair(*[["generate", str(smollm2), "--prompt", "x " * 600, *EXACT]] * 2)
    status, out, err = leader.end()
    assert (status, out) == (1, "")
    assert "[generate] the prompt has" in err
    status, out, err = follower.end()
    assert (status, out) == (1, "")
    assert "process 0 (a) gave up: [generate] the prompt has" in err


# What must be the same


def refused(pair, first, second) -> list[str]:
    """What the two say."""
    said = []
    for job in pair(first, second):
        status, out, err = job.end()
        assert (status, out) == (1, "")
        said.append(err)
    return said


def test_another_model_is_refused_with_both_values(pair):
    flags = ["--prompt", "x", "--dtype", "f32"]
    for said in refused(pair, ["generate", str(MODELS / "llama"), *flags], ["generate", str(MODELS / "llama_bias"), *flags]):
        values = re.search(r'config.json is not the same: .*process \d \((.)\) has "(\w+)", process \d \((.)\) has "(\w+)"', said)
        assert values, said
        assert {values.group(1), values.group(3)} == {"a", "b"} and values.group(2) != values.group(4)


def test_other_options_are_refused_with_both_values(pair):
    bench = ["bench", "throughput", str(MODELS / "llama"), "--max-num-seqs"]
    for said in refused(pair, [*bench, "4"], [*bench, "8"]):
        assert "max-num-seqs is not the same" in said
        assert "process 0 (a) has 4" in said and "process 1 (b) has 8" in said
