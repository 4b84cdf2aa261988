#!/usr/bin/env python3
"""Compiles models for TPUs that need not be here, and writes what came out as a table.

    compile_matrix.py                                     every tiny model of tests/fixtures/models, on every chip
    compile_matrix.py tests/fixtures/configs/*.json       published sizes
    compile_matrix.py --serving [MODEL ...]               published sizes, each for serving on the slice that `ttpu plan` takes
                                                          for it by formulas, and on the next smaller one

One `ttpu compile` at a time (prefill and decode, each in a process of its own). A program that does not fit is a
result; any other failure makes the exit code 1. A cell: memory of a device and least time of a decode step, and in brackets
how long both programs took to compile. For serving: the slice and the mesh, memory of a device, and the estimates of a prefill and
of a decode step as scheduled. With --json what was done before is kept, so that a run can go on.
"""

import argparse
import dataclasses
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
ONE_DEVICE_A_CHIP = {"v5e": "v5e:2x2", "v6e": "v6e:2x2", "v5p": "v5p:2x2x1", "tpu7x": "tpu7x:2x2x1"}
SHAPES = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")  # of v5e and v6e
SERVED = ("llama-3-8b", "llama-3.1-70b", "gemma-3-27b", "qwen3-32b", "qwen3-30b-a3b", "mixtral-8x7b", "deepseek-v3")
SEQUENCES, INPUT, OUTPUT = 64, 1024, 256


@dataclasses.dataclass(frozen=True)
class Job:
    model: Path
    column: str
    topology: str
    flags: tuple[str, ...] = ()
    mesh: str = ""

    def key(self) -> str:
        return f"{name_of(self.model)}|{self.column}"


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


def serving_flags(sequences: int) -> tuple[str, ...]:
    return ("--max-model-len", str(INPUT + OUTPUT), "--max-num-batched-tokens", str(INPUT), "--max-num-seqs", str(sequences))


def serving_jobs(ttpu: str, model: Path, chip: str) -> list[Job]:
    """On the slice and the mesh that the formulas take, and on all devices of the next smaller slice."""
    code, out, err, _ = run([ttpu, "plan", str(model), "--topology", f"{chip}:auto", "--analytic-only", "--json", "--batch",
                             str(SEQUENCES), "--input-len", str(INPUT), "--output-len", str(OUTPUT)])  # fmt: skip
    if code != 0:
        raise SystemExit(err)
    best = json.loads(out)["candidates"][0]
    sizes = {axis: best[f"{axis}_parallel_size"] for axis in ("data", "pipeline", "tensor")}
    mesh = ", ".join(f"{axis}={count}" for axis, count in sizes.items() if count > 1)
    flags = [word for axis, count in sizes.items() for word in (f"--{axis}-parallel-size", str(count))]
    own = serving_flags(-(-SEQUENCES // sizes["data"]))
    jobs = [Job(model, chip, best["topology"], (*own, *flags, "--strategy", best["strategy"]), f"{mesh}, {best['strategy']}".strip(", "))]
    at = SHAPES.index(best["topology"].split(":")[1])
    if at > 0:
        smaller = f"{chip}:{SHAPES[at - 1]}"
        jobs.append(Job(model, f"{chip}, a size smaller", smaller, (*serving_flags(SEQUENCES), "--strategy", "auto")))
    return jobs


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
    if "mesh" in result:
        steps = ", ".join(duration(phase["schedule"]["estimate_seconds"]) for phase in (prefill, decode))
        return f"{size(max(one['total_bytes'] for one in (prefill, decode)))}, {steps} ({seconds:.0f} s)"
    return f"{size(decode['total_bytes'])}, {duration(decode['step_seconds'])} ({seconds:.0f} s)"


def placed(result: dict) -> str:
    """A cell with the slice, where each row has its own."""
    where = ", ".join(part for part in (result.get("topology"), result.get("mesh")) if part)
    return f"{where}: {cell(result)}" if where else cell(result)


def table(results: dict, columns: list[str]) -> str:
    models = dict.fromkeys(key.split("|")[0] for key in results)
    lines = ["| model | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for model in models:
        cells = [results.get(f"{model}|{column}") for column in columns]
        lines.append(f"| {model} | " + " | ".join(placed(one) if one else "" for one in cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path, help="folders or .json files")
    parser.add_argument("--ttpu", default=str(ROOT / "build/ttpu"))
    parser.add_argument("--topologies", nargs="+", default=list(ONE_DEVICE_A_CHIP.values()))
    parser.add_argument("--json", type=Path, help="what came out of each, kept between runs")
    parser.add_argument("--flags", default="", help="more flags of `ttpu compile`, in one word")
    parser.add_argument("--serving", action="store_true", help="each on the slice that it is served on; --topologies are chips then")
    arguments = parser.parse_args()
    tiny = not arguments.models
    flags = tuple(arguments.flags.split())
    if arguments.serving:
        chips = [name.split(":")[0] for name in arguments.topologies if name.startswith(("v5e", "v6e"))]
        models = arguments.models or [ROOT / f"tests/fixtures/configs/{name}.json" for name in SERVED]
        columns = [column for chip in chips for column in (chip, f"{chip}, a size smaller")]
        jobs = [dataclasses.replace(job, flags=job.flags + flags)
                for chip in chips for model in models for job in serving_jobs(arguments.ttpu, model, chip)]
    else:
        models = arguments.models or sorted(path.parent for path in (ROOT / "tests/fixtures/models").glob("*/config.json"))
        flags = flags or (("--max-model-len", "16", "--prefill-tokens", "16") if tiny else ())
        columns = arguments.topologies
        jobs = [Job(model, topology, topology, flags) for model in models for topology in columns]
    results = json.loads(arguments.json.read_text()) if arguments.json and arguments.json.exists() else {}
    for job in jobs:
        if results.get(job.key(), {}).get("status") in ("compiled", "does not fit"):
            continue
        result = results[job.key()] = compile_one(arguments.ttpu, job.model, job.topology, list(job.flags))
        if arguments.serving:
            result |= {"topology": job.topology, "mesh": job.mesh}
        print(f"{job.key()}: {result['status']}, peak {result['peak_gib']:.1f} GiB {result.get('message', '')}",
              file=sys.stderr, flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps(results, indent=1))
    print(table(results, columns))
    sys.exit(any(result["status"] == "failed" for result in results.values()))


if __name__ == "__main__":
    main()
