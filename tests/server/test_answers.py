"""What the server answers, through OpenAI's own client, with SmolLM2."""

import concurrent.futures
import json
import math
import pathlib
import re
import subprocess

import pytest

QUESTION = "What is the capital of France?"
MODEL = "smollm2"


def chat(client, question=QUESTION, **options):
    return client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": question}],
        **{"temperature": 0, "max_tokens": 24, **options})


def streamed(client, question=QUESTION, **options):
    """Text and reason of a chat, from its chunks."""
    text, reason = "", None
    for chunk in chat(client, question, stream=True, **options):
        text += chunk.choices[0].delta.content or ""
        reason = chunk.choices[0].finish_reason or reason
    return text, reason


def test_greedy_chat_says_what_ttpu_generate_says(client, command, smollm2):
    out = subprocess.run([command, "generate", str(smollm2), "--chat", "--json", "--prompt",
                          QUESTION, "--dtype", "f32", "--max-tokens", "24"], capture_output=True, text=True,
                         check=True, timeout=300)
    expected = json.loads(out.stdout)
    answer = chat(client, extra_body={"return_token_ids": True})
    assert answer.choices[0].token_ids == expected["token_ids"]
    assert answer.choices[0].message.content == expected["text"]
    assert answer.choices[0].finish_reason == expected["finish_reason"]
    assert answer.prompt_token_ids == expected["prompt_token_ids"]
    assert "Paris" in answer.choices[0].message.content


def test_a_stream_says_what_a_whole_answer_says(client):
    for options in ({}, {"temperature": 1, "seed": 5}, {"stop": ["capital"]}, {"max_tokens": 3}):
        whole = chat(client, **options)
        assert streamed(client, **options) == (whole.choices[0].message.content,
                                               whole.choices[0].finish_reason)


def test_the_first_chunk_has_the_role_and_the_last_one_the_usage(client):
    chunks = list(chat(client, stream=True, stream_options={"include_usage": True}))
    whole = chat(client)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert len({chunk.id for chunk in chunks}) == 1


def test_concurrent_streams_each_say_what_they_say_alone(client):
    questions = [f"Name {i + 2} animals." for i in range(16)]
    alone = [streamed(client, question, max_tokens=16 + i) for i, question in enumerate(questions)]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda pair: streamed(client, pair[1], max_tokens=16 + pair[0]),
                                 enumerate(questions)))
    assert together == alone
    assert len({text for text, _ in alone}) > 8


def test_a_seed_gives_the_same_text_again_and_another_seed_another(client):
    first, again, other = (chat(client, temperature=1.5, seed=seed).choices[0].message.content
                           for seed in (7, 7, 8))
    assert first == again
    assert first != other


def test_n_choices_differ_and_count_their_prompt_once(client):
    one = chat(client)
    answer = chat(client, n=3, temperature=1.5, seed=3, extra_body={"return_token_ids": True})
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in answer.choices}) == 3
    assert answer.usage.prompt_tokens == one.usage.prompt_tokens
    assert answer.usage.completion_tokens == sum(len(c.token_ids) for c in answer.choices)


def test_parts_of_text_are_joined_and_the_system_prompt_is_heard(client):
    parts = [{"type": "text", "text": "What is the"}, {"type": "text", "text": "capital of France?"}]
    joined = chat(client, "What is the\ncapital of France?")
    assert chat(client, parts).choices[0].message.content == joined.choices[0].message.content
    with_system = client.chat.completions.create(
        model=MODEL, max_tokens=1,
        messages=[{"role": "system", "content": "You are a pirate."},
                  {"role": "user", "content": QUESTION}])
    assert with_system.usage.prompt_tokens != chat(client).usage.prompt_tokens


def test_best_of_says_the_answers_with_the_highest_mean_log_probability(client):
    options = {"model": MODEL, "prompt": ["The sea is", "Two and two"], "max_tokens": 8, "temperature": 1.2, "seed": 11}
    every = client.completions.create(n=4, logprobs=0, **options)
    best = client.completions.create(n=2, best_of=4, **options)
    for prompt in range(2):
        ranked = sorted(every.choices[4 * prompt:4 * prompt + 4],
                        key=lambda choice: -sum(choice.logprobs.token_logprobs) / len(choice.logprobs.token_logprobs))
        said = best.choices[2 * prompt:2 * prompt + 2]
        assert [choice.text for choice in said] == [choice.text for choice in ranked[:2]]
    assert [choice.index for choice in best.choices] == [0, 1, 2, 3]
    assert best.choices[0].logprobs is None
    assert best.usage.completion_tokens == every.usage.completion_tokens


def test_a_completion_takes_text_texts_and_tokens(client, server):
    prompt = "The capital of France is"
    ids = server.post("/tokenize", {"prompt": prompt}).json()["tokens"]

    def complete(prompt):
        answer = client.completions.create(model=MODEL, prompt=prompt, temperature=0, max_tokens=8)
        return [choice.text for choice in answer.choices]

    alone = complete(prompt)
    other = complete("One, two, three,")
    assert len(alone) == 1 and alone != other
    assert complete(ids) == alone
    assert complete([prompt, "One, two, three,"]) == alone + other
    assert complete([ids, ids]) == alone * 2


def test_a_completion_has_sixteen_tokens_unless_told(client):
    answer = client.completions.create(model=MODEL, prompt="Once upon a time", temperature=0)
    assert answer.usage.completion_tokens == 16
    assert answer.choices[0].finish_reason == "length"


def test_echo_gives_the_prompt_and_its_log_probabilities(client):
    prompt = "The capital of France is"
    answer = client.completions.create(model=MODEL, prompt=prompt, echo=True, logprobs=2,
                                       max_tokens=3, temperature=0)
    choice = answer.choices[0]
    assert choice.text.startswith(prompt)
    assert "".join(choice.logprobs.tokens) == choice.text
    assert choice.logprobs.token_logprobs[0] is None
    assert all(value <= 0 for value in choice.logprobs.token_logprobs[1:])
    assert len(choice.logprobs.tokens) == answer.usage.total_tokens
    offsets = choice.logprobs.text_offset
    assert [choice.text[o:][:len(t)] for o, t in zip(offsets, choice.logprobs.tokens)] == choice.logprobs.tokens
    # The prompt alone, as evaluation harnesses ask for it.
    alone = client.completions.create(model=MODEL, prompt=prompt, echo=True, logprobs=2, max_tokens=0)
    assert alone.choices[0].text == prompt
    known = alone.choices[0].logprobs.token_logprobs
    assert all(abs(a - b) < 1e-3 for a, b in zip(known[1:], choice.logprobs.token_logprobs[1:]))


def test_log_probabilities_of_a_chat_are_those_of_a_distribution(client):
    answer = chat(client, logprobs=True, top_logprobs=5, max_tokens=6)
    steps = answer.choices[0].logprobs.content
    assert "".join(step.token for step in steps if step.token[0] != "<") == answer.choices[0].message.content
    for step in steps:
        assert len(step.top_logprobs) == 5
        assert step.logprob == step.top_logprobs[0].logprob  # greedy
        assert sum(math.exp(top.logprob) for top in step.top_logprobs) <= 1 + 1e-3
        assert bytes(step.bytes).decode() == step.token
    chunks = list(chat(client, logprobs=True, top_logprobs=5, max_tokens=6, stream=True))
    pieces = [step for chunk in chunks if chunk.choices[0].logprobs
              for step in chunk.choices[0].logprobs.content]
    assert [piece.token for piece in pieces] == [step.token for step in steps]


def test_prompt_log_probabilities_name_the_tokens_of_the_prompt(client):
    answer = chat(client, max_tokens=1,
                  extra_body={"prompt_logprobs": 1, "return_token_ids": True})
    listed = answer.prompt_logprobs
    assert listed[0] is None
    assert len(listed) == answer.usage.prompt_tokens
    for token, entry in zip(answer.prompt_token_ids[1:], listed[1:]):
        assert str(token) in entry


def test_a_stop_string_ends_the_text_before_it(client):
    whole = chat(client).choices[0].message.content
    stop = whole.split()[2]
    answer = chat(client, stop=stop)
    assert answer.choices[0].message.content == whole[:whole.index(stop)]
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].stop_reason == stop


def test_bias_bans_and_least_lengths_are_kept(client, server):
    whole = chat(client, extra_body={"return_token_ids": True})
    first = whole.choices[0].token_ids[0]
    banned = chat(client, logit_bias={first: -100}, extra_body={"return_token_ids": True})
    assert banned.choices[0].token_ids[0] != first
    word = chat(client, extra_body={"bad_words": ["Paris"]}).choices[0].message.content
    assert "Paris" in whole.choices[0].message.content and "Paris" not in word
    longer = chat(client, max_tokens=60, extra_body={"ignore_eos": True})
    assert longer.usage.completion_tokens == 60
    least = chat(client, "Say yes.", max_tokens=60, extra_body={"min_tokens": 50})
    assert least.usage.completion_tokens >= 50


def test_text_to_tokens_and_back(server):
    text = "Grüße, 世界! 🙂"
    there = server.post("/tokenize", {"prompt": text, "return_token_strs": True}).json()
    assert there["count"] == len(there["tokens"]) == len(there["token_strs"])
    assert server.post("/detokenize", {"tokens": there["tokens"]}).json() == {"prompt": text}
    talk = server.post("/tokenize", {"messages": [{"role": "user", "content": "Hi"}]}).json()
    assert server.post("/detokenize", {"tokens": talk["tokens"]}).json()["prompt"].endswith("assistant\n")


def test_what_a_prompt_shares_with_an_earlier_one_is_not_computed_again(client):
    long = "Tell me of the sea. " * 60
    first = chat(client, long, max_tokens=4)
    again = chat(client, long, max_tokens=4)
    assert again.choices[0].message.content == first.choices[0].message.content
    assert again.usage.prompt_tokens_details.cached_tokens >= 64
    apart = chat(client, long, max_tokens=4, extra_body={"cache_salt": "another"})
    assert apart.usage.prompt_tokens_details.cached_tokens == 0
    assert apart.choices[0].message.content == first.choices[0].message.content


def test_the_models_are_listed_under_all_their_names(client, server):
    assert [model.id for model in client.models.list()] == ["smollm2", "other-name"]
    assert client.models.retrieve("other-name").id == "other-name"
    answer = client.completions.create(model="other-name", prompt="Hi", max_tokens=1)
    assert answer.model == "other-name"


def test_metrics_count_what_is_served(client, server):
    names = ("vllm:time_to_first_token_seconds_count", "vllm:inter_token_latency_seconds_count",
             "vllm:e2e_request_latency_seconds_count", "vllm:generation_tokens_total")
    before = [server.metric(name) for name in names]
    tokens = chat(client, max_tokens=7, extra_body={"ignore_eos": True}).usage.completion_tokens
    after = [server.metric(name) for name in names]
    assert [b - a for a, b in zip(before, after)] == [1, tokens - 1, 1, tokens]
    text = server.get("/metrics").text
    assert "# TYPE vllm:time_to_first_token_seconds histogram" in text
    times = {name: server.metric(f"vllm:request_{name}_time_seconds_sum") for name in ("queue", "prefill", "decode", "inference")}
    assert times["inference"] == pytest.approx(times["prefill"] + times["decode"]) and min(times.values()) > 0
    total = server.metric("vllm:e2e_request_latency_seconds_sum")
    assert sum(times.values()) - times["inference"] <= total * (1 + 1e-9)  # the sums are rounded
    server.wait_for("vllm:num_requests_running", 0)
    assert server.metric("vllm:iteration_tokens_total_count") == server.metric("ttpu:steps_total")
    assert server.metric("vllm:request_params_max_tokens_sum") >= 7


def test_the_document_of_metrics_names_all_of_them(server):
    document = (pathlib.Path(__file__).parents[2] / "docs" / "serving.md").read_text()
    section = document.partition("## Metrics")[2].partition("\n## ")[0]
    documented = set(re.findall(r"`((?:vllm|ttpu):[a-z0-9_]+|process_[a-z_]+)`", section.partition("Not here")[0]))
    served = set(re.findall(r"^# TYPE (\S+)", server.get("/metrics").text, re.MULTILINE))
    assert documented - {"ttpu:embedded_texts_total"} == served


def test_the_page_needs_nothing_from_elsewhere(server):
    page = server.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "http://" not in page.text and "https://" not in page.text
