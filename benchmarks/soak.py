#!/usr/bin/env python3
"""Mixed load on a real server, and what must hold meanwhile.

    soak.py MODEL [--seconds 600] [--clients 24] [--ttpu build/ttpu] [--offline build/ttpu]

Clients ask for whole and streamed answers, leave in the middle, leave before the first byte, send half a request and send
bad ones. Every answer must be the offline engine's (`ttpu generate`, both in float32 and greedy), every bad request must get
its 4xx; at the end no request may be left, no block of the cache be in use and nothing have been compiled, and the memory must
be what it was after the first quarter. Prints a JSON object; the exit status is 1 when something did not hold.
"""

import argparse
import collections
import http.client
import json
import random
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from engines.tiny_model import write_tiny_model

ROOT = Path(__file__).resolve().parent.parent
SUBJECTS = ["the sea", "a clock", "snow", "a bridge"]
PROMPTS = [f"{start} {subject}" for subject in SUBJECTS for start in ("Tell me about", "A short story of", "Why is there")]
MOST_TOKENS = 32
LONG = {"prompt": "Count: one two three", "max_tokens": 1000, "ignore_eos": True, "temperature": 0}
BAD = [  # body, status
    (b"{", 400), (b"[]", 400), (b"\xff\xfe", 400), (b"[" * 5000, 400), (b'{"prompt": 5}', 400), (b'{"prompt": "x", "n": -1}', 400),
    (b'{"prompt": "x", "max_tokens": -7}', 400), (b'{"prompt": "x", "temperature": -1e308}', 400),
    (b'{"prompt": "x", "top_k": "many"}', 400), (b'{"prompt": "x", "model": "gpt-17"}', 404), (b'{"prompt": "x", "nothing": 1}', 400),
    (b'{"prompt": "' + b"word " * 30000 + b'"}', 400), (b'{"prompt": [-1]}', 400), (b'{"prompt": [999999999999999999999]}', 400),
]


PATIENCE = 300  # seconds without a byte


class Failure(Exception):
    """Something that must hold did not."""


def offline(command: Path, model: str, flags: list[str]) -> dict[str, dict]:
    """What the engine answers without a server: `text` and `token_ids` of each prompt."""
    with tempfile.TemporaryDirectory() as folder:
        prompts, output = Path(folder) / "prompts.jsonl", Path(folder) / "answers.jsonl"
        prompts.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS))
        subprocess.run([command, "generate", model, "--input", prompts, "--output", output, "--temperature", "0",
                        "--max-tokens", str(MOST_TOKENS), *flags], check=True, capture_output=True)
        return {PROMPTS[line["index"]]: line for line in map(json.loads, output.read_text().splitlines())}


class Server:
    def __init__(self, command: Path, model: str, flags: list[str]):
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen([command, "serve", model, "--port", "0", *flags], stdout=subprocess.PIPE,
                                        stderr=self.log, text=True)
        match = re.match(r"serving .* on http://([^:]+):(\d+)", self.process.stdout.readline())
        if not match:
            self.log.seek(0)
            raise SystemExit(f"[soak] the server did not start:\n{self.log.read()}")
        self.address = match[1], int(match[2])

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(*self.address, timeout=PATIENCE)

    def metrics(self) -> dict[str, float]:
        connection = self.connect()
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        found: dict[str, float] = collections.defaultdict(float)
        for name, value in re.findall(r"^([\w:]+)\{[^}]*\} (\S+)$", text, re.MULTILINE):
            found[name] += float(value)
        return found


class Load:
    """What the clients do; each call is one request."""

    def __init__(self, server: Server, answers: dict[str, dict]):
        self.server = server
        self.answers = answers
        self.counts: collections.Counter[str] = collections.Counter()
        self.kinds = [(self.whole, 30), (self.streamed, 30), (self.leave, 12), (self.leave_early, 8), (self.bad, 15), (self.half, 5)]

    def one(self, chance: random.Random, number: int | None) -> None:
        """One of the kinds by chance, or the kind of that number."""
        kinds = [kind for kind, _ in self.kinds]
        (kind,) = chance.choices(kinds, [weight for _, weight in self.kinds])
        kind = kind if number is None else kinds[number % len(kinds)]
        connection = self.server.connect()
        try:
            kind(connection, chance)
        finally:
            connection.close()
        self.counts[kind.__name__] += 1

    @staticmethod
    def post(connection, body: bytes):
        connection.request("POST", "/v1/completions", body, {"content-type": "application/json"})
        return connection.getresponse()

    @staticmethod
    def case(chance) -> dict:
        return {"prompt": chance.choice(PROMPTS), "max_tokens": chance.randint(1, MOST_TOKENS), "temperature": 0,
                "return_token_ids": True}

    def compare(self, body: dict, text: str, tokens: list[int]) -> None:
        expected = self.answers[body["prompt"]]
        first = expected["token_ids"][:body["max_tokens"]]
        same_text = text == expected["text"] if first == expected["token_ids"] else True
        if tokens != first or not same_text:
            raise Failure(f"{body['prompt']!r}, {body['max_tokens']} tokens: {text!r} {tokens}, and offline {first}")

    def whole(self, connection, chance) -> None:
        body = self.case(chance)
        (choice,) = json.load(self.post(connection, json.dumps(body).encode()))["choices"]
        self.compare(body, choice["text"], choice["token_ids"])

    def streamed(self, connection, chance) -> None:
        body = self.case(chance)
        text, tokens, ended = "", [], False
        for line in self.post(connection, json.dumps(body | {"stream": True}).encode()):
            if line == b"data: [DONE]\n":
                ended = True
            elif line.startswith(b"data: "):
                (choice,) = json.loads(line[6:])["choices"]
                text += choice["text"]
                tokens += choice["token_ids"]
        if not ended:
            raise Failure("a stream ended without [DONE]")
        self.compare(body, text, tokens)

    def leave(self, connection, chance) -> None:
        response = self.post(connection, json.dumps(LONG | {"stream": True}).encode())
        for _ in range(chance.randrange(1, 8)):
            response.readline()

    def leave_early(self, connection, chance) -> None:
        connection.request("POST", "/v1/completions", json.dumps(LONG).encode())
        time.sleep(chance.random() * 0.1)

    def bad(self, connection, chance) -> None:
        body, status = chance.choice(BAD)
        response = self.post(connection, body)
        answer = response.read()
        if response.status != status or "message" not in json.loads(answer)["error"]:
            raise Failure(f"{body[:60]!r}: {response.status} {answer[:200]!r}, and not {status}")

    def half(self, connection, chance) -> None:
        with socket.create_connection(self.server.address) as raw:
            raw.sendall(b"POST /v1/completions HTTP/1.1\r\ncontent-length: 100\r\n\r\n{"[:chance.randrange(1, 60)])


def soak(load: Load, seconds: float, clients: int, seed: int) -> tuple[list[str], list[float]]:
    """The failures, and the resident memory as time went on."""
    end = time.monotonic() + seconds
    failures: list[str] = []

    def client(number: int) -> None:
        chance = random.Random(seed * 1000 + number)
        first: int | None = number  # so that there is something of each kind
        while (time.monotonic() < end or first is not None) and not failures:
            try:
                load.one(chance, first)
                first = None
            except TimeoutError:
                failures.append(f"no answer within {PATIENCE} s; {progress(load.server)}")
            except (Failure, OSError, http.client.HTTPException, ValueError, KeyError) as error:
                failures.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    memory = []
    while any(thread.is_alive() for thread in threads):
        memory.append(load.server.metrics()["process_resident_memory_bytes"])
        threads[0].join(max(0.2, seconds / 100))
        for thread in threads:
            thread.join(0)
    for thread in threads:
        thread.join()
    return failures, memory


def progress(server: Server) -> str:
    """Whether the engine goes on: a server that is slow is not one that hangs."""
    try:
        before, _, after = server.metrics(), time.sleep(5), server.metrics()
    except OSError as error:
        return f"nor does /metrics answer: {error}"
    names = "ttpu:steps_total", "vllm:num_requests_running", "vllm:num_requests_waiting"
    return f"within 5 s {', '.join(f'{name} went from {before[name]:g} to {after[name]:g}' for name in names)}"


def settle(server: Server, seconds: float = 60) -> dict[str, float]:
    """The metrics, once nothing runs."""
    end = time.monotonic() + seconds
    while True:
        metrics = server.metrics()
        busy = metrics["vllm:num_requests_running"] + metrics["vllm:num_requests_waiting"] + metrics["vllm:kv_cache_usage_perc"]
        if busy == 0 or time.monotonic() > end:
            return metrics
        time.sleep(0.05)


def soak_model(arguments: argparse.Namespace) -> None:
    precise = ["--dtype", "f32", "--max-model-len", "2048"]
    answers = offline(arguments.offline or arguments.ttpu, arguments.model, precise)
    server = Server(arguments.ttpu, arguments.model, [*precise, "--log-format", "none"])
    try:
        load = Load(server, answers)
        failures, memory = soak(load, arguments.seconds, arguments.clients, arguments.seed)
        metrics = settle(server)
        server.process.terminate()
        status = server.process.wait(120)
    finally:
        server.process.kill()
    early, late = memory[len(memory) // 4], memory[-1]
    for name in ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc",
                 "ttpu:compilations_after_start_total"):
        if metrics[name] != 0:
            failures.append(f"{name} is {metrics[name]} at the end, and not 0")
    if late - early > arguments.most_growth * 1e6:
        failures.append(f"the memory grew from {early / 1e6:.0f} to {late / 1e6:.0f} MB")
    if status != 0:
        failures.append(f"the server ended with status {status}")
    print(json.dumps({"seconds": arguments.seconds, "clients": arguments.clients, "requests": dict(load.counts),
                      "generated_tokens": metrics["vllm:generation_tokens_total"], "preemptions": metrics["vllm:num_preemptions_total"],
                      "memory_mb": [round(early / 1e6, 1), round(late / 1e6, 1)], "failures": failures}))
    sys.exit(1 if failures else 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="or `tiny`: two layers with random weights, for a build that is slow")
    parser.add_argument("--ttpu", type=Path, default=ROOT / "build" / "ttpu")
    parser.add_argument("--offline", type=Path, metavar="TTPU", help="the build that says what is right, where --ttpu is a slow one")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--clients", type=int, default=24)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--most-growth", type=float, default=32, metavar="MB", help="of the memory after the first quarter")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.model == "tiny":
            arguments.model = str(write_tiny_model(Path(folder)))
        soak_model(arguments)


if __name__ == "__main__":
    main()
