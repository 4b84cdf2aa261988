"""How fast this machine reads memory: the ceiling of decoding one stream, which reads all weights for each token."""

from pathlib import Path

from engines.base import HERE
from engines.measure import run


def read_bandwidth(python: Path) -> float:
    """Bytes a second that all cores together read from a buffer larger than the caches. `python` has torch."""
    return float(run([python, HERE / "workers" / "run_memory.py"]).stdout)
