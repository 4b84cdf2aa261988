"""Attention over a paged cache whose rows hold all heads of a position (row_cache.py): what the wheel's kernels lack.

New rows are written first, by a kernel of their own; this one reads whole pages. Where sequences are divided among
`parts` devices, the output comes with the logarithm of the sum of its weights, by which the outputs of all devices are
joined.
"""

import functools

import jax.numpy as jnp
import row_cache
from chips import DTYPES, Refused, check_smem, fitted, power_of_2, scoped_vmem, shape
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from row_cache import LANES, by

NOTHING = -1e30  # a logarithm of no weight
UNSEEN = -2e30  # a score: exp(UNSEEN - NOTHING) is 0


def kernel(z, queries, block, decodes, lens, table, starts, bounds, q_hbm, cache_hbm, *rest):
    """All blocks of `queries` tokens of the sequences bounds[0] to bounds[1], over blocks of `block` pages.

    One loop goes through sequences, their blocks of queries and of pages, and fetches the next block meanwhile.
    """
    if z.sinks:
        sinks, *rest = rest
    if not decodes:
        rest = rest[1:]  # the output so far, which this call goes on with
    out_hbm, kv, *rest = rest
    if z.scales:
        scales, *rest = rest
    q, out, best, total, acc, written, kv_sems, q_sems, out_sems = rest
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
            page = cache_hbm.at[table[s * z.pages + p + i]]
            act(pltpu.make_async_copy(page.at[pl.ds(0, z.groups)], kv.at[slot, i], kv_sems.at[slot]))
            if z.scales:
                behind = page.at[pl.ds(z.groups, z.scales)]
                act(pltpu.make_async_copy(behind, scales.at[slot, i], kv_sems.at[slot]))
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

    def pages_until(s, b):
        """Where what was fetched and belongs to the sequence ends."""
        return jnp.minimum(lens[s], pages_seen(s, b)[1] * z.page)

    def clear_behind(s, b, p, slot):
        """What was not fetched or lies behind the sequence's end may be anything, and 0 * NaN is no 0."""
        until = pages_until(s, b)

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

    def numbers(words, lane, size):
        """[columns, size] of the cache's elements, those of int8 without their scale."""
        elements = pltpu.bitcast(words[:, lane : lane + size], z.cache)
        if z.quantized:
            elements = elements.astype(jnp.float32)
        return elements.astype(jnp.bfloat16)

    def scale_of_rows(words):
        """[columns, 1]: the last word of each row, where one head has it there."""
        ends = pltpu.bitcast(words[:, z.row - LANES :], jnp.int8).astype(jnp.int32)
        bits = jnp.zeros((columns, 1), jnp.int32)
        for i in range(4):
            lane = LANES - 4 + i
            bits |= (ends[:, lane : lane + 1] & 255) << (8 * i)
        return lax.bitcast_convert_type(bits, jnp.float32)

    def scaled(x, s, b, p, slot, lane):
        """x [rows, columns] times the scale of each column, which begin at `lane` of their groups."""
        tile = lane // LANES * LANES
        held = scales.bitcast(jnp.float32).at[slot].reshape(block * z.scales, z.row)[:, tile : tile + LANES]
        at = lax.broadcasted_iota(jnp.int32, (1, LANES), 1)
        together = LANES // z.width
        pieces = []
        for c in range(columns // LANES):
            factors = jnp.zeros((1, LANES), jnp.float32)
            for i in range(together):
                part = held[c * together + i : c * together + i + 1]
                part = pltpu.roll(part, (i * z.width + tile - lane) % LANES, 1)
                factors = jnp.where(by(at, z.width) == i, part, factors)
            column = at + c * LANES
            seen = positions(p, column, by(column, z.own)) < pages_until(s, b)
            pieces.append(x[:, c * LANES : (c + 1) * LANES] * jnp.where(seen, factors, 0.0))
        return jnp.concatenate(pieces, axis=1)

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
            keys = numbers(held, lane, z.key)
            if z.quantized and z.shared:
                keys = (keys.astype(jnp.float32) * scale_of_rows(held)).astype(jnp.bfloat16)
            scores = lax.dot_general(asked, keys, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32)
            if z.scales:
                scores = scaled(scores, s, b, p, slot, h * 2 * z.dim)
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
            if z.scales:
                weights = scaled(weights, s, b, p, slot, h * 2 * z.dim + z.dim)
            values = keys[:, : z.value] if z.value_at == 0 else numbers(held, lane + z.value_at, z.value)
            weights = weights.astype(jnp.bfloat16)
            seen_values = lax.dot_general(weights, values, (((1,), (0,)), ((), ())), preferred_element_type=jnp.float32)
            acc[h] = kept[:, :1] * acc[h] + seen_values

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
    held = 2 * block * (z.groups + z.scales) * z.row * 4 + columns * z.head * (element + 2)
    if z.quantized:
        held += columns * z.head * 4
    running = z.kv_heads * rows * (2 * LANES + z.value) * 4
    blocks = 2 * z.kv_heads * rows * (z.key * 2 + z.out * 4)
    return held + running + blocks + 4 * rows * columns * 4 + rows * (z.key * 6 + z.value * 4)


def attention_call(z, queries, block, decodes):
    """pallas_call for the decodes of a batch, or for the rest, which goes on with the output of the first."""
    rows = queries * z.group
    any_space = pl.BlockSpec(memory_space=pl.ANY)

    def call(scalars, q, cache, sinks, output):
        inputs = [q, row_cache.in_hbm(cache)]
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
            *([pltpu.VMEM((2, block, z.scales, z.packed, z.row), z.cache)] if z.scales else []),
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


def build(key):
    """(function, shapes of its arguments); see the headers of the operators."""
    t, heads, kv_heads, dim = (key[k] for k in ("tokens", "q_heads", "kv_heads", "head_dim"))
    n, per, rank = key["sequences"], key["pages_per_sequence"], key.get("rank", 0)
    real_group = heads // kv_heads
    group = max(8, power_of_2(2 * real_group - 1))
    z = row_cache.sizes_of(key, group)
    check_smem(4 * (n * per + 2 * n + 16))
    what = f"attention of {heads} heads of {dim} over {kv_heads}"
    together = max(1, LANES // z.own) if z.scales else 1  # pages whose scales fill all lanes
    if z.scales and (z.own % z.width or LANES % z.width):
        raise Refused(f"{z.own} tokens of a block of int8 on a device; the kernel takes 4, 8, 16, 32, 64 or multiples "
                      f"of {LANES}")

    def call_for(queries, decodes):
        def estimate(queries, units):
            return vmem_estimate(z, queries, units * together)

        units = -(-max(1, min(512 // z.own, per)) // together)
        queries, units = fitted(estimate, queries, units, what)
        return attention_call(z, queries, units * together, decodes)

    decode = call_for(1, decodes=True)
    mixed = call_for(power_of_2(max(1, min(256 // group, t))), decodes=False)
    rows_given = 1 if rank else 2

    def function(q, *rest):
        new, (cache, kv_lens, page_indices, cu_q_lens, distribution, *rest) = rest[:rows_given], rest[rows_given:]
        index = rest.pop(0) if z.parts > 1 else jnp.int32(0)
        sinks = rest.pop(0) if z.sinks else None
        lists = (kv_lens, page_indices, cu_q_lens)
        cache = row_cache.write(z, (*lists, jnp.stack([jnp.int32(0), distribution[2], index])), new, cache)
        q = jnp.transpose(q.reshape(t, kv_heads, real_group, dim), (1, 0, 2, 3))
        q = jnp.pad(q, ((0, 0), (0, 0), (0, group - real_group), (0, z.key - dim)))
        if z.sinks:
            sinks = jnp.pad(sinks.reshape(kv_heads, real_group), ((0, 0), (0, group - real_group)))
            sinks = jnp.broadcast_to(sinks[:, :, None], (kv_heads, group, LANES))
        out = None
        for call, begin, end in ((decode, 0, distribution[0]), (mixed, distribution[0], distribution[2])):
            bounds = jnp.stack([jnp.int32(begin), end, index])
            out = call((*lists, bounds), q, cache, sinks, out)

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
        shape(dtype, t, heads, dim), *new, shape(z.cache, key["pages"], z.groups + z.scales, z.packed, z.row),
        shape(jnp.int32, n), shape(jnp.int32, n * per), shape(jnp.int32, n + 1), shape(jnp.int32, 3),
    ]  # fmt: skip
    if z.parts > 1:
        arguments.append(shape(jnp.int32))
    if z.sinks:
        arguments.append(shape(jnp.float32, heads))
    return function, arguments
