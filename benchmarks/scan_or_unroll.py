#!/usr/bin/env python3
"""Layers as copies of the code or as a loop over them: time to compile, size of the program, priced step.

    scan_or_unroll.py [--model tests/fixtures/configs/llama-3.1-70b.json] [--topology v5e:4x4]

Both forms are compiled by `ttpu compile` with the TPU compiler, one after the other; nothing else should run.
"""

import argparse
import json
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(ROOT / "tests/fixtures/configs/llama-3.1-70b.json"))
    parser.add_argument("--topology", default="v5e:4x4")
    parser.add_argument("--ttpu", default=str(ROOT / "build/ttpu"))
    parser.add_argument("--flags", default="", help="more flags of `ttpu compile`, in one word")
    arguments = parser.parse_args()
    print("| program | layers | text | compiled in | temporaries | priced by the compiler | least time |")
    print("|---|---|---|---|---|---|---|")
    for layers in ("unrolled", "scanned"):
        command = [arguments.ttpu, "compile", arguments.model, "--topology", arguments.topology, "--layers", layers,
                   "--json", *arguments.flags.split()]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        for phase, report in json.loads(done.stdout).items():
            print(f"| {phase} | {layers} | {report['program_text_bytes'] / 1e6:.2f} MB | "
                  f"{report['compile_seconds']:.1f} s | {report['temporary_bytes'] / 2**20:.0f} MiB | "
                  f"{report['compiler_cycles'] / 1e6:.2f} M cycles | {report['step_seconds'] * 1e3:.2f} ms |",
                  flush=True)


if __name__ == "__main__":
    main()
