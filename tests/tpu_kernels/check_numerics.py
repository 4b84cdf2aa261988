"""The TPU attention kernels, interpreted on the CPU, beside attention in float64: `make tpu-kernels-test`.

Each case is a ragged batch over a cache with random pages; outputs and the updated cache are compared. The outcome is a
line a case, and exit code 1 when one of them is off.
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
import row_caches  # noqa: E402
from jax.experimental.pallas import tpu as pltpu  # noqa: E402

PAGE, PER, PAGES = 16, 8, 48
BOUND = 0.012  # of |difference| / (1 + |expected|): weights of the softmax and results are rounded to bf16

# Lengths with the new tokens, and how many are new.
DECODE = [(40, 1), (1, 1), (128, 1), (17, 1)]
PREFILL = [(24, 24), (100, 9), (5, 5)]
MIXED = [(40, 1), (70, 1), (24, 24), (128, 7)]

CASES = {
    f"{shape} heads of {dim}": dict(batch=batch, head_dim=dim)
    for shape, batch in (("decode", DECODE), ("prefill", PREFILL), ("mixed", MIXED))
    for dim in (64, 128, 256)
} | {
    "window, heads of 128": dict(batch=MIXED, head_dim=128, window=20),
    "window, heads of 64": dict(batch=MIXED, head_dim=64, window=20),
    "soft cap": dict(batch=MIXED, head_dim=128, soft_cap=2.0),
    "sinks and window": dict(batch=MIXED, head_dim=64, sinks=True, window=20),
    "fp8 cache, heads of 128": dict(batch=MIXED, head_dim=128, cache_dtype="f8E4M3FN"),
    "fp8 cache, heads of 64": dict(batch=MIXED, head_dim=64, kv_heads=4, cache_dtype="f8E4M3FN"),
} | {
    f"latent attention, {shape}": dict(batch=batch, rank=256, head_dim=320, kv_heads=1)
    for shape, batch in (("decode", DECODE), ("prefill", PREFILL), ("mixed", MIXED))
} | {
    f"rows, {parts} parts, {shape} heads of {dim}": dict(batch=batch, head_dim=dim, parts=parts)
    for shape, batch in (("decode", DECODE), ("prefill", PREFILL), ("mixed", MIXED))
    for dim, parts in ((64, 2), (128, 1), (128, 4), (256, 2))
} | {
    f"rows, {parts} parts, latent attention, {shape}": dict(
        batch=batch, rank=256, head_dim=320, kv_heads=1, parts=parts)
    for shape, batch in (("decode", DECODE), ("prefill", PREFILL), ("mixed", MIXED))
    for parts in (1, 2, 4)
} | {
    "rows, 2 parts, 3 KV heads": dict(batch=MIXED, head_dim=128, kv_heads=3, parts=2),
    "rows, 4 parts, one KV head": dict(batch=MIXED, head_dim=128, kv_heads=1, parts=4),
    "rows, 2 parts, window": dict(batch=MIXED, head_dim=128, window=20, parts=2),
    "rows, 4 parts, soft cap": dict(batch=MIXED, head_dim=128, soft_cap=2.0, parts=4),
    "rows, 1 parts, sinks and window": dict(batch=MIXED, head_dim=128, sinks=True, window=20, parts=1),
    "rows, 2 parts, sinks": dict(batch=MIXED, head_dim=64, sinks=True, parts=2),
} | {
    f"rows of {dtype}, {parts} parts, heads of {dim}": dict(batch=MIXED, head_dim=dim, cache_dtype=dtype, parts=parts)
    for dtype in ("i8", "f8E4M3FN")
    for dim, parts in ((64, 1), (128, 1), (128, 4), (256, 2))
} | {
    f"rows of {dtype}, {parts} parts, latent attention": dict(
        batch=MIXED, rank=256, head_dim=380, kv_heads=1, cache_dtype=dtype, parts=parts)
    for dtype in ("i8", "f8E4M3FN")
    for parts in (1, 4)
} | {
    "rows of i8, decode": dict(batch=DECODE, head_dim=128, cache_dtype="i8", parts=1),
    "rows of i8, prefill": dict(batch=PREFILL, head_dim=128, cache_dtype="i8", parts=1),
    "rows of i8, one KV head": dict(batch=MIXED, head_dim=128, kv_heads=1, cache_dtype="i8", parts=2),
    "rows of i8, window and soft cap": dict(
        batch=MIXED, head_dim=128, kv_heads=3, cache_dtype="i8", window=20, soft_cap=2.0, parts=1),
    "rows of i8, long blocks": dict(batch=[(600, 1), (300, 40)], head_dim=64, cache_dtype="i8", page=128, parts=1),
    "rows of i8, long blocks in parts": dict(
        batch=[(600, 1), (300, 40)], head_dim=128, cache_dtype="i8", page=256, parts=2),
}


def key_of(
    batch, head_dim, kv_heads=2, window=0, soft_cap=0.0, sinks=False, cache_dtype="bf16", chip="v5e", rank=0, parts=0,
    page=PAGE,
):  # fmt: skip
    tokens = sum(new for _, new in batch) + 3  # padding
    key = {
        "kernel": "mla_attention" if rank else "ragged_paged_attention", "rank": rank,
        "chip": chip, "tokens": tokens, "q_heads": 16 if rank else 4 * kv_heads,
        "kv_heads": kv_heads, "head_dim": head_dim, "pages": PAGES, "page_size": PAGE, "sequences": len(batch) + 1,
        "pages_per_sequence": PER, "dtype": "bf16", "cache_dtype": cache_dtype, "scale": head_dim**-0.5,
        "window": window, "soft_cap": soft_cap, "sinks": sinks, "flops": 0, "bytes": 0,
    }  # fmt: skip
    # Of rows, a device of `parts` has a stretch of each page, and the joining counts the sinks.
    return key | ({"parts": parts, "page_size": page // parts, "sinks": sinks and parts == 1} if parts else {})


def inputs_of(key, batch, rng, sinks):
    n, kv = key["sequences"], key["kv_heads"]
    lens, new = np.zeros(n, np.int32), np.zeros(n, np.int32)
    lens[: len(batch)], new[: len(batch)] = zip(*batch)
    ends = np.cumsum(new)
    cu = np.concatenate([[0], ends]).astype(np.int32)
    decodes = next((i for i, (_, count) in enumerate(batch) if count > 1), len(batch))

    def numbers(*dims):
        return rng.standard_normal(dims).astype(jnp.bfloat16)

    t, dim = key["tokens"], key["head_dim"]
    if "parts" in key:
        heads = 1 if key["rank"] else 2 * kv
        rows = [numbers(t, dim)] if key["rank"] else [numbers(t, kv, dim), numbers(t, kv, dim)]
        page = key["page_size"] * key["parts"]
        cache = row_caches.random_numbers(rng, key["cache_dtype"], key["pages"], page, heads, dim)
    elif key["rank"]:
        row = -(-dim // 128) * 128
        rows, cache = [numbers(t, dim)], numbers(key["pages"], PAGE // 2, 2, row)
        cache[..., dim:] = 0
    else:
        rows, cache = [numbers(t, kv, dim), numbers(t, kv, dim)], numbers(key["pages"], PAGE, 2 * kv, dim)
    table = rng.permutation(key["pages"])[: n * PER].astype(np.int32)
    if "parts" not in key:
        cache = cache.astype(kernels.DTYPES[key["cache_dtype"]])
    values = [numbers(t, key["q_heads"], dim), *rows, cache, lens, table, cu,
              np.array([decodes, decodes, len(batch)], np.int32)]  # fmt: skip
    if sinks:
        values.append(rng.standard_normal(key["q_heads"]).astype(np.float32))
    return values


def attention(key, batch, q, *rest, sinks=False):
    """What the operator's header says, in float64."""
    *rows, cache, lens, table, cu, distribution = rest[: 6 + (0 if key["rank"] else 1)]
    sinks = rest[-1] if sinks else None
    q = np.asarray(q, np.float64)
    if key["rank"]:  # all heads see one row, the first part of which is the value
        rows = rows[0][:, None]
        key_of_head, value_of_head = (lambda held, h: held[:, 0]), (lambda held, h: held[:, 0, : key["rank"]])
    else:
        rows = np.stack(rows, axis=2).reshape(q.shape[0], -1, q.shape[2])  # key and value of a head in turn
        group = key["q_heads"] // key["kv_heads"]
        key_of_head = lambda held, h: held[:, 2 * (h // group)]  # noqa: E731
        value_of_head = lambda held, h: held[:, 2 * (h // group) + 1]  # noqa: E731
    cache = np.array(cache)
    page_size = key["page_size"] * key.get("parts", 1)
    view = cache.reshape(cache.shape[0], page_size, rows.shape[1], -1)[..., : q.shape[2]]
    rows = row_caches.held(rows, key["cache_dtype"])
    out = np.zeros((*q.shape[:2], key["rank"] or q.shape[2]))
    for s, (length, new) in enumerate(batch):
        at = [(table[s * PER + p // page_size], p % page_size) for p in range(length)]
        for i in range(new):
            page, slot = at[length - new + i]
            view[page, slot] = rows[cu[s] + i].astype(cache.dtype)
        held = np.stack([view[page, slot] for page, slot in at]).astype(np.float64)
        for i in range(new):
            position = length - new + i
            first = max(0, position - key["window"] + 1) if key["window"] else 0
            seen = held[first : position + 1]
            for h in range(key["q_heads"]):
                scores = key_of_head(seen, h) @ q[cu[s] + i, h] * key["scale"]
                if key["soft_cap"]:
                    scores = key["soft_cap"] * np.tanh(scores / key["soft_cap"])
                most = max(scores.max(), sinks[h] if sinks is not None else -np.inf)
                weights = np.exp(scores - most)
                total = weights.sum() + (np.exp(sinks[h] - most) if sinks is not None else 0)
                out[cu[s] + i, h] = weights @ value_of_head(seen, h) / total
    return out, cache


def copy_neighbours(key, batch, table, cache, expected):
    """The kernel writes whole words: behind a sequence's end, which nobody reads, the other row of the word too."""
    for s, (length, _) in enumerate(batch):
        if length % 2:
            place = (table[s * PER + length // PAGE], length % PAGE // 2, 1)
            expected[place] = cache[place]


def by_rows(key, q, *rest):
    """What each of the devices computes of a cache of rows, joined in float64, and the cache's numbers."""
    parts, own, shared = key["parts"], key["page_size"], bool(key["rank"])
    rows = 1 if shared else 2
    new, cache, lists, sinks = rest[:rows], rest[rows], rest[rows + 1 : rows + 5], rest[rows + 5 :]
    function, arguments = kernels.build(key)
    made, caches = [], []
    for i in range(parts):
        held = cache[:, i * own : (i + 1) * own]
        held = row_caches.packed(held, key["cache_dtype"], arguments[rows + 1].shape, shared)
        more = ([np.int32(i)] if parts > 1 else []) + (list(sinks) if key["sinks"] else [])
        made.append([np.asarray(x) for x in jax.jit(function)(*map(jnp.asarray, (q, *new, held, *lists, *more)))])
        caches.append(row_caches.unpacked(made[-1][-1], key["cache_dtype"], own, *cache.shape[2:], shared))
    cache = np.concatenate(caches, axis=1)
    if parts == 1:
        return made[0][0], cache
    outputs, logs = (np.stack([m[i].astype(np.float64) for m in made]) for i in (0, 1))
    best = np.maximum(logs.max(0), sinks[0] if sinks else -np.inf)
    weights = np.exp(logs - best)
    total = weights.sum(0) + (np.exp(sinks[0] - best) if sinks else 0)
    return (outputs * weights[..., None]).sum(0) / total[..., None], cache


def check(name, case, rng):
    key = key_of(**case)
    sinks = case.get("sinks", False)
    values = inputs_of(key, case["batch"], rng, sinks)
    started = time.time()
    with pltpu.force_tpu_interpret_mode():
        if "parts" in key:
            out, cache = by_rows(key, *values)
        else:
            out, cache = jax.jit(kernels.build(key)[0])(*map(jnp.asarray, values))
    expected, expected_cache = attention(key, case["batch"], *values, sinks=sinks)
    error = (np.abs(np.asarray(out, np.float64) - expected) / (1 + np.abs(expected))).max()
    if key["rank"] and "parts" not in key:
        copy_neighbours(key, case["batch"], values[4], np.asarray(cache), expected_cache)
    same = np.allclose(np.asarray(cache, np.float32), expected_cache.astype(np.float32), rtol=1e-6, atol=0)
    good = error < BOUND and same
    print(f"{'ok ' if good else 'OFF'} {name}: largest difference {error:.4f} (bound {BOUND}), "
          f"cache {'equal' if same else 'DIFFERS'}, {time.time() - started:.1f} s", flush=True)
    return good


if __name__ == "__main__":
    sys.exit(interpreter.run(CASES, check))
