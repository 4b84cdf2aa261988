"""Peers that are libraries: each runs a worker, a small program in workers/ that loads a model and answers a task."""

import json
from abc import abstractmethod
from pathlib import Path

from engines.base import HERE, Answers, Engine, Task
from engines.measure import BenchmarkError, run

WORKERS = HERE / "workers"


class WorkerPeer(Engine):
    environment: dict[str, str] = {}

    @abstractmethod
    def command(self, model: Path, precision: str, task: Task) -> tuple[list, str]:
        """The worker's command, and what it is given on standard input."""

    def version_of(self, report: dict) -> str:
        return report["version"]

    def answer(self, model: Path, precision: str, task: Task) -> Answers:
        command, given = self.command(model, precision, task)
        child = run(command, stdin=given, environment=self.environment)
        report = json.loads(child.stdout)
        requests = report["requests"]
        for request in requests:
            if request["tokens"] != task.new_tokens:
                raise BenchmarkError(f"{self.title} answered {request['tokens']} tokens, and not {task.new_tokens}")
        decoded = task.new_tokens - 1
        return Answers(
            first_token_seconds=requests[0]["first"] - child.started,
            prefill_seconds=[request["first"] - request["start"] for request in requests],
            decode_tokens_per_second=[decoded / (r["last"] - r["first"]) for r in requests] if decoded else [],
            peak_rss_bytes=child.peak_rss_bytes,
            version=self.version_of(report),
        )
