"""The jobs and the cells of the table of served models, with a `ttpu` that is a script."""

import json
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "benchmarks"))

import compile_matrix  # noqa: E402


@pytest.fixture
def ttpu(tmp_path):
    best = {"topology": "v5e:2x4", "data_parallel_size": 2, "pipeline_parallel_size": 1, "tensor_parallel_size": 4, "strategy": "expert"}
    script = tmp_path / "ttpu"
    script.write_text(f"#!/bin/sh\necho '{json.dumps({'candidates': [best, {}]})}'\n")
    script.chmod(0o755)
    return str(script)


def test_a_model_is_compiled_on_the_best_slice_and_on_a_smaller_one(ttpu):
    best, smaller = compile_matrix.serving_jobs(ttpu, pathlib.Path("some/model.json"), "v5e")
    assert best.key() == "model|v5e"
    assert (best.topology, best.mesh) == ("v5e:2x4", "data=2, tensor=4, expert")
    flags = dict(zip(best.flags[::2], best.flags[1::2], strict=True))
    assert flags["--max-num-seqs"] == "32"  # of one of two replicas
    assert (flags["--data-parallel-size"], flags["--tensor-parallel-size"], flags["--strategy"]) == ("2", "4", "expert")
    assert (smaller.key(), smaller.topology) == ("model|v5e, a size smaller", "v5e:2x2")
    assert dict(zip(smaller.flags[::2], smaller.flags[1::2], strict=True))["--max-num-seqs"] == "64"


def test_a_cell_has_the_slice_and_the_steps():
    def phase(total, estimate):
        return {"total_bytes": total, "compile_seconds": 10, "step_seconds": 1, "schedule": {"estimate_seconds": estimate}}

    reports = {"prefill": phase(3 << 30, 0.0381), "decode": phase(2 << 30, 0.0103)}
    compiled = {"status": "compiled", "reports": reports, "topology": "v5e:2x2", "mesh": "tensor=4, sequence"}
    assert compile_matrix.placed(compiled) == "v5e:2x2, tensor=4, sequence: 3.00 GiB, 38.10 ms, 10.30 ms (20 s)"
    refused = {"status": "does not fit", "message": "weights and cache need 25.0 GiB", "topology": "v5e:1x1", "mesh": ""}
    assert compile_matrix.placed(refused) == "v5e:1x1: does not fit (25.0 GiB)"
    del compiled["topology"], compiled["mesh"]
    assert compile_matrix.placed(compiled) == "2.00 GiB, 1000.00 ms (20 s)"
