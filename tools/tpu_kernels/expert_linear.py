"""Products of rows with the weights of their own experts, in the order of megablox (jax.experimental.pallas.ops.tpu.megablox):
rows are sorted by expert, and each tile of rows is visited by every expert that has some of them. Quantized weights are
widened once for each expert that has rows.

A key (see kernels.py) has for these
  kernel                "expert_linear"
  rows, in, out         of all experts' rows; columns of a weight; rows of it
  experts, visits       at most so many visits
  tile, columns         rows that are multiplied at once, with so many rows of a weight
  dtype, weight_dtype   "bf16"; of the values
  form                  "dense": [experts, out, in]; "scaled": the same with a scale for each row, [experts, out];
                        "groups": [experts, groups, group, out] with scales [experts, factors, out], or, with
                        factors_first, [factors, experts, out];
                        "blocks": dense with scales of blocks [experts, *factors]
  turned                whether out is the last dimension; always that of groups
  groups                of "groups": the second and third dimension
  factors               of "groups": how many of them a row has; of "blocks": how many rows and columns of them there are
  factors_first         whether those of all experts stand beside each other
  scale_dtype           of scales and zero points of groups; others are f32
  zero_points, bias     whether there are some
  flops, bytes
"""

import jax
import jax.numpy as jnp
from chips import DTYPES, priced, scoped_vmem, shape
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

AT_ONCE = 256  # columns of groups that are widened at once


def numbers_of(values):
    """Small values as f32."""
    if values.dtype != jnp.float4_e2m1fn:
        return values.astype(jnp.float32)
    codes = pltpu.bitcast(values, jnp.int4).astype(jnp.int32)
    size = (codes & 7).astype(jnp.float32)  # 0, 0.5, 1, 1.5, 2, 3, 4 and 6 in twos
    size = 0.5 * (size + jnp.maximum(size - 4, 0) + 2 * jnp.maximum(size - 6, 0))
    return jnp.where(codes < 0, -size, size)


def factors_of(factors, expert, first, count):
    """[count, 1, out] in f32: of some groups of the expert."""
    if len(factors.shape) == 2:
        return factors[first : first + count].astype(jnp.float32)[:, None]
    if factors.dtype != jnp.bfloat16:
        return factors[first : first + count, pl.ds(expert, 1)].astype(jnp.float32)
    # Two experts share words: a number of bf16 is the upper half of that in f32.
    words = factors.bitcast(jnp.int32)[first : first + count, pl.ds(expert // 2, 1)]
    upper = jnp.where(expert % 2 == 0, words << 16, words & jnp.int32(-65536))
    return jax.lax.bitcast_convert_type(upper, jnp.float32)


def widen_groups(values, factors, expert, numbers):
    """[groups, group, out] to [in, out], some groups after others."""
    group, out = values.shape[1:]
    together = factors[0].shape[0] // values.shape[0]
    step = max(1, AT_ONCE // group)
    for first in range(0, values.shape[0], step):
        count = min(step, values.shape[0] - first)
        wide = numbers_of(values[first : first + count]).reshape(count * together, group // together, out)
        scale, *zero = (factors_of(f, expert, first * together, count * together) for f in factors)
        wide = (wide - zero[0] if zero else wide) * scale
        numbers[first * group : (first + count) * group] = wide.reshape(count * group, out).astype(numbers.dtype)


def widen_blocks(values, scales, height, numbers):
    """[out, in] in blocks of `height` rows, those of this part of the weight."""
    width = values.shape[1] // scales.shape[1]
    count = values.shape[0] // height
    for row in range(count):
        block = jnp.minimum(pl.program_id(0) * count + row, scales.shape[0] - 1)  # the last part may be shorter
        of_row = scales[pl.ds(block, 1)].astype(jnp.float32)
        for column in range(scales.shape[1]):
            at = (slice(row * height, (row + 1) * height), slice(column * width, (column + 1) * width))
            wide = values[at].astype(jnp.float32) * of_row[:, column : column + 1]
            numbers[at] = wide.astype(numbers.dtype)


def kernel_of(key):
    widened = key["form"] in ("groups", "scaled", "blocks")

    def kernel(experts, tiles, bounds, x, values, *rest):
        rest = list(rest)
        numbers = rest.pop() if widened else None
        out = rest.pop()
        bias = rest.pop() if key["bias"] else None
        visit = pl.program_id(1)
        expert = experts[visit]
        if widened:

            @pl.when((visit == 0) | (experts[jnp.maximum(visit - 1, 0)] != expert))
            def _():
                if key["form"] == "groups":
                    widen_groups(values, rest, expert, numbers)
                elif key["form"] == "blocks":
                    widen_blocks(values, rest[0], key["out"] // key["factors"][0], numbers)
                else:
                    small = values.dtype == jnp.float4_e2m1fn
                    numbers[...] = (numbers_of(values[...]) if small else values[...]).astype(numbers.dtype)

        weight = (numbers if widened else values)[...]
        y = jax.lax.dot_general(
            x[...], weight, (((1,), (0 if key["turned"] else 1,)), ((), ())), preferred_element_type=jnp.float32)  # fmt: skip
        if key["form"] == "scaled":
            y = y * rest[0][...]
        if bias is not None:
            y = y + bias[...]
        row = tiles[visit] * key["tile"] + jax.lax.broadcasted_iota(jnp.int32, y.shape, 0)
        own = (row >= bounds[expert]) & (row < bounds[expert + 1])
        out[...] = jnp.where(own, y, out[...].astype(jnp.float32)).astype(out.dtype)

    return kernel


def build(key):
    """(function, shapes of its arguments): sorted rows; for each visit its expert and its tile; the first row of each
    expert and the end of the last one's; how many visits there are; the weight's values, scales, zero points and bias."""
    rows, size, out, experts = (key[k] for k in ("rows", "in", "out", "experts"))
    tile, columns, form = key["tile"], key["columns"], key["form"]
    dtype, small = DTYPES[key["dtype"]], DTYPES[key["weight_dtype"]]
    turned = key["turned"]
    values = (experts, *(key["groups"] if form == "groups" else [size]), out) if turned else (experts, out, size)
    factors = []
    if form == "scaled":
        factors = [(experts, 1, out)]
    elif form == "groups":
        dims = (experts, key["factors"], out)
        factors = [(dims[1], experts, out) if key["factors_first"] else dims] * (1 + key["zero_points"])
    elif form == "blocks":
        factors = [(experts, *key["factors"])]
    factor_dtype = DTYPES[key.get("scale_dtype", "f32")]

    def of_expert(dims, at):
        """A block of the expert's part, so many of the columns along axis `at`, if any."""
        block = (None, *(columns if i == at else d for i, d in enumerate(dims) if i > 0))
        return pl.BlockSpec(block, lambda n, v, e, *_: (e[v], *(n if i == at else 0 for i in range(1, len(dims)))))

    specs = [pl.BlockSpec((tile, size), lambda n, v, e, t, *_: (t[v], 0))]
    specs.append(of_expert(values, len(values) - 1 if turned else 1))
    for dims in factors:
        if form == "groups" and key["factors_first"]:  # those of all experts
            specs.append(pl.BlockSpec((*dims[:2], columns), lambda n, *_: (0, 0, n)))
        else:
            specs.append(of_expert(dims, None if form == "blocks" else 2))
    if key["bias"]:
        specs.append(of_expert((experts, 1, out), 2))
    widened = [pltpu.VMEM((size, columns) if turned else (columns, size), dtype)] if factors else []
    bytes_of = jnp.dtype(dtype).itemsize
    need = 2 * bytes_of * (size * columns + tile * (size + columns)) + 8 * tile * columns
    need += len(widened) * bytes_of * size * columns
    if form == "groups" and key["factors_first"]:
        need += 2 * len(factors) * key["factors"] * experts * columns * jnp.dtype(factor_dtype).itemsize
    priced(lambda _: (key["flops"], key["bytes"]))

    def function(x, expert_of, tile_of, bounds, visits, w, *rest):
        rest = [r[:, None] if r.ndim == 2 else r for r in rest]
        call = pl.pallas_call(
            kernel_of(key), out_shape=jax.ShapeDtypeStruct((rows, out), dtype), name="expert-linear",
            grid_spec=pltpu.PrefetchScalarGridSpec(
                num_scalar_prefetch=3, grid=(-(-out // columns), visits), in_specs=specs, scratch_shapes=widened,
                out_specs=pl.BlockSpec((tile, columns), lambda n, v, e, t, *_: (t[v], n))),
            compiler_params=pltpu.CompilerParams(
                dimension_semantics=("arbitrary", "arbitrary"), vmem_limit_bytes=scoped_vmem(need)))  # fmt: skip
        return call(expert_of, tile_of, bounds, x, w, *rest)

    ints = [shape(jnp.int32, n) for n in (key["visits"], key["visits"], experts + 1)]
    arguments = [shape(dtype, rows, size), *ints, shape(jnp.int32), shape(small, *values)]
    arguments += [shape(factor_dtype, *((experts, out) if form == "scaled" else f)) for f in factors]
    if key["bias"]:
        arguments.append(shape(jnp.float32, experts, out))
    return function, arguments
