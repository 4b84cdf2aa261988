"""Attention kernels of the wheel tpu-inference as functions with the interface of TTPU's operators.

A key says what is wanted, all sizes those of one device (of whole sequences see sequence_attention.py, of experts'
products expert_linear.py, of sampling token_filter.py):
  kernel                "ragged_paged_attention", or "mla_attention": all heads share one row of the cache
  chip                  "v5e", "v5p", "v6e" or "tpu7x"
  tokens, q_heads, kv_heads, head_dim, pages, page_size, sequences, pages_per_sequence
  rank                  of "mla_attention": so much of a row of head_dim is its value, the rest its rotated key
  dtype, cache_dtype    "bf16" or "f8E4M3FN" (the cache alone)
  scale, window (0: none), soft_cap (0: none), sinks
  flops, bytes          of the work of one call, for those who schedule and price it
"""

import functools
import importlib.util
import logging
import sys
import types

import chips
import expert_linear
import jax
import jax.numpy as jnp
import row_attention
import sequence_attention
import token_filter
from chips import DTYPES, Refused, check_smem, fitted, power_of_2, priced, scoped_vmem, shape, vmem_bytes
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu


SCORES = 9  # arrays of f32 for the scores of a block, as the compiler allocates them


@functools.cache
def modules():
    """The kernels' modules, without the package around them, which would start vLLM."""
    spec = importlib.util.find_spec("tpu_inference")
    package = types.ModuleType("tpu_inference")
    package.__path__ = list(spec.submodule_search_locations)
    logger = types.ModuleType("tpu_inference.logger")
    logger.init_logger = logging.getLogger
    utils = types.ModuleType("tpu_inference.utils")
    utils.get_device_name = lambda *_: ""  # asked for tuned block sizes, which are given instead
    sys.modules.update({m.__name__: m for m in (package, logger, utils)})
    pltpu.reciprocal = pl.reciprocal  # where the next jax has it
    from tpu_inference.kernels.mla.v2 import kernel as mla
    from tpu_inference.kernels.ragged_paged_attention.v3 import kernel, kernel_hd64

    return types.SimpleNamespace(rpa=kernel, rpa64=kernel_hd64, mla=mla)


def pretend(chip):
    """What the kernels ask of the device here is answered as the chip would."""
    chips.pretend(chip)
    modules().rpa.get_tpu_version = lambda: chips.CHIPS[chip][1]


def does_the_work(name, decodes):
    """Whether a call of this name has what there is to do in a step: there is one for decodes and one for the rest."""
    if name.startswith("RPA"):
        return name[3:4] not in ("d", "m") or (name[3] == "d") == decodes
    if name.startswith("row-attention-"):
        return name.endswith("d") == decodes
    if name.startswith("MLA-"):  # "d": what batches of decodes ("bd") leave, nothing where a batch is one
        return name.startswith("MLA-bd-" if decodes else "MLA-m-")
    return False  # a transpose


def work_of(key):
    """Flops and bytes of a call by its name: all are those of the decode kernel where every token is one."""
    decodes = key["tokens"] <= key["sequences"]
    return lambda name: (key["flops"], key["bytes"]) if does_the_work(name, decodes) else (0, 0)


def ragged_paged_attention(key):
    """(function, shapes of its arguments); see RaggedBatch in the operator's header."""
    t, q_heads, kv_heads, dim = (key[k] for k in ("tokens", "q_heads", "kv_heads", "head_dim"))
    pages, page, n, per = (key[k] for k in ("pages", "page_size", "sequences", "pages_per_sequence"))
    dtype, cache_dtype = DTYPES[key["dtype"]], DTYPES[key["cache_dtype"]]
    small = dim == 64
    kernel = modules().rpa64 if small else modules().rpa
    packing = 4 // jnp.dtype(cache_dtype).itemsize
    packed = kv_heads if small else 2 * kv_heads
    inner = (pages, page, packed // packing, packing, 128 if small else dim)
    group = q_heads // kv_heads
    check_smem(kernel.get_smem_estimate_bytes(n, per))

    def estimate(bq, bkv):
        need = kernel.get_vmem_estimate_bytes(kv_heads, group, dim, bq, bkv * page, dtype, cache_dtype)
        # The kernel of small heads holds some arrays of scores at once, which its estimate leaves out.
        return need + SCORES * 4 * bq * (group + group % 2) * bkv * page if small else need

    queries = power_of_2(min(1024 // group, t))
    block = max(1, min(1024 // page, per))
    options = {
        "sm_scale": key["scale"],
        "sliding_window": key["window"] or None,
        "soft_cap": key["soft_cap"] or None,
    }
    what = f"attention of {q_heads} heads of {dim} over {kv_heads}"
    if small:
        bq, bkv = fitted(estimate, max(1, queries // 2), min(per, max(1, 2048 // page)), what)
        options |= {"num_queries_per_block": bq, "num_kv_pages_per_block": bkv}
        need = estimate(bq, bkv)
    else:
        row_bytes = 2 * kv_heads * dim * jnp.dtype(cache_dtype).itemsize
        _, d = fitted(estimate, 1, max(1, min(per, (8 << 20) // (row_bytes * page))), what)
        bq, m = fitted(estimate, queries, block, what)
        half = m // 2 if m % 2 == 0 else m
        need = max(estimate(1, d), estimate(bq, m))
        options |= {
            "d_block_sizes": (1, d * page, 1, d * page),
            "m_block_sizes": (bq, m * page, max(1, bq // 2), half * page),
        }

    options["vmem_limit_bytes"] = min(need * 5 // 4 + (4 << 20), vmem_bytes() * 7 // 8) if small else scoped_vmem(need)

    def function(q, k, v, cache, kv_lens, page_indices, cu_q_lens, distribution, *sinks):
        if cache_dtype == jnp.float8_e4m3fn:
            k, v = (jnp.clip(x.astype(jnp.float32), -448, 448) for x in (k, v))
        k, v = k.astype(cache_dtype), v.astype(cache_dtype)
        # Without a size of pieces of prompts the kernel leaves prompts out that are not counted as mixed.
        ends = jnp.stack([distribution[0], distribution[0], distribution[2]])
        call = kernel.ragged_paged_attention_hd64 if small else kernel.ragged_paged_attention
        out, updated = call(q, k, v, cache.reshape(inner), kv_lens, page_indices, cu_q_lens, ends, *sinks, **options)
        real = jnp.arange(t, dtype=jnp.int32) < cu_q_lens[distribution[2]]
        return jnp.where(real[:, None, None], out, jnp.zeros_like(out)), updated.reshape(cache.shape)

    arguments = [
        shape(dtype, t, q_heads, dim), shape(dtype, t, kv_heads, dim), shape(dtype, t, kv_heads, dim),
        shape(cache_dtype, pages, page, 2 * kv_heads, dim), shape(jnp.int32, n), shape(jnp.int32, n * per),
        shape(jnp.int32, n + 1), shape(jnp.int32, 3),
    ]  # fmt: skip
    if key["sinks"]:
        arguments.append(shape(jnp.float32, q_heads))
    return function, arguments


def mla_attention(key):
    """(function, shapes of its arguments); see the operator's header."""
    t, heads, width, rank = (key[k] for k in ("tokens", "q_heads", "head_dim", "rank"))
    pages, page, n, per = (key[k] for k in ("pages", "page_size", "sequences", "pages_per_sequence"))
    dtype, cache_dtype = DTYPES[key["dtype"]], DTYPES[key["cache_dtype"]]
    packing = 4 // jnp.dtype(cache_dtype).itemsize
    row = -(-width // 128) * 128
    check_smem(4 * (n * per + 2 * n + 16))
    options = {
        "sm_scale": key["scale"],
        "num_kv_pages_per_block": max(1, min(1024 // page, per)),
        "num_queries_per_block": max(1, min(128 // heads if heads <= 128 else 1, t)),
        "vmem_limit_bytes": vmem_bytes() * 7 // 8,
    }

    def function(q, rows, cache, kv_lens, page_indices, cu_q_lens, distribution):
        rows = rows.astype(cache_dtype)
        ends = jnp.stack([distribution[0], distribution[0], distribution[2]])
        out, updated = modules().mla.mla_ragged_paged_attention(
            jnp.transpose(q[:, :, :rank], (1, 0, 2)), q[:, :, rank:], rows[:, :rank], rows[:, rank:],
            cache, kv_lens, page_indices, cu_q_lens, ends, **options)  # fmt: skip
        real = jnp.arange(t, dtype=jnp.int32) < cu_q_lens[distribution[2]]
        out = jnp.where(real[None, :, None], out, jnp.zeros_like(out))
        return jnp.transpose(out, (1, 0, 2)), updated

    arguments = [
        shape(dtype, t, heads, width), shape(dtype, t, width), shape(cache_dtype, pages, page // packing, packing, row),
        shape(jnp.int32, n), shape(jnp.int32, n * per), shape(jnp.int32, n + 1), shape(jnp.int32, 3),
    ]  # fmt: skip
    return function, arguments


OWN = {"expert_linear": expert_linear, "token_filter": token_filter}
KERNELS = {"ragged_paged_attention": ragged_paged_attention, "mla_attention": mla_attention}


def build(key):
    """(function, shapes of its arguments) for a key. Throws Refused."""
    if key["chip"] not in chips.CHIPS:
        raise Refused(f"no kernel for {key['chip']}; there are some for {', '.join(chips.CHIPS)}")
    own = OWN.get(key["kernel"], sequence_attention if "length" in key else None)
    if own:
        chips.pretend(key["chip"])
        return own.build(key)
    pretend(key["chip"])
    priced(work_of(key))
    return row_attention.build(key) if "parts" in key else KERNELS[key["kernel"]](key)
