#!/usr/bin/env python3
"""How far quantized weights are from bf16: each position of a text (LICENSE), through `ttpu serve`, on this machine's CPU.

    quantization.py run               measures; writes a JSON file and prints a table
    quantization.py table FILE        prints the table of a JSON file again

Of every position but the first of a window: the log probability of the text's own token (perplexity), which token is the likeliest
(the share where bf16 says the same), and by how much the log probability of bf16's likeliest token differs. "xla" is the plain program,
as a TPU gets it (`--no-kernels`): activations of int8 and fp8 are rounded too.
"""

import argparse
import datetime
import json
import math
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

from engines.base import cache_dir, write_json
from engines.command import ROOT, command_line, run_command
from engines.measure import BenchmarkError

MODELS = {"SmolLM2-135M-Instruct": "smollm2-135m-instruct-q4_1.gguf", "Gemma 3 270M": "gemma3-270m-q4_k_m.gguf"}
FORMS = {
    "bf16": ["--weights", "bf16"],
    "int8": ["--quantization", "int8"],
    "int8, xla": ["--quantization", "int8", "--no-kernels"],
    "fp8, xla": ["--quantization", "fp8", "--no-kernels"],
    "int4": ["--quantization", "int4"],
}
TOP = 20  # of a position's tokens are listed


class Server:
    def __init__(self, ttpu: Path, model: Path, flags: list[str], window: int):
        command = [ttpu, "serve", model, "--port", "0", "--max-num-seqs", "1", "--max-model-len", str(window + 1),
                   "--max-num-batched-tokens", str(window), *flags]
        self.process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        said = []
        for line in self.process.stdout:
            said.append(line)
            if found := re.search(r"serving .* on (http://\S+)", line):
                self.url = found.group(1)
                return
        raise BenchmarkError(f"`{' '.join(str(part) for part in command)}` did not serve:\n{''.join(said[-5:])}")

    def post(self, path: str, body: dict) -> dict:
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=600) as answer:
            return json.load(answer)

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_) -> None:
        self.process.terminate()
        self.process.wait()


def positions(server: Server, ids: list[int], window: int) -> list[dict]:
    """Of each position: the token's log probability, and the likeliest tokens' by their number."""
    found = []
    for begin in range(0, len(ids), window):
        part = ids[begin : begin + window]
        answer = server.post("/v1/completions", {"prompt": part, "max_tokens": 1, "temperature": 0, "prompt_logprobs": TOP})
        for token, entry in zip(part[1:], answer["choices"][0]["prompt_logprobs"][1:], strict=True):
            ranked = {int(name): one["logprob"] for name, one in entry.items() if one["rank"] is not None}
            found.append({"own": entry[str(token)]["logprob"], "top": ranked})
    return found


def compare(base: list[dict], other: list[dict]) -> dict:
    best = [max(one["top"], key=one["top"].get) for one in base]
    same = sum(max(two["top"], key=two["top"].get) == token for two, token in zip(other, best, strict=True))
    # A token that is not among the other's likeliest is at most as likely as the last of them.
    errors = [abs(one["top"][token] - two["top"].get(token, min(two["top"].values())))
              for one, two, token in zip(base, other, best, strict=True)]
    return {"perplexity": math.exp(-sum(two["own"] for two in other) / len(other)), "same_choice": same / len(base),
            "top_error": sum(errors) / len(errors)}


def measure(arguments: argparse.Namespace) -> dict:
    text = (ROOT / "LICENSE").read_text()
    record = {"date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "window": arguments.window,
              "tokens": arguments.tokens, "models": {}}
    for name in arguments.models:
        path = cache_dir() / "models" / MODELS[name]
        base = None
        for form in ["bf16", *[one for one in arguments.forms if one != "bf16"]]:
            with Server(arguments.ttpu, path, FORMS[form], arguments.window) as server:
                ids = server.post("/tokenize", {"prompt": text, "add_special_tokens": False})["tokens"][: arguments.tokens]
                found = positions(server, ids, arguments.window)
            base = base or found
            record["models"].setdefault(name, {})[form] = compare(base, found)
            print(f"[quantization] {name}, {form}: {record['models'][name][form]}", file=sys.stderr, flush=True)
            write_json(arguments.out, record)
    return record


def markdown(record: dict) -> str:
    lines = [f"{record['date']}, {record['tokens']} tokens of LICENSE in windows of {record['window']}.", "",
             "| model | weights | perplexity | same choice as bf16 | log probability of bf16's choice off by |",
             "| --- | --- | --: | --: | --: |"]
    for model, forms in record["models"].items():
        lines += [f"| {model} | {form} | {one['perplexity']:.3f} | {100 * one['same_choice']:.1f}% | {one['top_error']:.3f} |"
                  for form, one in forms.items()]
    return "\n".join(lines)


def main() -> None:
    parser, commands = command_line(__doc__)
    one = commands.add_parser("run", help="measure", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    one.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    one.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    one.add_argument("--tokens", type=int, default=1024)
    one.add_argument("--window", type=int, default=256)
    one.add_argument("--out", type=Path, default=Path("quantization.json"))
    one.set_defaults(call=measure)
    run_command("quantization", parser, commands, one, markdown)


if __name__ == "__main__":
    main()
