"""What every engine of the comparison can do: be installed, and answer the two tasks."""

import json
import os
import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path

from engines.measure import BenchmarkError

HERE = Path(__file__).resolve().parent


def cache_dir() -> Path:
    """The folder where TTPU keeps what it downloads; the peers live in its folder `peers`."""
    if os.environ.get("TTPU_CACHE"):
        return Path(os.environ["TTPU_CACHE"])
    base = os.environ.get("XDG_CACHE_HOME") or Path(os.environ.get("HOME", "/tmp")) / ".cache"
    return Path(base) / "ttpu"


def peers_dir() -> Path:
    return cache_dir() / "peers"


@dataclass(frozen=True)
class Task:
    """Prompts that one process answers one after the other, each to its full length and greedily."""

    name: str
    prompts: list[list[int]]
    new_tokens: int
    context: int

    def to_json(self) -> dict:
        return {"name": self.name, "prompts": self.prompts, "new_tokens": self.new_tokens, "context": self.context}


@dataclass
class Answers:
    """What a process took for a task. The first prompt warms it up: the others are the measurement."""

    first_token_seconds: float  # from the start of the process to the first token of the first prompt
    prefill_seconds: list[float]  # of each prompt, to its first token
    decode_tokens_per_second: list[float]  # of each prompt, without its first token; empty when one token was asked for
    peak_rss_bytes: int
    version: str = ""
    notes: dict = field(default_factory=dict)


class Engine(ABC):
    name: str  # as on the command line
    title: str  # as in the table
    precisions: dict[str, str]  # "bf16" | "q8_0" | "q4_1" to the model it reads, see models.py
    slow_to_start = False  # measured in the first round only
    warm_before_run = False  # its caches may be of another build: fill them before anything is measured

    @abstractmethod
    def install(self) -> None:
        """Makes the engine ready; a second call does nothing. Needs the network the first time."""

    @abstractmethod
    def missing(self) -> str:
        """Why it cannot be measured now; empty when it can."""

    @abstractmethod
    def answer(self, model: Path, precision: str, task: Task) -> Answers:
        """Starts the engine, gives it the task's prompts, and ends it."""


class Venv:
    """A Python environment of one peer."""

    def __init__(self, name: str):
        self.folder = peers_dir() / name

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def stamp(self) -> Path:
        return self.folder / ".installed"

    def ready(self) -> bool:
        return self.stamp.is_file()

    def create(self) -> None:
        if not self.python.exists():
            subprocess.run([sys.executable, "-m", "venv", self.folder], check=True)

    def pip(self, *arguments, environment: dict | None = None) -> None:
        """Runs `pip install` with these arguments, at the lowest priority."""
        command = ["nice", "-n", "19", self.python, "-m", "pip", "install", "--quiet", "--no-input", "--no-compile",
                   *arguments]
        try:
            subprocess.run([str(word) for word in command], check=True, env={**os.environ, **(environment or {})})
        except subprocess.CalledProcessError as error:
            raise BenchmarkError(f"pip could not install {' '.join(map(str, arguments))} into {self.folder}; "
                                 f"its message is above") from error

    def done(self) -> None:
        self.stamp.touch()

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def write_json(path: Path, value) -> None:
    """Writes beside, then renames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(json.dumps(value, indent=1) + "\n")
    beside.replace(path)
