"""The kernel of experts' products, interpreted on the CPU, beside float64: `make tpu-kernels-test`.

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
from chips import DTYPES  # noqa: E402
from jax.experimental.pallas import tpu as pltpu  # noqa: E402

BOUND = 0.012  # of |difference| / (1 + |expected|): the result and the widened numbers are rounded to bf16

GROUPS = dict(form="groups", turned=True, factors_first=False, weight_dtype="i4", scale_dtype="bf16")
CASES = {
    "several tiles and blocks of columns": dict(counts=(100, 0, 37, 163, 1, 83)),
    "a tile of few rows": dict(counts=(3, 0, 1, 0, 0, 12), tile=16),
    "fewer rows than a tile": dict(counts=(2, 0, 3), tile=16),
    "rows of no expert": dict(counts=(20, 30, 0, 70), unknown=40),
    "no row of any expert": dict(counts=(0, 0), unknown=64),
    "all of one expert": dict(counts=(0, 256, 0)),
    "bias": dict(counts=(60, 68), bias=True),
    "columns before rows": dict(turned=True),
    "int8 with scales of rows": dict(form="scaled", weight_dtype="i8", bias=True),
    "int8 with scales of rows, columns before them": dict(form="scaled", turned=True, weight_dtype="i8"),
    "fp8 with scales of rows": dict(form="scaled", weight_dtype="f8E4M3FN"),
    "fp8 with scales of blocks": dict(form="blocks", weight_dtype="f8E4M3FN", factors=(3, 2), columns=256),
    "fp8 with scales of smaller blocks": dict(form="blocks", weight_dtype="f8E4M3FN", factors=(12, 2), columns=128),
    "int4 in groups of 128": dict(groups=(2, 128), factors=2, **GROUPS),
    "int4 in groups with zero points": dict(groups=(2, 128), factors=2, zero_points=True, **GROUPS),
    "int8 in groups of 32": dict(groups=(8, 32), factors=8, **GROUPS | dict(weight_dtype="i8", scale_dtype="f32")),
    "mxfp4, two groups together": dict(size=320, groups=(5, 64), factors=10, bias=True,
                                       **GROUPS | dict(weight_dtype="f4E2M1FN")),
    "mxfp4, scales of all experts": dict(counts=(50, 0, 38, 40), size=320, groups=(5, 64), factors=10,
                                         **GROUPS | dict(weight_dtype="f4E2M1FN", factors_first=True)),
    "int8 in groups, f32 scales of all experts": dict(
        counts=(50, 0, 38, 40), groups=(8, 32), factors=8,
        **GROUPS | dict(weight_dtype="i8", scale_dtype="f32", factors_first=True)),
}  # fmt: skip


def key_of(counts, unknown=0, size=256, out=384, columns=256, tile=64, **more):
    rows = sum(counts) + unknown
    return {
        "kernel": "expert_linear", "chip": "v5e", "rows": rows, "in": size, "out": out, "experts": len(counts),
        "visits": -(-rows // tile) + len(counts) - 1, "tile": tile, "columns": columns, "dtype": "bf16",
        "weight_dtype": "bf16", "form": "dense", "turned": False, "scale_dtype": "f32", "zero_points": False, "bias": False,
        "flops": 0, "bytes": 0,
    } | more  # fmt: skip


def visits_of(counts, tile, most):
    """The expert and the tile of each visit, the bounds of the experts' rows, and how many visits there are."""
    bounds = np.concatenate([[0], np.cumsum(counts)])
    visits = [(e, t) for e in range(len(counts)) if counts[e]
              for t in range(bounds[e] // tile, -(-bounds[e + 1] // tile))]  # fmt: skip
    padded = visits + [(len(counts) - 1, 0)] * (most - len(visits))
    experts, tiles = zip(*padded, strict=True)
    return [np.asarray(x, np.int32) for x in (experts, tiles, bounds, len(visits))]


def weight_of(key, values, factors):
    """[experts, in, out] in float64."""
    wide = np.asarray(values, np.float64)
    factors = [np.asarray(f, np.float64) for f in factors]
    if key["form"] == "groups":
        wide = wide.reshape(key["experts"], key["in"], key["out"])
        factors = [f.swapaxes(0, 1) if key["factors_first"] else f for f in factors]
        factors = [f.repeat(key["in"] // key["factors"], axis=1) for f in factors]
    elif not key["turned"]:
        wide = wide.swapaxes(1, 2)
    if key["form"] == "scaled":
        factors = [factors[0][:, None]]
    elif key["form"] == "blocks":
        height, width = key["out"] // key["factors"][0], key["in"] // key["factors"][1]
        factors = [factors[0].repeat(height, 1).repeat(width, 2).swapaxes(1, 2)]
    scale, *zero = factors or [1]
    return (wide - zero[0] if zero else wide) * scale


def check(name, case, rng):
    case = {"counts": (50, 0, 78)} | case
    counts = case["counts"]
    key = key_of(**case)
    function, shapes = kernels.build(key)
    small = DTYPES[key["weight_dtype"]]

    def some(x):
        if x.dtype == small and key["form"] != "dense":
            return jnp.asarray(rng.integers(-8, 8, x.shape) if small != jnp.float8_e4m3fn else
                               rng.standard_normal(x.shape), jnp.float32).astype(small)  # fmt: skip
        scale = 1 if len(x.shape) == 2 else 0.01 if key["form"] == "groups" else 0.06
        return jnp.asarray(scale * rng.standard_normal(x.shape), x.dtype)

    x = some(shapes[0])
    given = [some(s) for s in shapes[5:]]
    *factors, bias = given[1:] if key["bias"] else [*given[1:], None]
    visits = visits_of(counts, key["tile"], key["visits"])
    started = time.time()
    with pltpu.force_tpu_interpret_mode():
        made = np.asarray(jax.jit(function)(x, *visits, *given), np.float64)
    weight = weight_of(key, given[0], factors)
    expert = np.repeat(np.arange(len(counts)), counts)
    expected = np.einsum("ri,rio->ro", np.asarray(x, np.float64)[: len(expert)], weight[expert])
    if bias is not None:
        expected += np.asarray(bias, np.float64)[expert]
    error = (np.abs(made[: len(expert)] - expected) / (1 + np.abs(expected))).max(initial=0)
    good = error < BOUND
    print(f"{'ok ' if good else 'OFF'} {name}: largest difference {error:.4f} (bound {BOUND}), "
          f"{time.time() - started:.1f} s", flush=True)  # fmt: skip
    return good


if __name__ == "__main__":
    sys.exit(interpreter.run(CASES, check))
