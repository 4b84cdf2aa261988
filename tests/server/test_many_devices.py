"""Servers over several devices, and of programs that another process compiled."""

import json
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

QUESTION = {"model": "smollm2", "prompt": "The capital of France is", "max_tokens": 12, "temperature": 0}
SMALL = ["--dtype", "f32", "--max-num-seqs", "2", "--max-num-batched-tokens", "64", "--max-model-len", "256"]


def answer(server) -> str:
    return server.client().completions.create(**QUESTION).choices[0].text


def test_three_devices_and_two_replicas_say_what_one_device_says(server, serve):
    many = serve(*SMALL, "--served-model-name", "smollm2", "--tensor-parallel-size", "3", "--data-parallel-size", "2")
    assert answer(many) == answer(server)
    assert many.metric("ttpu:compilations_after_start_total") == 0


@pytest.mark.parametrize("flags", [["--data-parallel-size", "2"], ["--tensor-parallel-size", "3"],
                                   ["--tensor-parallel-size", "3", "--strategy", "ulysses"]])
def test_structured_output_on_several_devices_is_that_of_one(server, serve, flags):
    many = serve(*SMALL, "--served-model-name", "smollm2", *flags)
    schema = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}, "large": {"type": "boolean"}},
              "required": ["city", "large"], "additionalProperties": False}
    bodies = [QUESTION, QUESTION | {"guided_choice": ["Lyon, I think", "Rome, I think"]}, QUESTION | {"guided_regex": "[0-9]{3} (miles|km)"},
              QUESTION | {"guided_json": schema, "max_tokens": 60}]
    with ThreadPoolExecutor(len(bodies)) as pool:  # at once, so that both replicas have some
        answers = list(pool.map(lambda body: many.post("/v1/completions", body).json()["choices"][0]["text"], bodies))
    assert answers == [server.post("/v1/completions", body).json()["choices"][0]["text"] for body in bodies]
    assert answers[1] in bodies[1]["guided_choice"]
    assert set(json.loads(answers[3])) == {"city", "large"}


@pytest.fixture(scope="module", name="bundle")
def fixture_bundle(command, smollm2, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles") / "bundle"
    subprocess.run([command, "compile", str(smollm2), "-o", str(folder), "--device", "cpu",
                    "--tensor-parallel-size", "3", *SMALL], check=True, capture_output=True)
    return folder


def test_a_bundle_that_another_process_made_is_served_without_compiling(server, serve, bundle):
    loaded = serve("--bundle", str(bundle), "--served-model-name", "smollm2")
    assert answer(loaded) == answer(server)
    assert loaded.metric("ttpu:compilations_after_start_total") == 0
    status, log = loaded.stop(signal.SIGTERM)
    assert status == 0, log
    assert "(0 compiled now)" in log


def test_a_flag_that_the_bundle_has_otherwise_is_refused(command, smollm2, bundle):
    result = subprocess.run([command, "generate", str(smollm2), "--bundle", str(bundle), "--prompt", "x",
                             "--tensor-parallel-size", "2"], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "--tensor-parallel-size 3" in result.stderr and "2 is asked for" in result.stderr
