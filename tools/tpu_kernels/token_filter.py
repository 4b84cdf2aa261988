"""Which tokens of each row top-k, top-p and min-p keep, without a sort: the least logit that stays is found two bits at a
time, by sums over the whole row, which stays in vector memory meanwhile.

A key (see kernels.py) has for these
  kernel         "token_filter"
  rows, vocab    of the logits; rows are a multiple of ROWS
  flops, bytes
"""

import functools

import jax.numpy as jnp
from chips import LANES, Refused, priced, shape, vmem_bytes
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

ROWS = 8  # of a register
LOWEST = -(2**31)


def ordered(x):
    """Integers in the order of the numbers, equal ones for equal numbers."""
    bits = lax.bitcast_convert_type(jnp.where(x == 0, 0.0, x), jnp.int32)
    return jnp.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


def kernel(vocab, together, x, top_k, top_p, min_p, out, keys, weights):
    """The arguments of rows are [rows, LANES], alike in all lanes, and so is what is found."""
    registers = x.shape[1] // LANES
    token_of_lane = lax.broadcasted_iota(jnp.int32, (ROWS, LANES), 1)

    def over(body, *found):
        """body(where a register's numbers lie, its first token, *found) for all of the rows."""

        def some(i, found):
            for j in range(together):
                first = pl.multiple_of((i * together + j) * LANES, LANES)
                found = body(pl.ds(first, LANES), first, *found)
            return found

        return lax.fori_loop(0, registers // together, some, found)

    def of_row(reduce, x):
        return jnp.broadcast_to(reduce(x, axis=1, keepdims=True), x.shape)

    def any_row(condition):
        return jnp.max(jnp.where(condition, 1.0, 0.0)) > 0

    def last_that_reaches(wanted, weight, key, bits=32):
        """The largest number for which the weights of the keys that are no smaller reach what is wanted."""

        def turn(i, found):
            shift = bits - 2 - 2 * i
            least = [found + jnp.left_shift(jnp.int32(digit), shift) for digit in (1, 2, 3)]

            def add(at, first, *sums):
                number, w = key(at, first), weight(at)
                return tuple(s + jnp.where(number >= each, w, 0.0) for s, each in zip(sums, least, strict=True))

            sums = over(add, *[jnp.zeros((ROWS, LANES), jnp.float32)] * 3)
            reached = sum(jnp.where(of_row(jnp.sum, s) >= wanted, 1, 0) for s in sums)
            return found + jnp.left_shift(reached, shift)

        return lax.fori_loop(0, bits // 2, turn, jnp.full((ROWS, LANES), LOWEST if bits == 32 else 0, jnp.int32))

    def if_any(some, search, otherwise):
        """A search takes its time, and most steps need few of them."""
        return lax.cond(any_row(some), search, lambda: jnp.full((ROWS, LANES), otherwise, jnp.int32))

    def key(at, _):
        return keys[:, at]

    def take_keys(at, _, most):
        keys[:, at] = ordered(x[:, at])
        return (jnp.maximum(most, x[:, at]),)

    (most,) = over(take_keys, jnp.full((ROWS, LANES), -jnp.inf, jnp.float32))
    most = of_row(jnp.max, most)
    k = jnp.where(top_k[...] < 1, vocab, jnp.minimum(top_k[...], vocab))
    last = if_any(
        k < vocab, lambda: last_that_reaches(k.astype(jnp.float32), lambda _: 1.0, key), LOWEST
    )
    share = jnp.minimum(min_p[...], 1)
    least = jnp.where(share > 0, most + jnp.log(share), -jnp.inf)
    last = jnp.maximum(last, ordered(least))

    def take_weights(at, _, total):
        w = jnp.where(keys[:, at] >= last, jnp.exp(x[:, at] - most), 0.0)
        weights[:, at] = w
        return (total + w,)

    (total,) = over(take_weights, jnp.zeros((ROWS, LANES), jnp.float32))
    part = jnp.maximum(top_p[...] * of_row(jnp.sum, total), 1e-30)
    limit = jnp.where(top_p[...] >= 1, jnp.inf, part)
    end = if_any(
        top_p[...] < 1, lambda: last_that_reaches(limit, lambda at: weights[:, at], key), LOWEST
    )
    end = jnp.maximum(last, end)

    def take_equals(at, _, above, equals):
        w, number = weights[:, at], keys[:, at]
        weights[:, at] = jnp.where(number == end, w, 0.0)
        return above + jnp.where(number > end, w, 0.0), equals + jnp.where(number == end, 1.0, 0.0)

    zero = jnp.zeros((ROWS, LANES), jnp.float32)
    above, equals = over(take_equals, zero, zero)
    missing = limit - of_row(jnp.sum, above)
    bits = (vocab - 1).bit_length() + 1 & ~1
    from_behind = if_any(
        (of_row(jnp.sum, equals) > 1) & (limit < jnp.inf),
        lambda: last_that_reaches(missing, lambda at: weights[:, at], lambda at, first: vocab - 1 - first - token_of_lane,
                                  bits),
        0,
    )  # fmt: skip
    out[0] = end
    out[1] = vocab - 1 - from_behind


def build(key):
    """(function, shapes of its arguments): scaled logits, top-k, top-p and min-p of rows, to the ordered number of the
    last logit that stays and, of the tokens that have it, the last that stays."""
    rows, vocab = key["rows"], key["vocab"]
    together = next((n for n in range(16, 3, -1) if vocab % (n * LANES) == 0), 8)
    padded = -(-vocab // (together * LANES)) * together * LANES
    need = 4 * ROWS * padded * 4  # the block twice, keys and weights
    if need > vmem_bytes() * 3 // 4:
        raise Refused(f"{vocab} logits of {ROWS} rows take {need / 2**20:.0f} MiB of VMEM")
    priced(lambda _: (key["flops"], key["bytes"]))

    def function(x, *limits):
        x = jnp.pad(x, ((0, 0), (0, padded - vocab)), constant_values=-jnp.inf)
        limits = [jnp.broadcast_to(limit[:, None], (rows, LANES)) for limit in limits]
        row_block = pl.BlockSpec((ROWS, LANES), lambda i: (i, 0))
        call = pl.pallas_call(
            functools.partial(kernel, vocab, together),
            grid=(rows // ROWS,),
            in_specs=[pl.BlockSpec((ROWS, padded), lambda i: (i, 0)), *[row_block] * 3],
            out_specs=pl.BlockSpec((2, ROWS, LANES), lambda i: (0, i, 0)),
            out_shape=shape(jnp.int32, 2, rows, LANES),
            scratch_shapes=[pltpu.VMEM((ROWS, padded), jnp.int32), pltpu.VMEM((ROWS, padded), jnp.float32)],
            compiler_params=pltpu.CompilerParams(
                dimension_semantics=("arbitrary",), vmem_limit_bytes=need + (8 << 20)
            ),
            name="token-filter",
        )
        end, last = call(x, *limits)[:, :, 0]
        return end, last

    of_row = [shape(dtype, rows) for dtype in (jnp.int32, jnp.float32, jnp.float32)]
    return function, [shape(jnp.float32, rows, vocab), *of_row]
