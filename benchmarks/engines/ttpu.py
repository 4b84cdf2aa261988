"""TTPU through its command, as a person would start it."""

import json
import subprocess
import tempfile
from pathlib import Path

from engines.base import Answers, Engine, Task
from engines.measure import BenchmarkError, run


class Ttpu(Engine):
    name = "ttpu"
    title = "TTPU"
    precisions = {"bf16": "bf16.gguf", "q8_0": "q8_0.gguf", "q4_1": "q4_1.gguf"}

    warm_before_run = True

    def __init__(self, command: Path):
        self.command = command

    def install(self) -> None:
        """Built by `make build`."""

    def missing(self) -> str:
        if not self.command.is_file():
            return f"{self.command} is missing; build it (`make build`) or name it with --ttpu"
        return ""

    def answer(self, model: Path, precision: str, task: Task) -> Answers:
        with tempfile.TemporaryDirectory() as folder:
            prompts = Path(folder) / "prompts.jsonl"
            prompts.write_text("".join(json.dumps({"prompt_token_ids": ids}) + "\n" for ids in task.prompts))
            child = run([self.command, "generate", model, "--dtype", "bf16", "--temperature", 0, "--ignore-eos",
                         "--max-model-len", task.context, "--max-tokens", task.new_tokens, "--input", prompts,
                         "--json", "--stats"])
        lines = [json.loads(line) for line in child.stdout.splitlines()]
        for ids, line in zip(task.prompts, lines, strict=True):
            if line["prompt_token_ids"] != ids or len(line["token_ids"]) != task.new_tokens:
                raise BenchmarkError(f"TTPU answered {len(line['token_ids'])} tokens to {len(line['prompt_token_ids'])}, "
                                     f"and not {task.new_tokens} to {len(ids)}")
        stats = [line["stats"] for line in lines]
        # The line of the first prompt comes when all its tokens are there.
        first = child.first_output - child.started - stats[0]["decode_seconds"]
        decoded = task.new_tokens - 1
        return Answers(
            first_token_seconds=first,
            prefill_seconds=[stat["first_token_seconds"] for stat in stats],
            decode_tokens_per_second=[decoded / stat["decode_seconds"] for stat in stats] if decoded else [],
            peak_rss_bytes=child.peak_rss_bytes,
            version=self.version(),
            notes={"load_seconds": stats[0]["load_seconds"], "compile_seconds": stats[0]["compile_seconds"]},
        )

    def version(self) -> str:
        return subprocess.run([self.command, "--version"], capture_output=True, text=True, check=True).stdout.strip()
