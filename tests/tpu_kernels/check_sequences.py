"""The kernels of whole sequences and of their gradients, interpreted on the CPU, beside float64: `make tpu-kernels-test`.

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
import sequence_attention  # noqa: E402
from jax.experimental.pallas import tpu as pltpu  # noqa: E402

OUTPUT, GRADIENT = 0.012, 0.02  # bounds of |difference| / (1 + |expected|): all is rounded to bf16, queries twice

SMALL = (256, 128)  # a block, and keys at once; the kernel's own where a case has none

OWN = (sequence_attention.BLOCK, sequence_attention.AT_ONCE)

CASES = {
    f"{what}, heads of {dim}": dict(head_dim=dim, blocks=blocks)
    for dim in (64, 128, 256)
    for what, blocks in (("one block", OWN), ("several blocks", SMALL))
} | {
    "longer blocks of keys": dict(length=1536, blocks=SMALL),
    "four parts of the gradient of queries": dict(length=1024, blocks=SMALL),
    "a kernel for the gradient of queries": dict(length=2304, q_heads=2, kv_heads=1, blocks=SMALL),
    "three sequences": dict(sequences=3, blocks=SMALL),
    "not causal": dict(causal=False, blocks=SMALL),
    "window": dict(length=1024, window=300, blocks=SMALL),
    "short window": dict(length=768, window=20),
    "window, not causal": dict(causal=False, window=100, blocks=SMALL),
    "soft cap": dict(soft_cap=2.0, blocks=SMALL),
    "sinks": dict(sequences=2, sinks=True, blocks=SMALL),
    "sinks, window and soft cap": dict(sinks=True, window=200, soft_cap=3.0, blocks=SMALL),
    "as many key heads": dict(q_heads=2, kv_heads=2),
    "heads of 192, values of 128": dict(head_dim=192, value_dim=128, blocks=SMALL),
    "a length of 384": dict(length=384),
}


def key_of(
    kernel, sequences=1, length=512, q_heads=4, kv_heads=2, head_dim=128, value_dim=0, causal=True, window=0,
    soft_cap=0.0, sinks=False,
):  # fmt: skip
    return {
        "kernel": kernel, "chip": "v5e", "sequences": sequences, "length": length, "q_heads": q_heads,
        "kv_heads": kv_heads, "head_dim": head_dim, "value_dim": value_dim or head_dim, "dtype": "bf16",
        "scale": head_dim**-0.5, "causal": causal, "window": window, "soft_cap": soft_cap, "sinks": sinks, "pairs": 0,
    }  # fmt: skip


def attention(key, q, k, v, *rest):
    """Output, logarithms and the gradients of q, k, v and sinks, in float64."""
    *sinks, d_output = (np.asarray(x, np.float64) for x in rest)
    n, length, group = key["sequences"], key["length"], key["q_heads"] // key["kv_heads"]

    def heads(x, times=1):
        x = np.asarray(x, np.float64).reshape(n, length, -1, x.shape[-1]).swapaxes(1, 2)
        return x.repeat(times, axis=1)

    def tokens(x, times=1):
        x = x.reshape(n, -1, times, length, x.shape[-1]).sum(2)
        return x.swapaxes(1, 2).reshape(n * length, -1, x.shape[-1])

    q, k, v, d_output = heads(q), heads(k, group), heads(v, group), heads(d_output)
    scores, slope = q @ k.swapaxes(2, 3) * key["scale"], key["scale"]
    if key["soft_cap"]:
        curve = np.tanh(scores / key["soft_cap"])
        scores, slope = curve * key["soft_cap"], slope * (1 - curve**2)
    behind = np.arange(length)[:, None] - np.arange(length)
    seen = (behind >= 0) | (not key["causal"])
    if key["window"]:
        seen &= behind < key["window"]
    scores = np.where(seen, scores, -np.inf)
    every = [scores, np.broadcast_to(sinks[0][:, None, None], (*scores.shape[:3], 1))] if sinks else [scores]
    logarithm = np.logaddexp.reduce(np.concatenate(every, 3), 3)
    weights = np.exp(scores - logarithm[..., None])
    output = weights @ v
    shared = (output * d_output).sum(3)
    d_scores = weights * (d_output @ v.swapaxes(2, 3) - shared[..., None]) * slope
    gradients = [tokens(d_scores @ k), tokens(d_scores.swapaxes(2, 3) @ q, group),
                 tokens(weights.swapaxes(2, 3) @ d_output, group)]  # fmt: skip
    if sinks:
        gradients.append(-(np.exp(sinks[0][:, None] - logarithm) * shared).sum((0, 2)))
    return tokens(output), logarithm, gradients


def difference(made, expected):
    made = np.asarray(made, np.float64)
    return (np.abs(made - expected) / (1 + np.abs(expected))).max()


def check(name, case, rng):
    case = dict(case)
    sequence_attention.BLOCK, sequence_attention.AT_ONCE = case.pop("blocks", OWN)
    forward, backward = (key_of(f"sequence_attention{end}", **case) for end in ("", "_gradient"))
    function, shapes = kernels.build(forward)
    given = [jnp.asarray(rng.standard_normal(x.shape), x.dtype) for x in shapes]
    started = time.time()
    with pltpu.force_tpu_interpret_mode():
        output, logarithm = jax.jit(function)(*given)
        d_output = jnp.asarray(rng.standard_normal(output.shape), output.dtype)
        gradients = jax.jit(kernels.build(backward)[0])(*given, output, logarithm, d_output)
    expected, expected_logarithm, expected_gradients = attention(forward, *given, d_output)
    errors = [difference(output, expected), difference(logarithm, expected_logarithm)]
    more = [difference(made, right) for made, right in zip(gradients, expected_gradients, strict=True)]
    good = max(errors) < OUTPUT and max(more) < GRADIENT
    print(f"{'ok ' if good else 'OFF'} {name}: largest differences {', '.join(f'{e:.4f}' for e in errors)} "
          f"(bound {OUTPUT}), of gradients {', '.join(f'{e:.4f}' for e in more)} (bound {GRADIENT}), "
          f"{time.time() - started:.1f} s", flush=True)
    return good


if __name__ == "__main__":
    sys.exit(interpreter.run(CASES, check))
