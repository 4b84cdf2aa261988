"""Compiles one program for a topology: `compile.py PEER WORK OUT`. WORK is JSON (work.py), OUT the folder for what comes of it.

`PROGRAM.hlo.pb` is the scheduled program (the message: its text says less), `PROGRAM.json` the compiler's memory figures and the time it took.
"""

import dataclasses
import importlib
import json
import os
import sys
import time
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"  # the TPU is a description
os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}  # no TPU is asked for anything

import jax  # noqa: E402
from jax.experimental import topologies  # noqa: E402

from work import Work  # noqa: E402

PEERS = {"jax": ("llama", "plain"), "jax_kernels": ("llama", "kernels"), "tpu_inference": ("tpu_inference_llama", "greedy"),
         "tpu_inference_sampling": ("tpu_inference_llama", "sampling")}


def main() -> None:
    peer, text, out = sys.argv[1:]
    work, (module, kind) = Work(**json.loads(text)), PEERS[peer]
    builder = importlib.import_module(module)
    topology = topologies.get_topology_desc(platform="tpu", topology_name=work.topology)
    mesh = topologies.make_mesh(topology, (1, len(topology.devices)), ("data", "model"))
    function, arguments, donated, options = builder.build(work, mesh, kind)
    began = time.monotonic()
    with mesh:
        lowered = jax.jit(function, donate_argnums=donated).trace(*arguments).lower(lowering_platforms=("tpu",))
        lowered_at = time.monotonic()
        compiled = lowered.compile(options)
    memory = compiled.memory_analysis()
    report = {"lower_seconds": lowered_at - began, "compile_seconds": time.monotonic() - lowered_at, "work": dataclasses.asdict(work),
              "peak_bytes": memory.peak_memory_in_bytes, "temporary_bytes": memory.temp_size_in_bytes,
              "argument_bytes": memory.argument_size_in_bytes, "jax": jax.__version__}
    [module] = compiled.runtime_executable().hlo_modules()
    Path(out, f"{work.program}.hlo.pb").write_bytes(module.as_serialized_hlo_module_proto())
    Path(out, f"{work.program}.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main()
