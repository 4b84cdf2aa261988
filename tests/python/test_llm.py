"""ttpu.LLM on real models: many prompts at once, sentence embeddings."""

import json
import math
import os
import pathlib

import pytest
import ttpu

FIXTURES = pathlib.Path(__file__).parents[1] / "fixtures"


@pytest.fixture(scope="module")
def llm(smollm2):
    return ttpu.LLM(smollm2, dtype="f32", max_model_len=256, max_num_seqs=4, max_num_batched_tokens=64)


@pytest.fixture(scope="module")
def items():
    return json.loads((FIXTURES / "reference" / "smollm2-135m-instruct.json").read_text())["items"]


def test_many_prompts_at_once_give_the_tokens_of_transformers(llm, items):
    raw = [item for item in items if item["kind"] == "raw"]
    params = [ttpu.SamplingParams(temperature=0, max_tokens=len(item["output_ids"])) for item in raw]
    outputs = llm.generate([item["text"] for item in raw], params)
    assert [output.outputs[0].token_ids for output in outputs] == [item["output_ids"] for item in raw]
    assert [output.prompt_token_ids for output in outputs] == [item["prompt_ids"] for item in raw]
    assert [output.prompt for output in outputs] == [item["text"] for item in raw]


def test_chat_answers_several_conversations(llm, items):
    chats = [item for item in items if item["kind"] == "chat"]
    conversations = [[{"role": "user", "content": item["prompt"]}] for item in chats]
    outputs = llm.chat(conversations, ttpu.SamplingParams(temperature=0, max_tokens=8))
    assert [output.outputs[0].token_ids for output in outputs] == [item["output_ids"][:8] for item in chats]
    assert llm.chat(conversations[0], ttpu.SamplingParams(temperature=0, max_tokens=8))[0].outputs[0].text == \
        outputs[0].outputs[0].text


@pytest.mark.parametrize("size", ["tensor_parallel_size", "pipeline_parallel_size"])
def test_two_devices_answer_as_one(llm, smollm2, items, size):
    prompts = [item["prompt_ids"] for item in items][:3]
    params = ttpu.SamplingParams(temperature=0, max_tokens=6)
    two = ttpu.LLM(smollm2, dtype="f32", max_model_len=256, max_num_seqs=4, max_num_batched_tokens=64, **{size: 2})
    assert [output.outputs[0].token_ids for output in two.generate(prompts, params)] == \
        [output.outputs[0].token_ids for output in llm.generate(prompts, params)]


def test_quantized_weights_still_know_it(smollm2):
    eight = ttpu.LLM(smollm2, quantization="int8", max_model_len=256, max_num_seqs=1)
    answer = eight.chat([{"role": "user", "content": "What is the capital of France?"}],
                        ttpu.SamplingParams(temperature=0, max_tokens=16))
    assert "Paris" in answer[0].outputs[0].text


def test_what_quantization_and_strategies_there_are_is_said(smollm2):
    with pytest.raises(ttpu.Error, match="int3.*int8"):
        ttpu.LLM(smollm2, quantization="int3")
    with pytest.raises(ttpu.Error, match="sideways.*tensor"):
        ttpu.LLM(smollm2, tensor_parallel_size=2, strategy="sideways")


def test_n_answers_are_those_of_their_seeds(llm):
    params = ttpu.SamplingParams(n=3, temperature=1, seed=5, max_tokens=8)
    together = [output.token_ids for output in llm.generate("Once upon a time", params)[0].outputs]
    alone = [llm.generate("Once upon a time", ttpu.SamplingParams(temperature=1, seed=seed, max_tokens=8))[0]
             .outputs[0].token_ids for seed in (5, 6, 7)]
    assert together == alone
    assert len({tuple(tokens) for tokens in together}) > 1


def test_log_probabilities_come_with_the_tokens(llm):
    output = llm.generate([[504, 3575, 282]], ttpu.SamplingParams(temperature=0, max_tokens=3, logprobs=2))[0].outputs[0]
    assert len(output.logprobs) == 3
    for token, ranked in zip(output.token_ids, output.logprobs):
        assert ranked[token].rank == 1
        assert len(ranked) == 2
        assert all(entry.logprob <= 0 for entry in ranked.values())


def test_bad_requests_say_what_is_wrong(llm):
    with pytest.raises(ttpu.Error, match="top_p"):
        llm.generate("x", ttpu.SamplingParams(top_p=2))
    with pytest.raises(ttpu.Error, match="vocabulary"):
        llm.generate([[10**6]])
    with pytest.raises(ValueError, match="2 sampling parameters for 1 prompts"):
        llm.generate("x", [ttpu.SamplingParams()] * 2)
    with pytest.raises(ValueError, match="task='embed'"):
        llm.embed("x")


def test_embeddings_are_those_of_sentence_transformers():
    cache = os.environ.get("TTPU_CACHE") or pathlib.Path(
        os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "ttpu"
    items = json.loads((FIXTURES / "reference" / "all-minilm-l6-v2.json").read_text())["items"]
    llm = ttpu.LLM(pathlib.Path(cache) / "models" / "all-minilm-l6-v2", task="embed")
    for output, item in zip(llm.embed([item["text"] for item in items]), items, strict=True):
        ours, theirs = output.outputs.embedding, item["embedding"]
        product = sum(a * b for a, b in zip(ours, theirs, strict=True))
        assert product / math.sqrt(sum(a * a for a in ours) * sum(b * b for b in theirs)) > 0.9999
    (output,) = llm.embed(items[0]["token_ids"])
    assert output.outputs.embedding == pytest.approx(llm.embed(items[0]["text"])[0].outputs.embedding, abs=1e-5)


def test_a_decoder_embeds_with_its_last_token():
    items = json.loads((FIXTURES / "reference" / "qwen3-embeddings.json").read_text())["items"]
    llm = ttpu.LLM(FIXTURES / "models" / "qwen3", task="embed")
    for output, item in zip(llm.embed([item["token_ids"] for item in items]), items, strict=True):
        length = math.sqrt(sum(x * x for x in item["last"]))
        assert output.outputs.embedding == pytest.approx([x / length for x in item["last"]], abs=2e-5)
