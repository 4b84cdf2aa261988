"""The kernel that filters tokens, interpreted on the CPU, beside a sort in float64: `make tpu-kernels-test`.

The outcome is a line a case, and exit code 1 when one of them is off.
"""

import os
import pathlib
import sys
import time

os.environ["JAX_PLATFORMS"] = "cpu"
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools/tpu_kernels"))

import interpreter  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import kernels  # noqa: E402
import numpy as np  # noqa: E402
import token_filter  # noqa: E402
from jax.experimental.pallas import tpu as pltpu  # noqa: E402

CASES = {
    "all filters": dict(),
    "few tokens": dict(rows=8, vocab=640),
    "a vocabulary that fills no register": dict(rows=8, vocab=1000),
    "no filter": dict(top_k=(0,), top_p=(1,), min_p=(0,)),
    "top-k": dict(top_k=(1, 3, 50, -1, 1 << 30), top_p=(1,), min_p=(0,)),
    "top-p": dict(top_k=(0,), top_p=(0, 0.01, 0.5, 0.9, 0.999), min_p=(0,)),
    "equal logits": dict(values=2, top_k=(0, 7), top_p=(0.01, 0.3, 0.5, 0.9)),
    "all logits alike": dict(values=1, top_p=(0.31, 0.5, 1)),
    "zeros of both signs": dict(values=1, zero=True, top_p=(0.31, 0.5, 1)),
    "a token alone": dict(allowed=1),
    "no token at all": dict(allowed=0),
}


def kept(x, k, p, least):
    """Which tokens of a row stay: min-p, top-k and what equals its last, top-p with equals in the order of their ids."""
    order = np.lexsort((np.arange(len(x)), -x))
    weights = np.exp(x[order].astype(np.float64) - x.max())
    stays = weights >= least
    if 1 <= k < len(x):
        stays &= x[order] >= x[order][k - 1]
    if p < 1:
        weights = np.where(stays, weights, 0)
        before = np.cumsum(weights) - weights
        stays &= (before < p * weights.sum()) | (np.arange(len(x)) == 0)
    result = np.zeros(len(x), bool)
    result[order[stays]] = True
    return result


def check(name, case, rng):
    rows, vocab = case.get("rows", 16), case.get("vocab", 2560)
    key = {"kernel": "token_filter", "chip": "v5e", "rows": rows, "vocab": vocab, "flops": 0, "bytes": 0}
    x = rng.standard_normal((rows, vocab)).astype(np.float32) * 3
    if "values" in case:
        x = rng.integers(0, case["values"], (rows, vocab)).astype(np.float32)
    if case.get("zero"):
        x = np.where(rng.integers(0, 2, x.shape) == 0, x, -x)
    if "allowed" in case:
        x[:, case["allowed"] :] = -np.inf
    options = [rng.choice(case.get(of, default), rows) for of, default in (
        ("top_k", (0, 5, 40)), ("top_p", (1, 0.9, 0.5)), ("min_p", (0, 0.05)))]  # fmt: skip
    function, shapes = kernels.build(key)
    given = [jnp.asarray(o, s.dtype) for o, s in zip([x, *options], shapes, strict=True)]
    started = time.time()
    with pltpu.force_tpu_interpret_mode():
        end, last = (np.asarray(r)[:, None] for r in jax.jit(function)(*given))
    number = np.asarray(token_filter.ordered(x))
    made = (number > end) | ((number == end) & (np.arange(vocab) <= last))
    with np.errstate(invalid="ignore"):
        expected = np.stack([kept(*row) for row in zip(x, *(np.asarray(g) for g in given[1:]), strict=True)])
    some = np.isfinite(x).any(axis=1)  # of a row without a token nothing is asked
    off = (made != expected)[some].sum()
    print(f"{'ok ' if off == 0 else 'OFF'} {name}: {expected[some].sum()} tokens kept, {off} of them not as the sort has "
          f"them, {time.time() - started:.1f} s", flush=True)  # fmt: skip
    return off == 0


if __name__ == "__main__":
    sys.exit(interpreter.run(CASES, check))
