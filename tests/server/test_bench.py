"""`ttpu bench serve` against the real server, and against servers that do not behave."""

import contextlib
import http.server
import json
import subprocess
import threading

import pytest

TEXTS = [{"prompt": "Once upon a time", "max_tokens": 5}, {"prompt_token_ids": [28, 29, 30], "max_tokens": 3},
         {"messages": [{"role": "user", "content": "What is a TPU?"}], "output_tokens": 7}]


@pytest.fixture(name="bench")
def fixture_bench(command):
    def run(*flags, status=0, environment=None):
        """The report, and standard error."""
        done = subprocess.run([command, "bench", "serve", "--json", *map(str, flags)], capture_output=True, text=True, timeout=120,
                              env=environment)
        assert done.returncode == status, done.stderr
        return json.loads(done.stdout) if done.stdout else None, done.stderr
    return run


@pytest.fixture(name="dataset")
def fixture_dataset(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(item) + "\n" for item in TEXTS))
    return path


@contextlib.contextmanager
def answering(pieces: list[bytes], status=200, cut=False):
    """A server whose answers are these pieces, sent one by one."""
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(status)
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            for piece in pieces:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                self.wfile.flush()
            if not cut:
                self.wfile.write(b"0\r\n\r\n")
            self.close_connection = True

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def event(**fields) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def test_a_server_is_measured(server, bench, dataset):
    report, _ = bench("--base-url", server.url, "--dataset", dataset, "--num-prompts", 7, "--max-concurrency", 3, "--ignore-eos",
                      "--save-detailed")
    assert report["model"] == "smollm2"
    assert (report["completed"], report["failed"]) == (7, 0)
    assert report["output_lens"] == [5, 3, 7, 5, 3, 7, 5]
    assert report["total_output_tokens"] == 35
    assert report["input_lens"][1] == 3 and report["total_input_tokens"] == sum(report["input_lens"])
    assert report["output_throughput"] == pytest.approx(35 / report["duration"])
    for first, whole in zip(report["ttfts"], report["latencies"]):
        assert 0 < first <= whole <= report["duration"]
    for name in ("ttft", "tpot", "itl", "e2el"):
        assert 0 < report[f"median_{name}_ms"] <= report[f"p99_{name}_ms"]
    assert max(report["latencies"]) == pytest.approx(report["p99_e2el_ms"] / 1e3)


def test_random_prompts_come_at_a_rate(server, bench):
    report, _ = bench("--port", server.url.rpartition(":")[2], "--num-prompts", 6, "--input-len", 9, "--output-len", 2,
                      "--request-rate", 50, "--ignore-eos")
    assert (report["completed"], report["total_input_tokens"], report["total_output_tokens"]) == (6, 54, 12)
    assert report["request_rate"] == 50 and report["duration"] > 0.01


def test_tls_and_keys(serve, bench, tmp_path, certificate):
    pem, key = certificate
    server = serve("--ssl-certfile", str(pem), "--ssl-keyfile", str(key), "--api-key", "secret")
    flags = ["--base-url", server.url, "--num-prompts", 2, "--output-len", 2]
    trusts = {"SSL_CERT_FILE": str(pem)}
    report, _ = bench(*flags, "--api-key", "secret", environment=trusts)
    assert report["completed"] == 2
    _, error = bench(*flags, "--api-key", "guess", "--model", "m", environment=trusts, status=1)
    assert "401" in error and "the API key is not right" in error
    _, error = bench(*flags, "--api-key", "secret", environment={}, status=1)
    assert "certificate verify failed" in error


def test_what_a_server_does_wrong_is_told(bench, server):
    text, usage, end = event(choices=[{"text": "a"}]), event(choices=[], usage={"prompt_tokens": 3, "completion_tokens": 4}), b"data: [DONE]\n\n"
    flags = ["--model", "m", "--num-prompts", 2]
    with answering([text[:9], text[9:] + text, usage, end]) as url:  # cut where it may be
        report, _ = bench(*flags, "--base-url", url)
        assert (report["total_input_tokens"], report["total_output_tokens"]) == (6, 8)
    with answering([text, text, event(choices=[{"text": "", "finish_reason": "stop"}]), end]) as url:  # no usage
        assert bench(*flags, "--base-url", url)[0]["total_output_tokens"] == 4
    for pieces, options, said in [
            ([text], {}, "without [DONE]"),
            ([text], {"cut": True}, "broke off"),
            ([text, b"data: nonsense\n\n", end], {}, "no JSON object: nonsense"),
            ([text, event(error={"message": "out of memory"}), end], {}, "out of memory"),
            ([b'{"error": {"message": "too many"}}'], {"status": 429}, "status 429: too many"),
            ([b"<html>"], {"status": 502}, "status 502: <html>")]:
        with answering(pieces, **options) as url:
            report, error = bench(*flags, "--base-url", url, status=1)
            assert (report["completed"], report["failed"]) == (0, 2)
            assert said in error
    report, error = bench("--base-url", server.url, "--model", "gpt-17", "--num-prompts", 1, status=1)
    assert "404" in error and "gpt-17" in error


@pytest.mark.parametrize("flags, said", [
    (["--base-url", "http://127.0.0.1:1"], "cannot reach http://127.0.0.1:1"),
    (["--base-url", "ftp://here"], "'ftp://here' is no URL"),
    (["--base-url", "http://"], "names no host"),
    (["--base-url", "http://nowhere.invalid"], "there is no host 'nowhere.invalid'"),
    (["--dataset", "/nowhere.jsonl"], "/nowhere.jsonl"),
    (["--model", "m", "--request-rate", "0"], "the request rate is 0"),
    (["--num-prompts", "-1"], "--num-prompts is -1"),
])
def test_bad_flags_are_told(bench, flags, said):
    _, error = bench(*flags, status=1)
    assert said in error
