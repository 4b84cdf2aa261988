"""Requests that are wrong: OpenAI's error object, the right status, and the server goes on."""

import json
import socket

import httpx
import openai
import pytest

MESSAGES = [{"role": "user", "content": "Hi"}]


def refused(response, status, param=None, code=None):
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error["message"]
    assert error["param"] == param, error
    assert error["code"] == code, error
    return error


@pytest.mark.parametrize("field, value, param", [
    ("temperature", "hot", "temperature"),
    ("temperature", -1, "temperature"),
    ("temperature", True, "temperature"),
    ("temperature", 1e308, "temperature"),
    ("top_p", 0, "top_p"),
    ("top_p", 1.5, "top_p"),
    ("top_k", -7, "top_k"),
    ("min_p", 2, "min_p"),
    ("n", 0, "n"),
    ("n", 10**9, "n"),
    ("n", 1.5, "n"),
    ("max_tokens", -1, "max_tokens"),
    ("max_tokens", "many", "max_tokens"),
    ("max_completion_tokens", 2**64, "max_completion_tokens"),
    ("stop", 5, "stop"),
    ("stop", [""], "stop"),
    ("stop", ["x"] * 1000, "stop"),
    ("seed", 0.5, "seed"),
    ("logprobs", 3, "logprobs"),
    ("top_logprobs", 3, "top_logprobs"),
    ("prompt_logprobs", 1000, "prompt_logprobs"),
    ("logit_bias", {"x": 1}, "logit_bias"),
    ("logit_bias", {"1": 1000}, "logit_bias"),
    ("logit_bias", {"99999999": 1}, "logit_bias"),
    ("presence_penalty", 3, "presence_penalty"),
    ("frequency_penalty", "much", "frequency_penalty"),
    ("repetition_penalty", 0, "repetition_penalty"),
    ("repetition_penalty", 1e-300, "repetition_penalty"),
    ("repetition_penalty", 1e300, "repetition_penalty"),
    ("min_tokens", -1, "min_tokens"),
    ("stop_token_ids", [-1], "stop_token_ids"),
    ("bad_words", [""], "bad_words"),
    ("stream", "yes", "stream"),
    ("stream_options", {"include_usage": True}, "stream_options"),
    ("response_format", {"type": "xml"}, "response_format.type"),
    ("tool_choice", "required", "tool_choice"),
    ("messages", [], "messages"),
    ("messages", "Hi", "messages"),
    ("messages", [5], "messages[0]"),
    ("messages", [{"role": "king", "content": "Hi"}], "messages[0].role"),
    ("messages", [{"role": "user"}], "messages[0].content"),
    ("messages", [{"role": "user", "content": [{"type": "image_url"}]}], "messages[0].content"),
    ("chat_template_kwargs", [], "chat_template_kwargs"),
    ("temprature", 1, "temprature"),
])
def test_a_bad_field_is_named(server, field, value, param):
    refused(server.post("/v1/chat/completions", {"messages": MESSAGES, field: value}), 400, param)


@pytest.mark.parametrize("prompt", [None, [], "", 5, [[]], ["a", 1], [-1], [2**40], {"a": 1}])
def test_a_bad_prompt_is_named(server, prompt):
    refused(server.post("/v1/completions", {"prompt": prompt}), 400, "prompt")


def test_a_misspelt_field_is_pointed_out(server):
    error = refused(server.post("/v1/completions", {"prompt": "a", "max_token": 1}), 400, "max_token")
    assert "`max_tokens`" in error["message"]


def test_a_token_outside_the_vocabulary_is_refused(server):
    response = server.post("/v1/completions", {"prompt": [10**6]})
    assert response.status_code == 400
    assert "1000000" in response.json()["error"]["message"]


@pytest.mark.parametrize("body", [
    b"", b"{", b"null", b"[]", b"5", b'"text"', b'{"messages": NaN}', b"\xff\xfe",
    b'{"messages": "\xff"}', b'{"temperature": 1e999}', b"[" * 100000, b'{"a":' * 5000,
    b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
])
def test_a_malformed_body_is_refused(server, body):
    response = httpx.post(server.url + "/v1/chat/completions", content=body, timeout=60)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["type"] == "invalid_request_error"


def test_an_unknown_model_is_not_found(client, server):
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-17", messages=MESSAGES)
    assert caught.value.code == "model_not_found"
    assert caught.value.param == "model"
    refused(server.get("/v1/models/gpt-17"), 404, "model", "model_not_found")


def test_an_unknown_path_and_a_wrong_method_are_told_apart(server):
    refused(server.get("/v1/nothing"), 404, code="not_found")
    refused(server.get("/v1/chat/completions"), 405, code="method_not_allowed")
    refused(server.post("/metrics", {}), 405, code="method_not_allowed")


def test_a_prompt_that_is_too_long_is_refused_with_the_code_for_it(client, server):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(
            model="smollm2", messages=[{"role": "user", "content": "word " * 5000}])
    assert caught.value.code == "context_length_exceeded"
    assert caught.value.param == "messages"
    refused(server.post("/v1/completions", {"prompt": "word " * 5000}), 400, "prompt",
            "context_length_exceeded")


def test_a_text_that_no_context_holds_is_refused_without_a_look(server):
    for path, body in (("/v1/completions", {"prompt": "a " * 2_000_000}),
                       ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a " * 2_000_000}]})):
        response = server.post(path, body)
        assert response.json()["error"]["code"] == "context_length_exceeded"


def test_an_enormous_max_tokens_means_as_many_as_there_is_room_for(server):
    response = server.post("/v1/completions", {"prompt": "Hi", "max_tokens": 2**62, "stop": "e",
                                               "temperature": 0})
    assert response.status_code == 200, response.text


def exchange(server, text: bytes) -> bytes:
    """What comes back for bytes on the wire."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(text)
        out = b""
        while piece := connection.recv(65536):
            out += piece
        return out


@pytest.mark.parametrize("text, status", [
    (b"nonsense\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nbad header\r\n\r\n", 400),
    (b"GET /health HTTP/1.1\r\nx: " + b"a" * 100000 + b"\r\n\r\n", 431),
    (b"POST /tokenize HTTP/1.1\r\ncontent-length: 99999999999\r\n\r\n", 413),
    (b"POST /tokenize HTTP/1.1\r\ncontent-length: -5\r\n\r\n", 400),
    (b"POST /tokenize HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", 400),
])
def test_what_is_no_request_is_refused(server, text, status):
    answer = exchange(server, text)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode()), answer
    assert json.loads(body)["error"]["message"]


def test_requests_may_follow_each_other_without_waiting(server):
    request = b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n"
    last = b"GET /version HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
    answers = exchange(server, request * 3 + last)
    assert answers.count(b"HTTP/1.1 200 OK") == 4
    assert answers.count(b'{"status":"ok"}') == 3
    assert answers.endswith(b"}") and b"version" in answers


def test_http_1_0_gets_a_stream_that_ends_with_the_connection(server):
    body = json.dumps({"prompt": "Hi", "stream": True, "max_tokens": 3}).encode()
    answer = exchange(server, b"POST /v1/completions HTTP/1.0\r\ncontent-length: %d\r\n\r\n%s"
                      % (len(body), body))
    assert b"chunked" not in answer
    assert answer.endswith(b"data: [DONE]\n\n")


def test_head_has_no_body(server):
    response = httpx.head(server.url + "/health", timeout=60)
    assert response.status_code == 200
    assert response.headers["content-length"] != "0" and response.content == b""


def test_the_server_goes_on(server, client):
    answer = client.completions.create(model="smollm2", prompt="Hi", max_tokens=2)
    assert answer.usage.completion_tokens <= 2
