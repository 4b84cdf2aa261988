#!/usr/bin/env python3
"""TTPU beside its peers on this machine's CPU: the same weights, the same prompts, one process at a time, in turns.

    peers.py setup [PEER ...]     installs the peers and makes the models, below <cache>/peers (needs the network)
    peers.py run                  measures; writes a JSON file and prints a table
    peers.py table FILE           prints the table of a JSON file again

Peers: llama_cpp, openvino_genai, transformers, vllm. What is measured, and how, is in benchmarks/README.md.
"""

import argparse
import datetime
import os
import platform
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from engines import models
from engines.base import Engine, Task, write_json
from engines.command import command_line, run_command
from engines.llama_cpp import LlamaCpp
from engines.measure import BenchmarkError, metered, wait_until_quiet
from engines.memory import read_bandwidth
from engines.python_peers import OpenVinoGenAi, Transformers, Vllm
from engines.table import markdown, read
from engines.ttpu import Ttpu

ROOT = Path(__file__).resolve().parent.parent
WORKLOAD = ROOT / "benchmarks" / "workloads" / "smollm2.json"
PRECISIONS = ["bf16", "q8_0", "q4_1"]


def tasks() -> dict[str, Task]:
    """Two prompts each: the first warms up. They share no prefix, so that no cache of prefixes can help."""
    workload = read(WORKLOAD)
    prompts = {name: [ids, ids[1:] + ids[:1]] for name, ids in
               {"answer": workload["W1"]["prompt"], "prefill": workload["W3"]["prompt"]}.items()}
    return {
        "answer": Task("answer", prompts["answer"], workload["W1"]["max_new"], 512),
        "prefill": Task("prefill", prompts["prefill"], 1, 4096),
    }


def engines(command: Path) -> list[Engine]:
    return [Ttpu(command), LlamaCpp(), OpenVinoGenAi(), Vllm(), Transformers()]


def machine() -> dict:
    cpu = next(line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
               if line.startswith("model name"))
    return {"cpu": cpu, "cores": os.cpu_count(), "kernel": platform.release(),
            "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")}


def say(text: str) -> None:
    print(f"[peers] {text}", file=sys.stderr, flush=True)


def warm(engine: Engine, precisions: list[str], all_tasks: Iterable[Task]) -> None:
    """Fills the engine's caches on disk with what it compiles for these tasks."""
    for precision in precisions:
        for task in all_tasks:
            engine.answer(models.path(engine.precisions[precision]), precision,
                          Task(task.name, task.prompts[:1], min(task.new_tokens, 2), task.context))


def set_up(arguments: argparse.Namespace) -> None:
    every = engines(arguments.ttpu)
    transformers = next(engine for engine in every if engine.name == "transformers")
    chosen = [engine for engine in every if engine.name in (arguments.peers or [e.name for e in every])]
    say("transformers: the models are made with it")
    transformers.install()
    models.make(transformers.venv.python)
    for engine in chosen:
        say(engine.title)
        try:
            engine.install()
            warm(engine, list(engine.precisions), tasks().values())
        except BenchmarkError as error:
            say(f"{engine.title}: {error}")


class Session:
    """One run of the comparison: rounds over all jobs, a record after each of them."""

    def __init__(self, arguments: argparse.Namespace):
        self.arguments = arguments
        self.start = time.monotonic()
        self.longest: dict[tuple, float] = {}
        self.record = {
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "machine": machine(),
            "quiet_limit_cores": arguments.quiet_limit,
            "memory_bytes_per_second": [],
            "titles": {},
            "versions": {},
            "left_out": {},
            "runs": [],
        }

    def jobs(self) -> list[tuple[Engine, str, Task]]:
        found = []
        chosen = [engine for engine in engines(self.arguments.ttpu) if engine.name in self.arguments.engines]
        for engine in chosen:
            self.record["titles"][engine.name] = engine.title
            if reason := engine.missing():
                self.leave_out(engine, reason)
                continue
            if engine.warm_before_run and not self.warmed(engine):
                continue
            found += [(engine, precision, task) for precision in self.arguments.precisions
                      if precision in engine.precisions
                      for name, task in tasks().items() if name in self.arguments.tasks]
        # By precision and task, so that what is compared runs close together.
        return sorted(found, key=lambda job: (PRECISIONS.index(job[1]), job[2].name))

    def warmed(self, engine: Engine) -> bool:
        try:
            warm(engine, [name for name in self.arguments.precisions if name in engine.precisions],
                 [task for name, task in tasks().items() if name in self.arguments.tasks])
            return True
        except BenchmarkError as error:
            self.leave_out(engine, str(error))
            return False

    def leave_out(self, engine: Engine, reason: str) -> None:
        say(f"{engine.title} is left out: {reason}")
        self.record["left_out"][engine.name] = reason

    def time_left(self) -> float:
        return self.arguments.budget - (time.monotonic() - self.start)

    def measure(self, job: tuple[Engine, str, Task], number: int) -> None:
        engine, precision, task = job
        model = models.path(engine.precisions[precision])
        if self.arguments.wait_quiet:
            wait_until_quiet(self.arguments.quiet_limit, self.arguments.wait_quiet)
        run = {"engine": engine.name, "precision": precision, "task": task.name, "round": number,
               "prompt_tokens": len(task.prompts[0]), "new_tokens": task.new_tokens,
               "weight_bytes": models.weight_bytes(model), "load_average": os.getloadavg()[0]}
        with metered() as load:
            answers = engine.answer(model, precision, task)
        self.record["versions"][engine.name] = answers.version
        quiet = load.quiet(self.arguments.quiet_limit)
        run |= {"quiet": quiet, "others_cores": load.others, "stolen_cores": load.stolen, "seconds": load.seconds}
        self.record["runs"].append(run | asdict(answers))
        speed = (f"{answers.decode_tokens_per_second[-1]:.1f} tokens/s" if answers.decode_tokens_per_second
                 else f"{run['prompt_tokens'] / answers.prefill_seconds[-1]:.0f} tokens/s prefill")
        say(f"round {number}: {engine.title} {precision} {task.name}: {speed}, first token "
            f"{answers.first_token_seconds:.2f} s, {answers.peak_rss_bytes / 1e6:.0f} MB"
            f"{'' if quiet else f' (busy: {load.others + load.stolen:.1f} cores used by others)'}")

    def measure_memory(self) -> None:
        python = Transformers().venv.python
        if python.exists():
            self.record["memory_bytes_per_second"].append(read_bandwidth(python))

    def run(self) -> dict:
        jobs = self.jobs()
        failed = set()
        for number in range(1, self.arguments.rounds + 1):
            self.measure_memory()
            for job in jobs[::-1] if number % 2 == 0 else jobs:
                key = (job[0].name, job[1], job[2].name)
                needed = self.longest.get(key, 0.0)
                if key in failed or (number > 1 and (job[0].slow_to_start or needed > self.time_left())):
                    continue
                began = time.monotonic()
                try:
                    self.measure(job, number)
                except BenchmarkError as error:
                    failed.add(key)
                    self.leave_out(job[0], f"{job[1]}, {job[2].name}: {error}")
                self.longest[key] = time.monotonic() - began
                write_json(self.arguments.out, self.record)
        return self.record


def measure(arguments: argparse.Namespace) -> dict:
    record = Session(arguments).run()
    write_json(arguments.out, record)
    say(f"written to {arguments.out}")
    return record


def main() -> None:
    names = [engine.name for engine in engines(Path())]
    parser, commands = command_line(__doc__)
    setup = commands.add_parser("setup", help="install the peers and make the models")
    setup.add_argument("peers", nargs="*", choices=[*names, []], metavar="PEER", help="default: all")
    setup.set_defaults(call=set_up)
    run = commands.add_parser("run", help="measure", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    run.add_argument("--out", type=Path, default=Path("peers.json"), help="the record of every run")
    run.add_argument("--engines", nargs="+", choices=names, default=names)
    run.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    run.add_argument("--tasks", nargs="+", choices=["answer", "prefill"], default=["answer", "prefill"])
    run.add_argument("--rounds", type=int, default=3, help="how often each is measured; engines that start slowly, once")
    run.add_argument("--budget", type=float, default=450, metavar="SECONDS",
                     help="after the first round, nothing is begun that would not end within this time")
    run.add_argument("--quiet-limit", type=float, default=0.1, metavar="CORES",
                     help="a run during which others used more than this is marked as busy")
    run.add_argument("--wait-quiet", type=float, default=0, metavar="SECONDS",
                     help="before each run, wait up to this long until others are quiet")
    run.set_defaults(call=measure)
    run_command("peers", parser, commands, run, markdown)


if __name__ == "__main__":
    main()
