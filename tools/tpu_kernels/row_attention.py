"""Attention over a paged cache whose rows hold all heads of a position: the kernels that the wheel lacks.

It takes keys and values as the operator's cache on TPU has them (see RowCache in the operator's header): a page is
[groups, r, row], r rows sharing words of 32 bits, and a row is that of one position, heads one after another, of each
its key and then its value; or one head whose key begins with its value. New rows are written by the program around the
kernel, which reads whole pages.

Where sequences are divided among `parts` devices, the output comes with the logarithm of the sum of its weights, by
which the outputs of all devices are joined.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from chips import DTYPES, check_smem, fitted, power_of_2, scoped_vmem, shape
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

LANES = 128
NOTHING = -1e30  # a logarithm of no weight
UNSEEN = -2e30  # a score: exp(UNSEEN - NOTHING) is 0


@dataclasses.dataclass(frozen=True)
class Sizes:
    kv_heads: int
    group: int  # query heads of a KV head, padded
    head: int  # lanes that a KV head has of a row
    key: int  # of which the first are met by queries
    value: int  # and so many are the value
    value_at: int  # from here
    row: int
    own: int  # slots of a page that this device has
    parts: int
    packed: int  # rows that share a word
    pages: int  # of a sequence
    window: int
    soft_cap: float
    scale: float
    cache: jnp.dtype
    sinks: bool

    @property
    def page(self):
        return self.own * self.parts

    @property
    def groups(self):
        return self.own // self.packed

    @property
    def out(self):
        return self.value + (LANES if self.parts > 1 else 0)


def by(x, n):
    """x // n, for x that are not negative."""
    return x >> (n.bit_length() - 1) if n & (n - 1) == 0 else lax.div(x, jnp.full_like(x, n))


def kernel(z, queries, block, decodes, lens, table, starts, bounds, q_hbm, cache_hbm, *rest):
    """All blocks of `queries` tokens of the sequences bounds[0] to bounds[1], over blocks of `block` pages.

    One loop goes through sequences, their blocks of queries and of pages, and fetches the next block meanwhile.
    """
    if z.sinks:
        sinks, *rest = rest
    if not decodes:
        rest = rest[1:]  # the output so far, which this call goes on with
    out_hbm, kv, q, out, best, total, acc, written, kv_sems, q_sems, out_sems = rest
    begin, end, index = bounds[0], bounds[1], bounds[2]
    last = lens.shape[0] - 1
    rows, columns = queries * z.group, block * z.own

    def length(s):
        return starts[s + 1] - starts[s]

    def pages_seen(s, b):
        first = lens[s] - length(s) + b * queries
        until = jnp.minimum(first + queries, lens[s]) - 1
        begin = lax.div(jnp.maximum(first - z.window + 1, 0), z.page) if z.window else 0
        return begin, lax.div(until, z.page) + 1

    def with_queries(s):
        """The first sequence from s on that has some."""
        return lax.while_loop(lambda s: (s < end) & (length(jnp.minimum(s, last)) <= 0), lambda s: s + 1, s)

    def after(s, b, p):
        more_pages = p + block < pages_seen(s, b)[1]
        same = more_pages | ((b + 1) * queries < length(s))
        s2 = lax.cond(same, lambda: s, lambda: with_queries(s + 1))
        b2 = jnp.where(more_pages, b, jnp.where(same, b + 1, 0))
        p2 = jnp.where(more_pages, p + block, pages_seen(jnp.minimum(s2, last), b2)[0])
        return s2, b2, p2

    def each_page(s, b, p, slot, act):
        def one(i, _):
            act(pltpu.make_async_copy(cache_hbm.at[table[s * z.pages + p + i]], kv.at[slot, i], kv_sems.at[slot]))
            return _

        lax.fori_loop(0, jnp.minimum(block, pages_seen(s, b)[1] - p), one, 0)

    def tokens(s, b):
        return starts[s] + b * queries, jnp.minimum(queries, length(s) - b * queries)

    def queries_of(s, b, slot):
        at, count = tokens(s, b)
        return pltpu.make_async_copy(q_hbm.at[:, pl.ds(at, count)], q.at[slot, :, pl.ds(0, count)], q_sems.at[slot])

    def output_of(at, count, slot):
        return pltpu.make_async_copy(out.at[slot, :, pl.ds(0, count)], out_hbm.at[:, pl.ds(at, count)],
                                     out_sems.at[slot])  # fmt: skip

    def wait_for_output(slot):
        @pl.when(written[slot] > 0)
        def _():
            output_of(0, written[slot], slot).wait()
            written[slot] = 0

    def positions(p, slots, of_page):
        """Of slots that lie one after another from page p on."""
        return (p * z.page + index * z.own) + slots + of_page * (z.page - z.own)

    def words(slot):
        return kv.bitcast(jnp.uint32).at[slot].reshape(block * z.groups, z.row)

    def clear_behind(s, b, p, slot):
        """What was not fetched or lies behind the sequence's end may be anything, and 0 * NaN is no 0."""
        until = jnp.minimum(lens[s], pages_seen(s, b)[1] * z.page)

        @pl.when((p + block) * z.page > until)
        def _():
            group = lax.broadcasted_iota(jnp.int32, (block * z.groups, LANES), 0)
            at = positions(p, group * z.packed, by(group, z.groups))
            bits = 32 // z.packed
            mask = jnp.zeros(group.shape, jnp.uint32)
            for i in range(z.packed):
                ones = jnp.uint32(((1 << bits) - 1) << (bits * i))
                mask |= jnp.where(at + i < until, ones, jnp.uint32(0))
            held = words(slot)
            for lane in range(0, z.row, LANES):
                held[:, lane : lane + LANES] = held[:, lane : lane + LANES] & mask

    def start_rows():
        for h in range(z.kv_heads):
            if z.sinks:
                one = jnp.broadcast_to(sinks[h][None], (queries, z.group, LANES))
                best[h] = one.reshape(rows, LANES)
            else:
                best[h] = jnp.full((rows, LANES), NOTHING, jnp.float32)
            total[h] = jnp.full((rows, LANES), 1.0 if z.sinks else 0.0, jnp.float32)
            acc[h] = jnp.zeros((rows, z.value), jnp.float32)

    def attend(s, b, p, slot, q_slot):
        slots = lax.broadcasted_iota(jnp.int32, (rows, columns), 1)
        column = positions(p, slots, by(slots, z.own) if z.parts > 1 else 0)
        position = lens[s] - length(s) + b * queries
        if queries > 1:
            position += by(lax.broadcasted_iota(jnp.int32, (rows, columns), 0), z.group)
        seen = column <= position
        if z.window:
            seen &= column > position - z.window
        held = words(slot)
        for h in range(z.kv_heads):
            # As f32 the heads of a token fill whole registers, and tokens lie one behind another.
            asked = q[q_slot, h].astype(jnp.float32).reshape(rows, z.key).astype(jnp.bfloat16)
            lane = h * z.head
            keys = pltpu.bitcast(held[:, lane : lane + z.key], z.cache).astype(jnp.bfloat16)
            scores = lax.dot_general(asked, keys, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32)
            scores *= z.scale
            if z.soft_cap:
                scores = z.soft_cap * jnp.tanh(scores / z.soft_cap)
            scores = jnp.where(seen, scores, UNSEEN)
            before = best[h]
            now = jnp.maximum(before, jnp.max(scores, axis=1, keepdims=True))
            weights = jnp.exp(scores - now[:, :1])
            kept = jnp.exp(before - now)
            best[h] = now
            total[h] = kept * total[h] + jnp.sum(weights, axis=1, keepdims=True)
            lane += z.value_at
            values = pltpu.bitcast(held[:, lane : lane + z.value], z.cache).astype(jnp.bfloat16)
            acc[h] = kept[:, :1] * acc[h] + lax.dot_general(
                weights.astype(jnp.bfloat16), values, (((1,), (0,)), ((), ())), preferred_element_type=jnp.float32)  # fmt: skip

    def finish(s, b, slot):
        wait_for_output(slot)
        for h in range(z.kv_heads):
            sum_of_weights = jnp.maximum(total[h], 1e-30)
            out[slot, h, :, :, : z.value] = (acc[h] / sum_of_weights[:, :1]).reshape(queries, z.group, z.value)
            if z.parts > 1:
                logarithm = best[h] + jnp.log(sum_of_weights)
                out[slot, h, :, :, z.value :] = logarithm.reshape(queries, z.group, LANES)
        at, count = tokens(s, b)
        written[slot] = count
        output_of(at, count, slot).start()

    def step(state):
        s, b, p, slot, q_slot = state
        s2, b2, p2 = after(s, b, p)
        same = (s2 == s) & (b2 == b)
        next_q_slot = jnp.where(same, q_slot, 1 - q_slot)

        @pl.when(s2 < end)
        def _():
            each_page(s2, b2, p2, 1 - slot, lambda copy: copy.start())

            @pl.when(~same)
            def _():
                queries_of(s2, b2, next_q_slot).start()

        @pl.when(p == pages_seen(s, b)[0])
        def _():
            queries_of(s, b, q_slot).wait()
            start_rows()

        each_page(s, b, p, slot, lambda copy: copy.wait())
        clear_behind(s, b, p, slot)
        attend(s, b, p, slot, q_slot)

        @pl.when(~same)
        def _():
            finish(s, b, q_slot)

        return s2, b2, p2, 1 - slot, next_q_slot

    written[0] = 0
    written[1] = 0
    first = with_queries(begin)

    @pl.when(first < end)
    def _():
        page = pages_seen(first, 0)[0]
        each_page(first, 0, page, 0, lambda copy: copy.start())
        queries_of(first, 0, 0).start()
        zero = jnp.int32(0)
        lax.while_loop(lambda state: state[0] < end, step, (first, zero, jnp.int32(page), zero, zero))
        wait_for_output(0)
        wait_for_output(1)


def vmem_estimate(z, queries, block):
    rows, columns = queries * z.group, block * z.own
    element = jnp.dtype(z.cache).itemsize
    held = 2 * columns * z.row * element + columns * z.head * (element + 2)
    running = z.kv_heads * rows * (2 * LANES + z.value) * 4
    blocks = 2 * z.kv_heads * rows * (z.key * 2 + z.out * 4)
    return held + running + blocks + 4 * rows * columns * 4 + rows * (z.key * 6 + z.value * 4)


def attention_call(z, queries, block, decodes):
    """pallas_call for the decodes of a batch, or for the rest, which goes on with the output of the first."""
    rows = queries * z.group
    any_space = pl.BlockSpec(memory_space=pl.ANY)

    def call(scalars, q, cache, sinks, output):
        inputs = [q, cache]
        specs = [any_space, any_space]
        if z.sinks:
            inputs.append(sinks)
            specs.append(pl.BlockSpec(memory_space=pltpu.VMEM))
        aliases = {}
        if not decodes:
            aliases = {len(scalars) + len(inputs): 0}
            inputs.append(output)
            specs.append(any_space)
        scratch = [
            pltpu.VMEM((2, block, z.groups, z.packed, z.row), z.cache),
            pltpu.VMEM((2, z.kv_heads, queries, z.group, z.key), jnp.bfloat16),
            pltpu.VMEM((2, z.kv_heads, queries, z.group, z.out), jnp.float32),
            pltpu.VMEM((z.kv_heads, rows, LANES), jnp.float32),
            pltpu.VMEM((z.kv_heads, rows, LANES), jnp.float32),
            pltpu.VMEM((z.kv_heads, rows, z.value), jnp.float32),
            pltpu.SMEM((2,), jnp.int32),
            pltpu.SemaphoreType.DMA((2,)), pltpu.SemaphoreType.DMA((2,)), pltpu.SemaphoreType.DMA((2,)),
        ]  # fmt: skip
        return pl.pallas_call(
            functools.partial(kernel, z, queries, block, decodes),
            grid_spec=pltpu.PrefetchScalarGridSpec(
                num_scalar_prefetch=len(scalars), in_specs=specs, out_specs=any_space, grid=(1,), scratch_shapes=scratch
            ),
            out_shape=shape(jnp.float32, z.kv_heads, q.shape[1], z.group, z.out),
            input_output_aliases=aliases,
            compiler_params=pltpu.CompilerParams(
                dimension_semantics=("arbitrary",), vmem_limit_bytes=scoped_vmem(vmem_estimate(z, queries, block))
            ),
            name=f"row-attention-{'d' if decodes else 'm'}",
        )(*scalars, *inputs)

    return call


def write(z, rows, cache, kv_lens, page_indices, cu_q_lens, distribution, index):
    """The new rows [tokens, row] where they belong; those of other devices are left out."""
    token = jnp.arange(rows.shape[0], dtype=jnp.int32)
    known = jnp.arange(kv_lens.shape[0]) < distribution[2]
    before = jnp.sum((token[:, None] >= cu_q_lens[None, 1:]) & known[None], axis=1, dtype=jnp.int32)
    s = jnp.minimum(before, kv_lens.shape[0] - 1)
    position = kv_lens[s] - cu_q_lens[s + 1] + token
    slot = position % z.page - index * z.own
    here = (before < distribution[2]) & (slot >= 0) & (slot < z.own)
    page = jnp.where(here, page_indices[s * z.pages + position // z.page], cache.shape[0])
    return cache.at[page, slot // z.packed, slot % z.packed].set(rows, mode="drop", unique_indices=True)


def sizes_of(key, group):
    dim, rank = key["head_dim"], key.get("rank", 0)
    row = -(-dim // LANES) * LANES
    if rank:
        lanes = dict(head=row, key=row, value=rank, value_at=0, row=row)
    elif dim % LANES == 0:
        lanes = dict(head=2 * dim, key=dim, value=dim, value_at=dim, row=2 * dim * key["kv_heads"])
    else:  # 64: a key and its value share the lanes, and zeros in the query leave the value out
        lanes = dict(head=2 * dim, key=2 * dim, value=2 * dim, value_at=0, row=2 * dim * key["kv_heads"])
    cache = DTYPES[key["cache_dtype"]]
    return Sizes(
        kv_heads=key["kv_heads"], group=group, own=key["page_size"], parts=key["parts"],
        packed=4 // jnp.dtype(cache).itemsize, pages=key["pages_per_sequence"], window=key.get("window", 0),
        soft_cap=key.get("soft_cap", 0), scale=key["scale"], cache=cache, sinks=key.get("sinks", False), **lanes,
    )  # fmt: skip


def build(key):
    """(function, shapes of its arguments); see the headers of the operators."""
    t, heads, kv_heads, dim = (key[k] for k in ("tokens", "q_heads", "kv_heads", "head_dim"))
    n, per, rank = key["sequences"], key["pages_per_sequence"], key.get("rank", 0)
    real_group = heads // kv_heads
    group = max(8, power_of_2(2 * real_group - 1))
    z = sizes_of(key, group)
    check_smem(4 * (n * per + 2 * n + 16))
    what = f"attention of {heads} heads of {dim} over {kv_heads}"
    block = max(1, min(512 // z.own, per))

    def estimate(queries, pages):
        return vmem_estimate(z, queries, pages)

    decode = attention_call(z, *fitted(estimate, 1, block, what), decodes=True)
    mixed = attention_call(z, *fitted(estimate, power_of_2(max(1, min(256 // group, t))), block, what), decodes=False)
    rows_given = 1 if rank else 2

    def function(q, *rest):
        new, (cache, kv_lens, page_indices, cu_q_lens, distribution, *rest) = rest[:rows_given], rest[rows_given:]
        index = rest.pop(0) if z.parts > 1 else jnp.int32(0)
        sinks = rest.pop(0) if z.sinks else None
        rows = new[0] if rank else jnp.stack(new, axis=2).reshape(t, z.row)
        rows = jnp.pad(rows, ((0, 0), (0, z.row - rows.shape[1])))
        cache = write(z, rows.astype(z.cache), cache, kv_lens, page_indices, cu_q_lens, distribution, index)

        q = jnp.pad(q.reshape(t, kv_heads, real_group, dim), ((0, 0), (0, 0), (0, group - real_group), (0, z.key - dim)))
        q = jnp.transpose(q, (1, 0, 2, 3))
        if z.sinks:
            sinks = jnp.pad(sinks.reshape(kv_heads, real_group), ((0, 0), (0, group - real_group)))
            sinks = jnp.broadcast_to(sinks[:, :, None], (kv_heads, group, LANES))
        out = None
        for call, begin, end in ((decode, 0, distribution[0]), (mixed, distribution[0], distribution[2])):
            bounds = jnp.stack([jnp.int32(begin), end, index])
            out = call((kv_lens, page_indices, cu_q_lens, bounds), q, cache, sinks, out)

        def written(begin, end):
            part = jnp.transpose(out[:, :, :real_group, begin:end], (1, 0, 2, 3)).reshape(t, heads, end - begin)
            real = jnp.arange(t, dtype=jnp.int32) < cu_q_lens[distribution[2]]
            return jnp.where(real[:, None, None], part, 0)

        output = written(z.value - (rank or dim), z.value)
        if z.parts == 1:
            return output.astype(jnp.bfloat16), cache
        return output, written(z.value, z.value + 1)[:, :, 0], cache

    dtype = DTYPES[key["dtype"]]
    new = [shape(dtype, t, dim)] if rank else 2 * [shape(dtype, t, kv_heads, dim)]
    arguments = [
        shape(dtype, t, heads, dim), *new, shape(z.cache, key["pages"], z.groups, z.packed, z.row),
        shape(jnp.int32, n), shape(jnp.int32, n * per), shape(jnp.int32, n + 1), shape(jnp.int32, 3),
    ]  # fmt: skip
    if z.parts > 1:
        arguments.append(shape(jnp.int32))
    if z.sinks:
        arguments.append(shape(jnp.float32, heads))
    return function, arguments
