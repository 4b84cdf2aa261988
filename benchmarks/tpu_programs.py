#!/usr/bin/env python3
"""TTPU's programs for TPU beside those of others, without a TPU: one compiler (libtpu), one reader of what it makes.

    tpu_programs.py setup         once: environments of TTPU's kernels and of jax, flax and tpu-inference (Python 3.12 or newer)
    tpu_programs.py run           compiles and prices; keeps what is done, so that a second run is quick
    tpu_programs.py table FILE    prints the table of a JSON file again

Llama 3 8B in bf16, tensor parallel on four chips: a decode step of 64 sequences that have 2,048 tokens each, and a prefill of 2,048
tokens. Each program is compiled in a child process and priced with `ttpu plan --hlo` (docs/cost-model.md).
"""

import argparse
import dataclasses
import datetime
import hashlib
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from engines.base import Venv, peers_dir, write_json
from engines.command import ROOT, command_line, run_command
from engines.measure import BenchmarkError
from engines.measure import run as run_child
from engines.table import read
from tpu_peers.table import markdown

HERE = Path(__file__).resolve().parent
CONFIG = ROOT / "tests/fixtures/configs/llama-3-8b.json"
PROGRAMS, TOPOLOGIES = ("decode", "prefill"), ("v5e:2x2", "v6e:2x2")
# Two numbers would be for a line through them, which flatters: of few layers, all that is computed stays in a device's fast memory, and the
# compiler fetches weights ahead that it does not of many.
LAYERS = {"decode": [32], "prefill": [32]}
SEQUENCES, LENGTH, PROMPT, BLOCK = 64, 2048, 2048, 64
JAX, TPU_INFERENCE = "0.11.2", "0.32.0"  # the one requires the other; older ones of jax cannot read all that libtpu gives


@dataclasses.dataclass(frozen=True)
class Job:
    """One program to compile."""

    program: str
    topology: str
    layers: int

    def config(self) -> dict:
        return read(CONFIG) | {"num_hidden_layers": self.layers}

    def __str__(self) -> str:
        return f"{self.program}, {self.topology}, {self.layers} layers"


def say(text: str) -> None:
    print(f"[tpu-programs] {text}", file=sys.stderr, flush=True)


def digest(*parts) -> str:
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:16]


def libtpu(ttpu: Path) -> Path:
    """The compiler that `ttpu` uses; the peers get the same one."""
    if not ttpu.exists():
        raise BenchmarkError(f"{ttpu} is missing; run `make build`, or say --ttpu PATH")
    listed = subprocess.run([ttpu, "plugin", "list"], capture_output=True, text=True, check=True).stdout
    for line in listed.splitlines():
        words = line.split()
        if words and words[0] == "tpu" and Path(words[-1]).is_file():
            return Path(words[-1])
    raise BenchmarkError(f"libtpu is missing; run `{ttpu} plugin install tpu`")


class Entrant:
    """Somebody whose programs are compiled. `compile` leaves `PROGRAM.hlo.pb` and `PROGRAM.json` in the folder."""

    def __init__(self, name: str, title: str, programs=PROGRAMS):
        self.name, self.title, self.programs = name, title, programs

    def missing(self) -> str:
        return ""

    def key(self, job: Job) -> str:
        raise NotImplementedError

    def compile(self, job: Job, folder: Path, timeout: float) -> None:
        raise NotImplementedError


class Ttpu(Entrant):
    """Ours, as a child of `ttpu compile` compiles it: one program alone."""

    def __init__(self, name: str, title: str, ttpu: Path, strategy: str, programs=PROGRAMS):
        super().__init__(name, title, programs)
        self.ttpu, self.strategy = ttpu, strategy

    def key(self, job: Job) -> str:
        built = self.ttpu.stat()
        blocks = self.blocks(job)
        return digest(self.strategy, job.topology, job.config(), built.st_size, built.st_mtime_ns, SEQUENCES, LENGTH, PROMPT, *blocks)

    def blocks(self, job: Job) -> list:
        """The cache of a prefill is that of its prompt, see tpu_peers/work.py."""
        return ["--num-blocks", LENGTH // BLOCK] if job.program == "prefill" else []

    def compile(self, job: Job, folder: Path, timeout: float) -> None:
        write_json(folder / "config.json", job.config())
        command = ["nice", "-n", "10", self.ttpu, "compile", folder / "config.json", "--topology", job.topology, "--max-model-len", LENGTH,
                   "--max-num-seqs", SEQUENCES, "--block-size", BLOCK, "--max-num-batched-tokens", PROMPT, "--strategy", self.strategy,
                   "--save-hlo", folder, "--child", job.program, *self.blocks(job)]
        said = json.loads(run_child(command, timeout=timeout).stdout)
        if "error" in said:
            raise BenchmarkError(said["error"]["message"])
        report = said["report"]
        kernels = [f"{one['operator']}: {one['reason']}" for one in report["kernels"] if one["reason"]]
        write_json(folder / f"{job.program}.json", {"peak_bytes": report["peak_bytes"], "compile_seconds": report["compile_seconds"],
                                                    "without_kernel": kernels})


class Peer(Entrant):
    """A program of tpu_peers/, compiled by jax in an environment of its own."""

    def __init__(self, name: str, title: str, library: Path, programs=PROGRAMS):
        super().__init__(name, title, programs)
        self.venv, self.library = Venv("jax_tpu"), library

    def missing(self) -> str:
        return "" if self.venv.ready() else f"{self.venv.folder} is missing; run `benchmarks/tpu_programs.py setup`"

    def key(self, job: Job) -> str:
        sources = [path.read_text() for path in sorted((HERE / "tpu_peers").glob("*.py")) if path.name != "table.py"]
        return digest(self.name, job, job.config(), JAX, self.library, SEQUENCES, LENGTH, PROMPT, *sources)

    def compile(self, job: Job, folder: Path, timeout: float) -> None:
        work = {"program": job.program, "topology": job.topology, "layers": job.layers, "config": job.config(), "prompt": PROMPT,
                "sequences": SEQUENCES, "max_model_len": LENGTH}
        run_child(["nice", "-n", "10", self.venv.python, HERE / "tpu_peers" / "compile.py", self.name, json.dumps(work), folder],
                  environment={"TPU_LIBRARY_PATH": str(self.library)}, timeout=timeout)


def entrants(ttpu: Path, library: Path) -> list[Entrant]:
    return [Ttpu("ttpu", "TTPU", ttpu, "auto"), Ttpu("ttpu_tensor", "TTPU, `--strategy tensor`", ttpu, "tensor", ("prefill",)),
            Ttpu("ttpu_sequence", "TTPU, `--strategy sequence`", ttpu, "sequence", ("prefill",)),
            Peer("jax", "JAX", library), Peer("jax_kernels", "JAX with its kernels", library),
            Peer("tpu_inference", f"tpu-inference {TPU_INFERENCE}", library),
            Peer("tpu_inference_sampling", "tpu-inference with its sampling", library, ("decode",))]


def price(ttpu: Path, folder: Path, job: Job) -> dict:
    """The figures of a compiled program, by TTPU's reader."""
    command = [ttpu, "plan", "--hlo", folder / f"{job.program}.hlo.pb", "--topology", job.topology, "--json"]
    schedule, report = json.loads(run_child(command).stdout), read(folder / f"{job.program}.json")
    return {"estimate_ms": schedule["estimate_seconds"] * 1e3, "bound": schedule["bound"],
            **{f"{limit}_ms": schedule[f"{limit}_limit"] * 1e3 for limit in ("compute", "hbm", "ici")},
            "hbm_gb": schedule["hbm_bytes"] / 1e9, "exposed_ms": schedule["exposed_collective_seconds"] * 1e3,
            "peak_gib": report["peak_bytes"] / 2**30, "compile_seconds": report["compile_seconds"],
            "without_kernel": report.get("without_kernel", [])}


def measure(entrant: Entrant, job: Job, arguments: argparse.Namespace) -> dict:
    """Compiles what was not compiled before; prices always, which takes no time."""
    folder = peers_dir() / "tpu_programs" / f"{entrant.name}-{entrant.key(job)}"
    if not (folder / f"{job.program}.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        entrant.compile(job, folder, arguments.timeout)
        say(f"{entrant.title}: {job}: compiled in {time.monotonic() - began:.0f} s")
    return price(arguments.ttpu, folder, job)


def layers_of(program: str, arguments: argparse.Namespace) -> list[int]:
    return sorted(arguments.layers or LAYERS[program])


def fill(record: dict, entrant: Entrant, topology: str, program: str, arguments: argparse.Namespace) -> None:
    """One row of the table, or why there is none."""
    runs: dict[str, dict] = {}
    try:
        if reason := entrant.missing():
            raise BenchmarkError(reason)
        for layers in layers_of(program, arguments):
            runs[str(layers)] = measure(entrant, Job(program, topology, layers), arguments)
        record["results"].append({"topology": topology, "program": program, "who": entrant.name, "runs": runs})
    except (BenchmarkError, OSError) as error:
        why = str(error).splitlines()[0]
        record["left_out"].append({"topology": topology, "program": program, "who": entrant.name, "why": why})
        say(f"{entrant.title}: {program}, {topology} is left out: {error}")


def run(arguments: argparse.Namespace) -> dict:
    library = libtpu(arguments.ttpu)
    known = [one for one in entrants(arguments.ttpu, library) if one.name in arguments.peers]
    whole = read(CONFIG)["num_hidden_layers"]
    record = {"date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "libtpu": library.parent.name.removeprefix("tpu-"),
              "jax": JAX, "model": f"Llama 3 8B, bf16, tensor parallel on four chips, {SEQUENCES} sequences of {LENGTH:,} tokens, prefill of "
              f"{PROMPT:,}", "layers": {one: layers_of(one, arguments) for one in arguments.programs}, "whole": whole, "titles": {one.name: one.title for one in known},
              "results": [], "left_out": []}
    for topology in arguments.topologies:
        for program in arguments.programs:
            for entrant in known:
                if program in entrant.programs:
                    fill(record, entrant, topology, program, arguments)
                    write_json(arguments.json, record)
    return record


def works(python: str) -> bool:
    return shutil.which(python) is not None and subprocess.run([python, "--version"], capture_output=True).returncode == 0


def set_up(arguments: argparse.Namespace) -> None:
    """What lowers TTPU's own kernels, and the peers. tpu-inference comes without what it depends on (vLLM, torch): its model needs jax and flax."""
    subprocess.run(["sh", ROOT / "tools" / "setup.sh", "tpu_kernels"], check=True)
    python = arguments.python or next((name for name in ("python3.12", "python3.13", "python3.14") if works(name)), None)
    if python is None:
        raise BenchmarkError(f"jax {JAX} needs Python 3.12 or newer, and there is no python3.12 here; say --python PATH")
    venv = Venv("jax_tpu")
    if not venv.ready():
        say(f"making {venv.folder}")
        subprocess.run([python, "-m", "venv", "--clear", venv.folder], check=True)
        venv.pip(f"jax=={JAX}", f"jaxlib=={JAX}", "flax==0.12.10")
        venv.pip("--no-deps", f"tpu-inference=={TPU_INFERENCE}")
        venv.done()


def main() -> None:
    parser, commands = command_line(__doc__)
    setup = commands.add_parser("setup")
    setup.add_argument("--python", help="3.12 or newer (default: python3.12, 3.13 or 3.14)")
    setup.set_defaults(call=set_up)
    one = commands.add_parser("run", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    names = ["ttpu", "ttpu_tensor", "ttpu_sequence", "jax", "jax_kernels", "tpu_inference", "tpu_inference_sampling"]
    one.add_argument("--topologies", nargs="+", default=TOPOLOGIES)
    one.add_argument("--programs", nargs="+", choices=PROGRAMS, default=PROGRAMS)
    one.add_argument("--peers", nargs="+", choices=names, default=names)
    one.add_argument("--layers", nargs="+", type=int, help="two numbers for a line through them, or one "
                     f"(default: {', '.join(f'{program} {layers}' for program, layers in LAYERS.items())})")
    one.add_argument("--timeout", type=float, default=900, help="seconds for one program (TTPU: for both)")
    one.add_argument("--json", type=Path, default=Path("tpu-programs.json"))
    one.set_defaults(call=run)
    run_command("tpu-programs", parser, commands, one, markdown)


if __name__ == "__main__":
    main()
