"""How a cache of rows holds keys and values, and the kernel that writes new ones into it.

A page is [groups + scales, r, row] (see row_cache in the operator's header): r rows share words of 32 bits, and a row
is that of one position, heads one after another, of each its key and then its value; or one head whose key begins with
its value. Of int8, words of f32 stand behind the groups: the scale of a key or a value at slot i is word i of its own
lanes, or i % width of a further group where there are more slots. The one head's is the last word of its row.
"""

import dataclasses

import jax
import jax.numpy as jnp
from chips import DTYPES, LANES, power_of_2, scoped_vmem, shape, vmem_bytes
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

MOST_AT_ONCE = 16  # pages


@dataclasses.dataclass(frozen=True)
class Sizes:
    kv_heads: int
    group: int  # query heads of a KV head, padded
    dim: int
    shared: bool  # the key begins with the value
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
    def folds(self):
        return self.row // LANES

    @property
    def quantized(self):
        return self.cache == jnp.int8

    @property
    def width(self):
        """Slots whose scales lie in one group."""
        return min(self.own, self.dim, LANES)

    @property
    def scales(self):
        return -(-self.own // min(self.dim, LANES)) if self.quantized and not self.shared else 0

    @property
    def out(self):
        return self.value + (LANES if self.parts > 1 else 0)


def sizes_of(key, group):
    dim, rank = key["head_dim"], key.get("rank", 0)
    if rank:
        row = -(-dim // LANES) * LANES
        lanes = dict(head=row, key=row, value=rank, value_at=0, row=row)
    elif dim % LANES == 0:
        lanes = dict(head=2 * dim, key=dim, value=dim, value_at=dim, row=2 * dim * key["kv_heads"])
    else:  # 64: a key and its value share the lanes, and zeros in the query leave the value out
        lanes = dict(head=2 * dim, key=2 * dim, value=2 * dim, value_at=0, row=2 * dim * key["kv_heads"])
    cache = DTYPES[key["cache_dtype"]]
    return Sizes(
        kv_heads=key["kv_heads"], group=group, dim=dim, shared=bool(rank), own=key["page_size"], parts=key["parts"],
        packed=4 // jnp.dtype(cache).itemsize, pages=key["pages_per_sequence"], window=key.get("window", 0),
        soft_cap=key.get("soft_cap", 0), scale=key["scale"], cache=cache, sinks=key.get("sinks", False), **lanes,
    )  # fmt: skip


def by(x, n):
    """x // n, for x that are not negative."""
    return x >> (n.bit_length() - 1) if n & (n - 1) == 0 else lax.div(x, jnp.full_like(x, n))


def encoded(z, new):
    """Rows as the cache's elements, each in a word of its own, [tokens * folds, 1, 128]; of int8 scales beside them."""
    tokens = new[0].shape[0]
    heads = new[0][:, None] if z.shared else jnp.stack(new, axis=2).reshape(tokens, -1, z.dim)
    scales = None
    if z.quantized:
        x = heads.astype(jnp.float32)
        most = jnp.max(jnp.abs(x), axis=2, keepdims=True)
        some = most > 1e-30
        inverse = jnp.where(some, 127 / most, 0)
        scales = jnp.where(some, most * (1.0 / 127), 0)
        heads = jnp.round(x * inverse).astype(jnp.int8)
        if z.shared:
            ends = lax.bitcast_convert_type(scales[:, :, 0], jnp.int8)
            heads = jnp.concatenate([heads[:, :, : z.row - 4], ends], axis=2)
            scales = None
    elif z.cache == jnp.float8_e4m3fn:
        heads = jnp.clip(heads.astype(jnp.float32), -448, 448).astype(z.cache)
    bits = lax.bitcast_convert_type(heads, jnp.uint8 if z.packed == 4 else jnp.uint16).astype(jnp.uint32)
    rows = bits.reshape(tokens, 1, -1)
    rows = jnp.pad(rows, ((0, 0), (0, 0), (0, z.row - rows.shape[2])))
    if scales is None:
        return (rows.reshape(-1, 1, LANES),)
    lanes = jnp.broadcast_to(lax.bitcast_convert_type(scales, jnp.uint32), (tokens, scales.shape[1], z.dim))
    return rows.reshape(-1, 1, LANES), lanes.reshape(-1, 1, LANES)


def kernel(z, at_once, lens, table, starts, bounds, *rest):
    """Writes the rows of the sequences from 0 to bounds[2]: some pages at a time are read, changed and written."""
    kinds = 2 if z.scales else 1  # of rows: elements, and scales
    new_hbm, (_, cache_hbm), rest = rest[:kinds], rest[kinds : kinds + 2], rest[kinds + 2 :]
    new, (held, *scale_held), (items, reads, writes) = rest[:kinds], rest[kinds:-3], rest[-3:]
    end, index = bounds[1], bounds[2]
    last = lens.shape[0] - 1

    def old(s):
        return lens[s] - (starts[s + 1] - starts[s])

    def slots(s, k):
        """The device's slots of page k that get rows: from, to, and the token of the first."""
        base = k * z.page + index * z.own
        low, high = jnp.maximum(old(s) - base, 0), jnp.minimum(lens[s] - base, z.own)
        return low, high, starts[s] + base + low - old(s)

    def copies(i, act_on, writing):
        s, k = items[i, 0], items[i, 1]
        low, high, token = slots(s, k)
        page = cache_hbm.at[table[s * z.pages + k]]
        begin = lax.div(low, z.packed)
        groups = pl.ds(begin, lax.div(high - 1, z.packed) + 1 - begin)
        pairs = [(page.at[groups], held.at[i, groups])]
        if z.scales:
            pairs.append((page.at[pl.ds(z.groups, z.scales)], scale_held[0].at[i]))
        semaphore = (writes if writing else reads).at[i]
        for hbm, vmem in pairs:
            act_on(pltpu.make_async_copy(*((vmem, hbm) if writing else (hbm, vmem)), semaphore))
        if not writing:
            for source, target in zip(new_hbm, new):
                count = (high - low) * z.folds
                act_on(pltpu.make_async_copy(
                    source.at[pl.ds(token * z.folds, count)], target.at[i, pl.ds(low * z.folds, count)],
                    semaphore))  # fmt: skip

    def change(i):
        low, high, _ = slots(items[i, 0], items[i, 1])
        bits = 32 // z.packed
        words = held.bitcast(jnp.uint32).at[i].reshape(z.groups, z.row)
        rows = new[0].at[i].reshape(z.own * z.folds, LANES)
        group = lax.broadcasted_iota(jnp.int32, (z.groups, LANES), 0)
        for fold in range(z.folds):
            lanes = pl.ds(fold * LANES, LANES)
            word, mask = jnp.zeros((z.groups, LANES), jnp.uint32), jnp.zeros((z.groups, LANES), jnp.uint32)
            for j in range(z.packed):
                slot = group * z.packed + j
                given = (slot >= low) & (slot < high)
                row = jnp.where(given, rows[pl.ds(j * z.folds + fold, z.groups, z.packed * z.folds)], jnp.uint32(0))
                word |= row << jnp.uint32(bits * j)
                mask |= jnp.where(given, jnp.uint32(((1 << bits) - 1) << (bits * j)), jnp.uint32(0))
            words[:, lanes] = (word & mask) | (words[:, lanes] & ~mask)

    def change_scales(i):
        low, high, _ = slots(items[i, 0], items[i, 1])
        words = scale_held[0].bitcast(jnp.uint32).at[i].reshape(z.scales, z.row)
        rows = new[1].at[i].reshape(z.own * z.folds, LANES)
        slot = lax.broadcasted_iota(jnp.int32, (z.width, LANES), 0)
        lane = lax.broadcasted_iota(jnp.int32, (z.width, LANES), 1) & (min(z.dim, LANES) - 1)
        for g in range(z.scales):
            first = g * z.width
            here = (slot == lane) & (slot + first >= low) & (slot + first < high)
            some = jnp.sum(here.astype(jnp.float32), axis=0, keepdims=True) > 0
            for fold in range(z.folds):
                lanes = pl.ds(fold * LANES, LANES)
                given = pltpu.bitcast(rows[pl.ds(first * z.folds + fold, z.width, z.folds)], jnp.float32)
                made = jnp.sum(jnp.where(here, given, 0.0), axis=0, keepdims=True)
                words[g : g + 1, lanes] = jnp.where(some, pltpu.bitcast(made, jnp.uint32), words[g : g + 1, lanes])

    def after(s, k):
        more = (k + 1) * z.page < lens[s]
        next_s = jnp.where(more, s, s + 1)
        return next_s, jnp.where(more, k + 1, lax.div(old(jnp.minimum(next_s, last)), z.page))

    def batch(state):
        def collect(state):
            n, s, k = state
            low, high, _ = slots(s, k)
            wanted = (low < high) & (starts[s + 1] > starts[s])

            @pl.when(wanted)
            def _():
                items[n, 0], items[n, 1] = s, k
                copies(n, lambda copy: copy.start(), writing=False)

            return n + wanted.astype(jnp.int32), *after(s, k)

        n, s, k = lax.while_loop(lambda state: (state[0] < at_once) & (state[1] < end), collect, (jnp.int32(0), *state))

        def write(i, _):
            copies(i, lambda copy: copy.wait(), writing=False)
            change(i)
            if z.scales:
                change_scales(i)
            copies(i, lambda copy: copy.start(), writing=True)
            return _

        def written(i, _):
            copies(i, lambda copy: copy.wait(), writing=True)
            return _

        lax.fori_loop(0, n, write, 0)
        lax.fori_loop(0, n, written, 0)
        return s, k

    lax.while_loop(lambda state: state[0] < end, batch, (jnp.int32(0), lax.div(old(0), z.page)))


def in_hbm(cache):
    """A small cache would be put into VMEM as a whole and back, which is more than is read and written of it."""
    return pltpu.with_memory_space_constraint(cache, pltpu.HBM)


def write(z, scalars, new, cache):
    """The cache with the new rows, keys and values [tokens, ...], where they belong on this device."""
    rows = encoded(z, new)
    page_bytes = z.own * z.row * (4 * len(rows) + jnp.dtype(z.cache).itemsize) + z.scales * z.row * 4
    at_once = max(1, min(MOST_AT_ONCE, power_of_2(vmem_bytes() // 4 // page_bytes)))
    any_space = pl.BlockSpec(memory_space=pl.ANY)
    scratch = [pltpu.VMEM((at_once, z.own * z.folds, 1, LANES), jnp.uint32) for _ in rows]
    scratch.append(pltpu.VMEM((at_once, z.groups, z.packed, z.row), z.cache))
    if z.scales:
        scratch.append(pltpu.VMEM((at_once, z.scales, z.packed, z.row), z.cache))
    scratch += [pltpu.SMEM((at_once, 2), jnp.int32)] + 2 * [pltpu.SemaphoreType.DMA((at_once,))]
    return pl.pallas_call(
        lambda *refs: kernel(z, at_once, *refs),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=len(scalars), in_specs=[any_space] * (len(rows) + 1), out_specs=any_space, grid=(1,),
            scratch_shapes=scratch,
        ),
        out_shape=shape(z.cache, *cache.shape),
        input_output_aliases={len(scalars) + len(rows): 0},
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("arbitrary",), vmem_limit_bytes=scoped_vmem(at_once * page_bytes)
        ),
        name="row-write",
    )(*scalars, *rows, in_hbm(cache))  # fmt: skip
