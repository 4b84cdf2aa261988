"""Servers to talk to: the real command, the real model."""

import contextlib
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import time

import httpx
import openai
import pytest

SERVING = re.compile(r"^serving (.*) on (https?://\S+)$")


class Serve:
    """A running `ttpu serve`."""

    def __init__(self, command, model, *flags):
        # A file, since nobody reads the log meanwhile and a pipe that is full would hold the server up.
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [command, "serve", str(model), "--port", "0", *flags],
            stdout=subprocess.PIPE, stderr=self.errors, text=True)
        line = self.process.stdout.readline().rstrip("\n")
        if not line:
            raise AssertionError(f"the server did not start: {self.log()}")
        self.name, self.url = SERVING.match(line).groups()

    def log(self) -> str:
        """What was written to standard error."""
        self.errors.seek(0)
        return self.errors.read()

    def client(self, **options) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.url + "/v1", max_retries=0, timeout=300,
                             **{"api_key": "none", **options})

    def get(self, path, **options) -> httpx.Response:
        return httpx.get(self.url + path, timeout=60, **options)

    def post(self, path, body=None, **options) -> httpx.Response:
        return httpx.post(self.url + path, json=body, timeout=300, **options)

    def metric(self, name) -> float:
        """The sum of what /metrics says under that name."""
        lines = [line for line in self.get("/metrics").text.splitlines()
                 if line.startswith(name + "{")]
        assert lines, f"/metrics has no {name}"
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    def wait_for(self, name, value, seconds=60):
        """Until the metric has that value."""
        end = time.monotonic() + seconds
        while (seen := self.metric(name)) != value:
            assert time.monotonic() < end, f"{name} is {seen}, and not {value}, after {seconds} s"
            time.sleep(0.02)

    def stop(self, how=signal.SIGTERM, seconds=120) -> tuple[int, str]:
        """The exit status, and what was written to standard error."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        self.process.communicate(timeout=seconds)
        return self.process.returncode, self.log()

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


@pytest.fixture(name="serve")
def fixture_serve(command, smollm2):
    """Starts servers with further flags."""
    with contextlib.ExitStack() as stack:
        def start(*flags, model=smollm2):
            server = Serve(command, model, *flags)
            stack.callback(server.kill)
            return server
        yield start


@pytest.fixture(scope="session", name="server")
def fixture_server(command, smollm2):
    """The server that most tests share. It must end well, with nothing compiled after its start.

    In float32, since in bfloat16 the number of rows in a batch decides how sums are rounded, and so now and then which of
    two tokens that are as likely comes first."""
    server = Serve(command, smollm2, "--dtype", "f32", "--served-model-name", "smollm2", "other-name")
    try:
        yield server
        server.wait_for("vllm:num_requests_running", 0)
        assert server.metric("ttpu:compilations_after_start_total") == 0
        status, errors = server.stop()
        assert status == 0, errors
    finally:
        server.kill()


@pytest.fixture(scope="session", name="certificate")
def fixture_certificate(tmp_path_factory):
    """A certificate for 127.0.0.1 that vouches for itself, and its key."""
    folder = tmp_path_factory.mktemp("certificate")
    pem, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
                    "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1",
                    "-keyout", key, "-out", pem], check=True, capture_output=True)
    return pem, key


@pytest.fixture(scope="session", name="client")
def fixture_client(server):
    return server.client()


@pytest.fixture(scope="session", name="minilm")
def fixture_minilm():
    cache = os.environ.get("TTPU_CACHE") or pathlib.Path(
        os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "ttpu"
    return pathlib.Path(cache) / "models" / "all-minilm-l6-v2"


@pytest.fixture(scope="session", name="embedder")
def fixture_embedder(command, minilm):
    """A server of an encoder."""
    server = Serve(command, minilm, "--served-model-name", "minilm", "--max-queue", "64")
    try:
        yield server
        server.wait_for("vllm:num_requests_running", 0)
        status, errors = server.stop()
        assert status == 0, errors
    finally:
        server.kill()
