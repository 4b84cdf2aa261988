"""Clients that leave, keys, limits, TLS, logs and the end of a server."""

import concurrent.futures
import contextlib
import json
import resource
import socket
import ssl
import subprocess
import threading
import time

import httpx
import openai
import pytest

LONG = {"prompt": "Once upon a time", "max_tokens": 1500, "temperature": 0, "ignore_eos": True}
SHORT = {"prompt": "Once upon a time", "max_tokens": 2, "temperature": 0}


def start_stream(server, body=None):
    """A stream of which one event has come; close() leaves it."""
    client = httpx.Client(timeout=120)
    request = client.build_request("POST", server.url + "/v1/completions",
                                   json={**(body or LONG), "stream": True})
    response = client.send(request, stream=True)
    lines = response.iter_lines()
    assert next(lines).startswith("data: ")
    return client, response, lines


def test_a_client_that_leaves_frees_its_place_at_once(server):
    streams = [start_stream(server) for _ in range(4)]
    assert server.metric("vllm:num_requests_running") == 4
    assert server.metric("vllm:kv_cache_usage_perc") > 0
    aborted = server.metric("vllm:request_success_total")
    for client, response, _ in streams:
        response.close()
        client.close()
    server.wait_for("vllm:num_requests_running", 0, seconds=20)
    assert server.metric("vllm:kv_cache_usage_perc") == 0
    assert server.metric("vllm:request_success_total") == aborted + 4


def test_a_client_that_leaves_before_any_answer_is_noticed_too(server):
    host, port = server.url.removeprefix("http://").split(":")
    body = json.dumps({**LONG, "stream": False}).encode()
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\ncontent-length: %d\r\n\r\n%s"
                           % (len(body), body))
        server.wait_for("vllm:num_requests_running", 1)
    server.wait_for("vllm:num_requests_running", 0, seconds=20)


def test_half_a_request_holds_nobody_up(server):
    host, port = server.url.removeprefix("http://").split(":")
    halves = [socket.create_connection((host, int(port))) for _ in range(50)]
    for half in halves:
        half.sendall(b"POST /v1/completions HTTP/1.1\r\ncontent-length: 100\r\n\r\n{")
    assert server.post("/v1/completions", SHORT).status_code == 200
    for half in halves:
        half.close()


def test_a_reader_that_does_not_read_holds_nobody_up(server):
    host, port = server.url.removeprefix("http://").split(":")
    body = json.dumps({**LONG, "stream": True, "logprobs": 5}).encode()
    slow = socket.create_connection((host, int(port)))
    slow.sendall(b"POST /v1/completions HTTP/1.1\r\ncontent-length: %d\r\n\r\n%s"
                 % (len(body), body))
    server.wait_for("vllm:num_requests_running", 1)
    assert server.post("/v1/completions", SHORT).status_code == 200
    slow.close()
    server.wait_for("vllm:num_requests_running", 0, seconds=20)


def test_a_request_keeps_the_id_that_it_came_with(server):
    assert server.get("/health", headers={"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"
    made = server.get("/health", headers={"x-request-id": "no good\"id"}).headers["x-request-id"]
    assert made.startswith("req-")


def test_a_thousand_connections_may_rest_open_while_128_stream(server):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    host, port = server.url.removeprefix("http://").split(":")
    try:
        with contextlib.ExitStack() as stack:
            resting = [stack.enter_context(socket.create_connection((host, int(port))))
                       for _ in range(1000)]
            for connection in resting:
                connection.sendall(b"GET /health HTTP/1.1\r\n\r\n")
            for connection in resting:
                assert connection.recv(4096).startswith(b"HTTP/1.1 200")
            assert server.metric("ttpu:connections") >= 1000

            def stream(_):
                return server.post("/v1/completions", {**SHORT, "stream": True}).text

            with concurrent.futures.ThreadPoolExecutor(128) as pool:
                answers = list(pool.map(stream, range(128)))
            assert all(answer.endswith("data: [DONE]\n\n") for answer in answers)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_key_is_asked_for_where_one_is_set(serve):
    server = serve("--api-key", "first", "second")
    for options in ({}, {"headers": {"authorization": "Bearer wrong"}},
                    {"headers": {"authorization": "first"}}):
        response = server.get("/v1/models", **options)
        assert response.status_code == 401
        assert response.json()["error"]["code"] == "invalid_api_key"
    with pytest.raises(openai.AuthenticationError):
        server.client(api_key="third").models.list()
    for key in ("first", "second"):
        assert server.client(api_key=key).models.list().data
    assert server.get("/health").status_code == 200
    assert server.get("/metrics").status_code == 200


def test_more_than_may_wait_are_sent_away_and_the_rest_is_served(serve):
    server = serve("--max-num-seqs", "1", "--max-queue", "1", "--max-body-bytes", "5000")
    streams = [start_stream(server)]
    waiting = threading.Thread(target=server.post, args=("/v1/completions", SHORT))
    waiting.start()
    server.wait_for("vllm:num_requests_waiting", 1)
    response = server.post("/v1/completions", SHORT)
    assert response.status_code == 429
    assert int(response.headers["retry-after"]) >= 1
    assert response.json()["error"]["code"] == "rate_limit_exceeded"
    for client, stream, _ in streams:
        stream.close()
        client.close()
    waiting.join(60)
    assert server.post("/v1/completions", SHORT).status_code == 200
    assert server.post("/v1/completions", {"prompt": "a" * 6000}).status_code == 413


def test_connections_beyond_the_limit_are_closed(serve):
    server = serve("--max-connections", "3")
    host, port = server.url.removeprefix("http://").split(":")
    open_ones = [socket.create_connection((host, int(port))) for _ in range(3)]
    for connection in open_ones:
        connection.sendall(b"GET /health HTTP/1.1\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
    with socket.create_connection((host, int(port)), timeout=30) as one_more:
        assert one_more.recv(1) == b""
    open_ones[0].close()
    end = time.monotonic() + 30
    while True:
        try:
            assert server.get("/health").status_code == 200
            break
        except httpx.TransportError:
            assert time.monotonic() < end


def test_what_runs_is_finished_and_new_requests_are_refused_at_the_end(serve):
    server = serve()
    body = {**LONG, "max_tokens": 200}
    expected = server.post("/v1/completions", body).json()["choices"][0]["text"]
    client, response, lines = start_stream(server, body)
    server.process.terminate()
    refusals = []
    while not refusals:
        answer = server.post("/v1/completions", SHORT)
        if answer.status_code == 503:
            refusals.append(answer)
    assert server.get("/health").status_code == 503
    events = [json.loads(line[6:]) for line in lines if line and line != "data: [DONE]"]
    assert events[-1]["choices"][0]["finish_reason"] == "length"
    text = "".join(event["choices"][0]["text"] for event in events)
    assert expected.endswith(text) and len(expected) - len(text) < 20  # but for the first event
    response.close()
    client.close()
    # A second signal would end it at once.
    assert server.process.wait(timeout=60) == 0
    with pytest.raises(httpx.ConnectError):
        server.get("/health")


def test_a_second_signal_ends_it_at_once(serve):
    server = serve()
    client, response, _ = start_stream(server)
    server.process.terminate()
    while server.get("/health").status_code == 200:
        pass
    status, _ = server.stop(seconds=60)
    assert status == 0
    response.close()
    client.close()


def test_the_log_has_a_json_object_for_each_request(serve):
    server = serve("--log-format", "json")
    server.post("/v1/completions", SHORT, headers={"x-request-id": "mine"})
    server.get("/nothing\u00e4\"")
    _, errors = server.stop()
    lines = [json.loads(line) for line in errors.splitlines() if line.startswith("{")]
    first = next(line for line in lines if line["request_id"] == "mine")
    assert (first["method"], first["path"], first["status"]) == ("POST", "/v1/completions", 200)
    assert first["seconds"] > 0
    assert any(line["status"] == 404 for line in lines)


def test_tls(serve, certificate):
    pem, key = certificate
    server = serve("--ssl-certfile", str(pem), "--ssl-keyfile", str(key))
    assert server.url.startswith("https://")
    trust = ssl.create_default_context(cafile=pem)
    with httpx.Client(verify=trust, timeout=120) as client:
        assert client.get(server.url + "/health").json() == {"status": "ok"}
        whole = client.post(server.url + "/v1/completions", json=SHORT).json()
        answer = client.post(server.url + "/v1/completions", json={**SHORT, "stream": True})
        assert answer.text.endswith("data: [DONE]\n\n")
        text = "".join(json.loads(line[6:])["choices"][0]["text"]
                       for line in answer.text.splitlines() if line.startswith("data: {"))
        assert text == whole["choices"][0]["text"]
    with pytest.raises(httpx.TransportError):
        httpx.get(server.url.replace("https", "http") + "/health", timeout=30)


def test_a_bad_start_says_why(command, smollm2, server, tmp_path):
    port = server.url.rpartition(":")[2]
    (tmp_path / "bad.pem").write_text("no certificate")
    for flags, words in ((("--port", port), "cannot listen"), (("--host", "256.1.1.1"), "256.1.1.1"),
                         (("--ssl-certfile", "x.pem"), "--ssl-keyfile"),
                         (("--ssl-certfile", str(tmp_path / "bad.pem"), "--ssl-keyfile", "k"), "bad.pem"),
                         (("--max-num-seqs", "0"), "--max-num-seqs")):
        out = subprocess.run([command, "serve", str(smollm2), *flags], capture_output=True,
                             text=True, timeout=300, check=False)
        assert out.returncode == 1
        assert words in out.stderr


def test_load_with_clients_that_leave_and_bad_ones_leaves_nothing_behind(server, client):
    def expected(i):
        return server.post("/v1/completions", {**SHORT, "prompt": f"Number {i}:", "max_tokens": 12})

    alone = [expected(i).json()["choices"][0]["text"] for i in range(8)]

    def one(i):
        if i % 4 == 1:
            stream_client, response, _ = start_stream(server)
            response.close()
            stream_client.close()
        elif i % 4 == 2:
            assert server.post("/v1/completions", {"prompt": i}).status_code == 400
        else:
            assert expected(i % 8).json()["choices"][0]["text"] == alone[i % 8]

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        list(pool.map(one, range(64)))
    server.wait_for("vllm:num_requests_running", 0)
    server.wait_for("vllm:num_requests_waiting", 0)
    assert server.metric("vllm:kv_cache_usage_perc") == 0
    assert server.metric("ttpu:compilations_after_start_total") == 0
