#!/usr/bin/env python3
"""Compiles models for TPUs that need not be here, and writes what came out as a table.

    compile_matrix.py                                     every tiny model of tests/fixtures/models, on every chip
    compile_matrix.py tests/fixtures/configs/*.json       published sizes

One `ttpu compile` at a time (prefill and decode, each in a process of its own). A program that does not fit is a
result; any other failure makes the exit code 1. A cell: memory of a device and least time of a decode step, and in brackets
how long both programs took to compile. With --json what was done before is kept, so that a run can go on.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
ONE_DEVICE_A_CHIP = {"v5e": "v5e:2x2", "v6e": "v6e:2x2", "v5p": "v5p:2x2x1", "tpu7x": "tpu7x:2x2x1"}


def name_of(model: Path) -> str:
    return model.stem if model.suffix == ".json" else model.name


def run(command: list[str]) -> tuple[int, str, str, int]:
    """Exit code, output, errors, and the peak memory of the largest process in KiB."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        child = subprocess.Popen(command, stdout=out, stderr=err)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        return child.returncode, out.read(), err.read(), usage.ru_maxrss


def compile_one(ttpu: str, model: Path, topology: str, flags: list[str]) -> dict:
    code, out, err, peak = run([ttpu, "compile", str(model), "--topology", topology, "--json", *flags])
    result = {"peak_gib": peak / 2**20}
    if code == 0:
        return result | {"status": "compiled", "reports": json.loads(out)}
    lines = [line for line in err.strip().splitlines() if line]
    if re.search(r"does not fit|exceeds? the memory|[Rr]an out of memory", err):
        return result | {"status": "does not fit", "message": " ".join(lines)}
    return result | {"status": "failed", "message": " ".join(lines)[:2000]}


def size(count: float) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**27 else f"{count / 2**20:.1f} MiB"


def duration(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms" if seconds >= 1e-4 else f"{seconds * 1e6:.1f} us"


def cell(result: dict) -> str:
    if result["status"] == "does not fit":
        needs = re.search(r"needs? ([0-9.]+ ?GiB)", result["message"])
        return f"does not fit ({needs[1] if needs else '?'})"
    if result["status"] == "failed":
        return "**failed**"
    decode, prefill = result["reports"]["decode"], result["reports"]["prefill"]
    seconds = decode["compile_seconds"] + prefill["compile_seconds"]
    return f"{size(decode['total_bytes'])}, {duration(decode['step_seconds'])} ({seconds:.0f} s)"


def table(results: dict, topologies: list[str]) -> str:
    models = sorted({key.split("|")[0] for key in results})
    lines = ["| model | " + " | ".join(topologies) + " |", "|---" * (len(topologies) + 1) + "|"]
    for model in models:
        cells = [results.get(f"{model}|{topology}") for topology in topologies]
        lines.append(f"| {model} | " + " | ".join(cell(one) if one else "" for one in cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path, help="folders or .json files")
    parser.add_argument("--ttpu", default=str(ROOT / "build/ttpu"))
    parser.add_argument("--topologies", nargs="+", default=list(ONE_DEVICE_A_CHIP.values()))
    parser.add_argument("--json", type=Path, help="what came out of each, kept between runs")
    parser.add_argument("--flags", default="", help="more flags of `ttpu compile`, in one word")
    arguments = parser.parse_args()
    tiny = not arguments.models
    models = arguments.models or sorted(path.parent for path in (ROOT / "tests/fixtures/models").glob("*/config.json"))
    flags = arguments.flags.split() or (["--max-model-len", "16", "--prefill-tokens", "16"] if tiny else [])
    results = json.loads(arguments.json.read_text()) if arguments.json and arguments.json.exists() else {}
    for model in models:
        for topology in arguments.topologies:
            key = f"{name_of(model)}|{topology}"
            if results.get(key, {}).get("status") in ("compiled", "does not fit"):
                continue
            result = results[key] = compile_one(arguments.ttpu, model, topology, flags)
            print(f"{key}: {result['status']}, peak {result['peak_gib']:.1f} GiB {result.get('message', '')}",
                  file=sys.stderr, flush=True)
            if arguments.json:
                arguments.json.write_text(json.dumps(results, indent=1))
    print(table(results, arguments.topologies))
    sys.exit(any(result["status"] == "failed" for result in results.values()))


if __name__ == "__main__":
    main()
