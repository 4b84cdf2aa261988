"""/v1/embeddings: sentence-transformers' vectors through OpenAI's own client."""

import base64
import concurrent.futures
import json
import math
import pathlib
import shutil
import socket
import struct
import subprocess

import openai
import pytest

FIXTURES = pathlib.Path(__file__).parents[1] / "fixtures"
ITEMS = json.loads((FIXTURES / "reference" / "all-minilm-l6-v2.json").read_text())["items"]


def cosine(a, b):
    product = sum(x * y for x, y in zip(a, b, strict=True))
    return product / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


@pytest.mark.parametrize("options", [{}, {"encoding_format": "float"}, {"encoding_format": "base64"}])
def test_the_vectors_are_those_of_sentence_transformers(embedder, options):
    short = [item for item in ITEMS if len(item["token_ids"]) < 256]
    answer = embedder.client().embeddings.create(
        model="minilm", input=[item["text"] for item in short], **options)
    assert answer.object == "list" and answer.model == "minilm"
    assert answer.usage.prompt_tokens == sum(len(item["token_ids"]) for item in short)
    assert answer.usage.total_tokens == answer.usage.prompt_tokens
    for index, (data, item) in enumerate(zip(answer.data, short, strict=True)):
        assert data.index == index and data.object == "embedding"
        vector = data.embedding
        if isinstance(vector, str):  # the client leaves base64 as it is when it was asked for
            raw = base64.b64decode(vector)
            vector = struct.unpack(f"<{len(raw) // 4}f", raw)
        assert cosine(vector, item["embedding"]) > 0.9999


def test_input_may_be_a_text_texts_or_tokens(embedder):
    item = ITEMS[0]
    for given in (item["text"], [item["text"]], item["token_ids"], [item["token_ids"]]):
        (data,) = embedder.client().embeddings.create(model="minilm", input=given).data
        assert cosine(data.embedding, item["embedding"]) > 0.9999


def test_what_is_too_long_is_refused_unless_it_may_be_cut(embedder):
    item = next(item for item in ITEMS if len(item["token_ids"]) == 256)
    with pytest.raises(openai.BadRequestError) as caught:
        embedder.client().embeddings.create(model="minilm", input=item["text"])
    assert caught.value.code == "context_length_exceeded" and caught.value.param == "input"
    (data,) = embedder.client().embeddings.create(
        model="minilm", input=item["text"], extra_body={"truncate_prompt_tokens": -1}).data
    assert cosine(data.embedding, item["embedding"]) > 0.9999


@pytest.mark.parametrize("field, value, param", [
    ("input", None, "input"), ("input", [], "input"), ("input", 5, "input"), ("input", [[]], "input"),
    ("input", [10**6], None), ("input", ["x"] * 3000, "input"), ("input", ["x", 5], "input"),
    ("encoding_format", "int8", "encoding_format"), ("encoding_format", 1, "encoding_format"),
    ("dimensions", 0, "dimensions"), ("dimensions", 128, "dimensions"), ("dimensions", "all", "dimensions"),
    ("truncate_prompt_tokens", 0, "truncate_prompt_tokens"), ("truncate_prompt_tokens", 9**9, "truncate_prompt_tokens"),
    ("temperature", 1, "temperature"),
])
def test_a_bad_field_is_named(embedder, field, value, param):
    response = embedder.post("/v1/embeddings", {"input": "x", field: value})
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param, response.text


def test_all_dimensions_may_be_asked_for(embedder):
    (data,) = embedder.client().embeddings.create(model="minilm", input="x", dimensions=384).data
    assert len(data.embedding) == 384


def test_what_only_generates_is_told_so_and_the_other_way_round(embedder, server):
    for which, path, body in ((embedder, "/v1/completions", {"prompt": "x"}),
                              (embedder, "/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}),
                              (server, "/v1/embeddings", {"input": "x"})):
        response = which.post(path, body)
        assert response.status_code == 400
        assert response.json()["error"]["code"] == "model_not_supported"


def test_requests_at_the_same_time_share_steps(embedder):
    texts = [f"Sentence number {i} of many" for i in range(64)]
    client = embedder.client()
    alone = client.embeddings.create(model="minilm", input=texts).data
    steps = embedder.metric("ttpu:steps_total")

    def one(text):
        return client.embeddings.create(model="minilm", input=text).data[0].embedding

    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        for ours, expected in zip(pool.map(one, texts), alone, strict=True):
            assert cosine(ours, expected.embedding) > 0.99999
    assert embedder.metric("ttpu:steps_total") - steps < 64


def test_a_client_that_leaves_is_forgotten(embedder):
    body = json.dumps({"input": ["a text of some length " * 30] * 1500}).encode()
    host, port = embedder.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"POST /v1/embeddings HTTP/1.1\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
        embedder.wait_for("vllm:num_requests_running", 1)
        # A short request does not wait for the long one.
        assert embedder.post("/v1/embeddings", {"input": "x"}).status_code == 200
    embedder.wait_for("vllm:num_requests_running", 0, seconds=30)
    assert 'finished_reason="abort"} 1' in embedder.get("/metrics").text


def test_a_decoder_embeds_with_its_last_token(serve, tmp_path):
    """Dimensions may be cut where the model says that they may."""
    folder = FIXTURES / "models" / "qwen3"
    shutil.copy(folder / "model.safetensors", tmp_path)
    shutil.copy(FIXTURES / "tokenizers" / "byte_fallback.tokenizer.json", tmp_path / "tokenizer.json")
    config = json.loads((folder / "config.json").read_text()) | {"matryoshka_dimensions": [8, 16]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    client = serve("--runner", "pooling", "--served-model-name", "tiny", model=tmp_path).client()
    items = json.loads((FIXTURES / "reference" / "qwen3-embeddings.json").read_text())["items"]
    answer = client.embeddings.create(model="tiny", input=[item["token_ids"] for item in items])
    for data, item in zip(answer.data, items, strict=True):
        assert cosine(data.embedding, item["last"]) > 0.99999
        assert abs(sum(x * x for x in data.embedding) - 1) < 1e-5
    (short,) = client.embeddings.create(model="tiny", input=items[1]["token_ids"], dimensions=8).data
    assert cosine(short.embedding, items[1]["last"][:8]) > 0.99999
    assert abs(sum(x * x for x in short.embedding) - 1) < 1e-5
    with pytest.raises(openai.BadRequestError, match="8,16"):
        client.embeddings.create(model="tiny", input=items[1]["token_ids"], dimensions=9)


def test_the_command_gives_the_same_vectors(command, minilm):
    out = subprocess.run([command, "embed", minilm, "--text", ITEMS[0]["text"], "--text", ITEMS[1]["text"], "--text", "[a, b]"],
                         capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in out.stdout.splitlines()]
    assert lines[2]["text"] == "[a, b]"
    for line, item in zip(lines, ITEMS[:2], strict=False):
        assert line["text"] == item["text"] and line["tokens"] == len(item["token_ids"])
        assert cosine(line["embedding"], item["embedding"]) > 0.9999
