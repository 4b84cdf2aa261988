"""The rule by which a row of the comparison of TPU programs is won, and the line through two numbers of layers."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "benchmarks"))

from tpu_peers.table import line, markdown, verdict, whole_model  # noqa: E402


def figures(estimate=10.0, limit=8.0, gb=6.0, exposed=2.0):
    return {"estimate_ms": estimate, "limit_ms": limit, "hbm_gb": gb, "exposed_ms": exposed, "peak_gib": 1.0}


@pytest.mark.parametrize(("theirs", "said"), [
    (figures(), "level"),
    (figures(estimate=10.5, limit=8.5), "level"),  # less than a tenth
    (figures(estimate=12, limit=9), "won"),
    (figures(estimate=8, limit=7), "lost"),
    (figures(estimate=12, limit=7), "split"),
    (figures(estimate=12, limit=7.9), "split"),  # not both numbers
    (figures(gb=7), "won"),
    (figures(exposed=1), "lost"),
    (figures(gb=7, exposed=1), "split"),
    (figures(estimate=8, limit=7, gb=7), "split"),
])  # fmt: skip
def test_verdict(theirs, said):
    assert verdict(figures(), theirs) == said


def test_verdict_is_the_other_way_round_for_the_other():
    assert verdict(figures(gb=7), figures()) == "lost"


def test_small_exposed_times_prove_nothing():
    assert verdict(figures(exposed=0.01), figures(exposed=0.05)) == "level"


def test_line_goes_through_both_points():
    assert line(3, 5, (2, 4), 2) == 3
    assert line(3, 5, (2, 4), 4) == 5
    assert line(3, 5, (2, 4), 32) == 33


def run(estimate, compute, hbm):
    return {"estimate_ms": estimate, "compute_ms": compute, "hbm_ms": hbm, "ici_ms": 0.5, "hbm_gb": 6.0, "exposed_ms": 2.0, "peak_gib": 1.0,
            "compile_seconds": estimate / 3}


def test_whole_model_has_the_limit_that_binds_all_layers():
    found = whole_model({"2": run(3, 1, 4), "4": run(6, 3, 4.5)}, 32)
    assert found["estimate_ms"] == 48 and found["layer"]["estimate_ms"] == 1.5
    assert found["limit_ms"] == 31 and found["layer"]["limit_ms"] == 1  # compute: of two layers it was HBM
    assert found["compile_seconds"] == 2


def test_all_layers_compiled():
    found = whole_model({"32": run(3, 1, 4)}, 32)
    assert found["limit_ms"] == 4 and found["layer"] == {}


def test_each_program_says_how_it_was_compiled():
    results = [{"topology": "v5e:2x2", "program": "decode", "who": "ttpu", "runs": {"32": run(3, 1, 4)}},
               {"topology": "v5e:2x2", "program": "prefill", "who": "ttpu", "runs": {"2": run(3, 1, 4), "4": run(6, 3, 4.5)}},
               {"topology": "v6e:2x2", "program": "prefill", "who": "ttpu", "runs": {"2": run(3, 1, 4)}}]  # fmt: skip
    text = markdown({"date": "now", "libtpu": "1", "jax": "2", "model": "a model", "whole": 32, "titles": {"ttpu": "TTPU"}, "left_out": [],
                     "layers": {"decode": [32], "prefill": [2, 4]}, "results": results})  # fmt: skip
    assert "decode: all 32 layers compiled; prefill: 2 and 4 layers compiled" in text
    assert "| v5e:2x2 | decode | TTPU | 3.00 | 4.00 |" in text and "| v5e:2x2 | prefill | TTPU | 48.00 (1.500) |" in text
    assert "v6e:2x2" not in text  # half of it was measured
