"""The files that all engines read: SmolLM2-135M-Instruct once, in several precisions, with the same weights.

The Q4_1 GGUF file comes from a package (tools/fetch_models.py). What it holds, rounded to bf16, is the folder that
transformers and vLLM read (tools/make_reference_folders.py) and the source of the GGUF files (make_gguf.py).
"""

import shutil
import subprocess
import sys
from pathlib import Path

from engines.base import HERE, cache_dir, peers_dir
from engines.measure import BenchmarkError

TOOLS = HERE.parent.parent / "tools"
Q4_1 = "smollm2-135m-instruct-q4_1.gguf"
FOLDER = "smollm2-135m-instruct"


def models_dir() -> Path:
    return peers_dir() / "models"


def path(name: str) -> Path:
    """`q4_1.gguf`, `q8_0.gguf`, `bf16.gguf`, `f16.gguf`, or `folder`."""
    if name == "q4_1.gguf":
        return cache_dir() / "models" / Q4_1
    return models_dir() / (FOLDER if name == "folder" else f"{FOLDER}-{name}")


def make(python: Path) -> None:
    """Makes what is missing. `python` has the packages of tools/requirements.txt."""
    source = path("q4_1.gguf")
    if not source.is_file():
        call([sys.executable, TOOLS / "fetch_models.py", "smollm2"])
    models_dir().mkdir(parents=True, exist_ok=True)
    folder = path("folder")
    if not folder.is_dir():
        scratch = models_dir() / ".making"
        shutil.rmtree(scratch, ignore_errors=True)
        call([python, TOOLS / "make_reference_folders.py", scratch, "--gguf", f"{FOLDER}={source}"])
        (scratch / FOLDER).rename(folder)
        scratch.rmdir()
    for kind in ("bf16", "f16", "q8_0"):
        target = path(f"{kind}.gguf")
        if not target.is_file():
            call([python, HERE / "make_gguf.py", source, target, "--type", kind.upper()])


def weight_bytes(model: Path) -> int:
    """The size of the file that holds the weights; its metadata is under 1% of that."""
    return (model / "model.safetensors" if model.is_dir() else model).stat().st_size


def call(command: list) -> None:
    words = ["nice", "-n", "10", *(str(word) for word in command)]
    if subprocess.run(words, stdout=sys.stderr).returncode != 0:
        raise BenchmarkError(f"could not make the models: `{' '.join(words)}` failed; its message is above")
