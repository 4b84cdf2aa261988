#!/usr/bin/env python3
"""Many prompts without a server, side by side on this machine's CPU: the same weights in 16 bits, one process at a time, in turns.

    offline.py run                measures; writes a JSON file and prints a table
    offline.py table FILE         prints the table of a JSON file again

Each engine gets the 32 prompts of workloads/smollm2.json at once, and answers 128 tokens to each, greedily (peers: `peers.py setup`).
llama.cpp has no such engine: `serving.py` measures its server.
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from engines import models
from engines.base import Task, write_json
from engines.command import command_line, run_command
from engines.measure import BenchmarkError, metered, run
from engines.python_peers import OpenVinoGenAi, Vllm
from engines.table import read
from engines.workers_peer import WORKERS

ROOT = Path(__file__).resolve().parent.parent
WORKLOAD = read(ROOT / "benchmarks" / "workloads" / "smollm2.json")["W2"]
TASK = Task("workload", WORKLOAD["prompts"], WORKLOAD["max_new"], 1024)


def ours(ttpu: Path) -> dict:
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as dataset:
        dataset.write("".join(json.dumps({"prompt_token_ids": ids}) + "\n" for ids in TASK.prompts))
        dataset.flush()
        child = run([ttpu, "bench", "throughput", models.path("bf16.gguf"), "--dtype", "bf16", "--dataset", dataset.name,
                     "--output-len", TASK.new_tokens, "--max-num-seqs", len(TASK.prompts), "--max-model-len", TASK.context, "--json"])
    report = json.loads(child.stdout)
    version = subprocess.run([ttpu, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    return {"version": version, "seconds": report["seconds"], "tokens": round(report["seconds"] * report["output_tokens_per_second"])}


def theirs(peer: OpenVinoGenAi | Vllm, worker: str) -> dict:
    if why := peer.missing():
        raise BenchmarkError(why)
    model = models.path(peer.precisions["bf16"])
    folder = peer.converted(model) if isinstance(peer, OpenVinoGenAi) else model
    child = run([peer.venv.python, WORKERS / worker, folder, "bf16"], stdin=json.dumps(TASK.to_json()), environment=peer.environment)
    return json.loads(child.stdout)


def measure(arguments: argparse.Namespace) -> dict:
    engines = {"ttpu": ("TTPU", lambda: ours(arguments.ttpu)),
               "openvino_genai": (OpenVinoGenAi.title, lambda: theirs(OpenVinoGenAi(), "batch_openvino.py")),
               "vllm": (Vllm.title, lambda: theirs(Vllm(), "batch_vllm.py"))}
    record = {"date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "cores": os.cpu_count(),
              "titles": {name: engines[name][0] for name in arguments.engines}, "versions": {}, "left_out": {}, "runs": []}
    for number in range(1, arguments.rounds + 1):
        for name in arguments.engines if number % 2 else arguments.engines[::-1]:
            title, answer = engines[name]
            if name in record["left_out"]:
                continue
            try:
                with metered() as load:
                    report = answer()
                if report["tokens"] != len(TASK.prompts) * TASK.new_tokens:
                    raise BenchmarkError(f"{report['tokens']} tokens came, and not {TASK.new_tokens} to each prompt")
            except BenchmarkError as error:
                record["left_out"][name] = str(error)
                say(f"{title} is left out: {error}")
                continue
            record["versions"][name] = report["version"]
            record["runs"].append({"engine": name, "round": number, "others_cores": load.others + load.stolen,
                                   "output_throughput": report["tokens"] / report["seconds"]})
            say(f"round {number}: {title}: {record['runs'][-1]['output_throughput']:.1f} tokens/s, "
                f"others used {load.others + load.stolen:.1f} cores")
            write_json(arguments.out, record)
    return record


def markdown(record: dict) -> str:
    speeds = {name: median([one["output_throughput"] for one in record["runs"] if one["engine"] == name]) for name in record["versions"]}
    busiest = max((one["others_cores"] for one in record["runs"]), default=0)
    lines = [f"{record['date']}, {record['cores']} cores, bf16 (OpenVINO's file is f16), {len(TASK.prompts)} prompts of {min(map(len, TASK.prompts))} to {max(map(len, TASK.prompts))} tokens, "
             f"{TASK.new_tokens} tokens each; medians. Others used up to {busiest:.1f} cores meanwhile.", "",
             "| engine | output tokens/s | TTPU is better by |", "| --- | --: | --: |"]
    for name, speed in speeds.items():
        ratio = f"{speeds['ttpu'] / speed:.2f}" if "ttpu" in speeds and name != "ttpu" else ""
        lines.append(f"| {record['versions'][name]} | {speed:.1f} | {ratio} |")
    lines += [f"Not measured: {record['titles'][name]}: {why.splitlines()[0]}" for name, why in record["left_out"].items()]
    return "\n".join(lines)


def say(text: str) -> None:
    print(f"[offline] {text}", file=sys.stderr, flush=True)


def main() -> None:
    parser, commands = command_line(__doc__)
    names = ["ttpu", "openvino_genai", "vllm"]
    one = commands.add_parser("run", help="measure", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    one.add_argument("--engines", nargs="+", choices=names, default=names)
    one.add_argument("--rounds", type=int, default=3)
    one.add_argument("--out", type=Path, default=Path("offline.json"))
    one.set_defaults(call=measure)
    run_command("offline", parser, commands, one, markdown)


if __name__ == "__main__":
    main()
