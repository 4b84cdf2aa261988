"""A moment of mixed load; benchmarks/soak.py does the same for as long as one likes."""

import json
import pathlib
import subprocess
import sys

SOAK = pathlib.Path(__file__).resolve().parents[2] / "benchmarks" / "soak.py"


def test_mixed_load_leaves_nothing_behind_and_every_answer_is_the_offline_engines(command, smollm2):
    out = subprocess.run([sys.executable, SOAK, smollm2, "--ttpu", command, "--seconds", "10"],
                         capture_output=True, text=True, timeout=500, check=False)
    assert out.stdout, out.stderr
    report = json.loads(out.stdout)
    assert not report["failures"]
    assert set(report["requests"]) == {"whole", "streamed", "leave", "leave_early", "bad", "half"}
