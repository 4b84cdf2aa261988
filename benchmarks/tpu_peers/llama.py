"""Llama in plain JAX, as one would write it: unrolled layers, Megatron's split under shard_map, donated caches, greedy tokens.

Attention is jnp (`plain`), or a kernel that comes with jax (`kernels`): splash attention for prompts, ragged paged attention for
decoding.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec as P

from work import Work, pretend_chip, shape

AXIS = "model"
PAGE = 64  # tokens, as TTPU's blocks
COLUMNS, ROWS, WHOLE = P(None, AXIS), P(AXIS, None), P()


def weights(work: Work, mesh):
    """Shapes of all weights."""
    config, bf16 = work.config, functools.partial(shape, mesh)
    d, inner, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    q, kv = config["num_attention_heads"] * work.head_dim, config["num_key_value_heads"] * work.head_dim
    sizes = {"q": (COLUMNS, d, q), "k": (COLUMNS, d, kv), "v": (COLUMNS, d, kv), "o": (ROWS, q, d),
             "gate": (COLUMNS, d, inner), "up": (COLUMNS, d, inner), "down": (ROWS, inner, d),
             "norm1": (WHOLE, d), "norm2": (WHOLE, d)}
    layer = {name: bf16(spec, jnp.bfloat16, *dims) for name, (spec, *dims) in sizes.items()}
    return {"embed": bf16(ROWS, jnp.bfloat16, vocab, d), "head": bf16(COLUMNS, jnp.bfloat16, d, vocab),
            "norm": bf16(WHOLE, jnp.bfloat16, d), "layers": [layer] * work.layers}


def rms_norm(x, scale, eps):
    x32 = x.astype(jnp.float32)
    return (x32 * lax.rsqrt(jnp.mean(x32 * x32, -1, keepdims=True) + eps)).astype(x.dtype) * scale


def rotate(x, cos, sin):
    """x: [tokens, heads, head_dim]."""
    low, high = jnp.split(x.astype(jnp.float32), 2, -1)
    return jnp.concatenate([low * cos - high * sin, high * cos + low * sin], -1).astype(x.dtype)


def angles(work: Work, positions):
    half = work.head_dim // 2
    rates = work.config["rope_theta"] ** (-jnp.arange(half, dtype=jnp.float32) / half)
    turned = positions.astype(jnp.float32)[:, None, None] * rates
    return jnp.cos(turned), jnp.sin(turned)


def embed(table, ids):
    """Each device looks up the words that it has."""
    local = ids - lax.axis_index(AXIS) * table.shape[0]
    mine = (local >= 0) & (local < table.shape[0])
    rows = table[jnp.clip(local, 0, table.shape[0] - 1)]
    return lax.psum(jnp.where(mine[:, None], rows, 0), AXIS)


def greedy(logits):
    """The largest over all devices; the lowest of equal ones."""
    best, where = jnp.max(logits, -1), jnp.argmax(logits, -1) + lax.axis_index(AXIS) * logits.shape[-1]
    return lax.pmin(jnp.where(best == lax.pmax(best, AXIS), where, jnp.iinfo(jnp.int32).max), AXIS)


def attend(q, k, v, mask):
    """q: [..., heads of a KV head, queries, dim], k and v: [..., positions, dim]."""
    scores = jnp.einsum("...gqd,...ld->...gql", q, k, preferred_element_type=jnp.float32) * q.shape[-1] ** -0.5
    weight = jax.nn.softmax(jnp.where(mask, scores, -jnp.inf), -1).astype(q.dtype)
    return jnp.einsum("...gql,...ld->...gqd", weight, v)


def grouped(q, kv_heads):
    """[tokens, heads, dim] to [KV heads, heads of one, tokens, dim]."""
    t, heads, dim = q.shape
    return q.reshape(t, kv_heads, heads // kv_heads, dim).transpose(1, 2, 0, 3)


def ungrouped(out):
    return out.transpose(2, 0, 1, 3).reshape(out.shape[2], -1)


class Contiguous:
    """A cache of [sequences, KV heads, positions, dim] for keys and one for values: what plain attention reads best."""

    spec = P(None, AXIS, None, None)

    def __init__(self, work: Work):
        self.work = work

    def caches(self, mesh):
        work = self.work
        one = shape(mesh, self.spec, jnp.bfloat16, work.cached, work.config["num_key_value_heads"], work.max_model_len, work.head_dim)
        return [(one, one)] * work.layers

    def decode(self, q, k, v, cache, batch):
        at = (jnp.arange(q.shape[0])[:, None], jnp.arange(k.shape[1])[None, :], batch["positions"][:, None])
        keys, values = cache[0].at[at].set(k), cache[1].at[at].set(v)
        seen = jnp.arange(self.work.max_model_len) <= batch["positions"][:, None]
        out = attend(q.reshape(q.shape[0], k.shape[1], -1, 1, q.shape[-1]), keys, values, seen[:, None, None, None, :])
        return out.reshape(q.shape[0], -1), (keys, values)

    def prefill(self, q, k, v, cache, batch):
        keys, values = (lax.dynamic_update_slice(old, new.transpose(1, 0, 2)[None], (batch["slot"], 0, 0, 0))
                        for old, new in zip(cache, (k, v)))
        return self.attend_prompt(q, k, v), (keys, values)

    def attend_prompt(self, q, k, v):
        causal = jnp.tril(jnp.ones((q.shape[0], q.shape[0]), bool))
        return ungrouped(attend(grouped(q, k.shape[1]), k.transpose(1, 0, 2), v.transpose(1, 0, 2), causal))


class Splash(Contiguous):
    """The same cache; a prompt attends in jax's splash attention."""

    def attend_prompt(self, q, k, v):
        from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
        from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

        t, group = q.shape[0], q.shape[1] // k.shape[1]
        blocks = splash.BlockSizes(block_q=512, block_kv=512, block_kv_compute=512)
        mask = masks.MultiHeadMask([masks.CausalMask((t, t))] * group)
        kernel = splash.make_splash_mqa_single_device(mask, block_sizes=blocks)
        scaled = grouped(q * q.shape[-1] ** -0.5, k.shape[1])
        return ungrouped(jax.vmap(kernel)(scaled, k.transpose(1, 0, 2), v.transpose(1, 0, 2)))


class Paged(Contiguous):
    """Pages of keys and values in turns, for jax's ragged paged attention. The kernel writes no cache: a scatter does."""

    spec = P(None, None, AXIS, None)

    def caches(self, mesh):
        work, pages = self.work, self.work.cached * self.work.max_model_len // PAGE
        return [shape(mesh, self.spec, jnp.bfloat16, pages, PAGE, 2 * work.config["num_key_value_heads"], work.head_dim)] * work.layers

    def decode(self, q, k, v, cache, batch):
        from jax.experimental.pallas.ops.tpu.ragged_paged_attention.kernel import ragged_paged_attention

        n, positions = q.shape[0], batch["positions"]
        new = jnp.stack([k, v], 2).reshape(n, -1, q.shape[-1])
        page = batch["pages"][jnp.arange(n), positions // PAGE]
        cache = cache.at[page, positions % PAGE].set(new)
        out = ragged_paged_attention(q, cache, positions + 1, batch["pages"], jnp.arange(n + 1, dtype=jnp.int32),
                                     jnp.full((1,), n, jnp.int32), sm_scale=q.shape[-1] ** -0.5, num_kv_pages_per_block=16,
                                     num_queries_per_block=32, vmem_limit_bytes=64 << 20)
        return out.reshape(n, -1), cache


def batch_of(work: Work, mesh) -> dict:
    i32 = functools.partial(shape, mesh, WHOLE, jnp.int32)
    batch = {"ids": i32(work.tokens), "positions": i32(work.tokens)}
    if work.program == "prefill":
        return batch | {"slot": i32(), "rows": i32(work.sequences)}
    return batch | {"pages": i32(work.sequences, work.max_model_len // PAGE)}


def build(work: Work, mesh, kind: str):
    """(function, shapes of its arguments, numbers of those that are donated, options of the compiler)."""
    kinds = {"plain": Contiguous, "kernels": Paged if work.program == "decode" else Splash}
    attention = kinds[kind](work)
    pretend_chip(work, mesh.size, work.config["num_key_value_heads"] // mesh.size if kinds[kind] is Splash else 1)
    eps, dim = work.config["rms_norm_eps"], work.head_dim

    def layer(w, x, cache, batch, cos, sin):
        y = rms_norm(x, w["norm1"], eps)
        q, k, v = (jnp.dot(y, w[name]).reshape(x.shape[0], -1, dim) for name in "qkv")
        attended, cache = getattr(attention, work.program)(rotate(q, cos, sin), rotate(k, cos, sin), v, cache, batch)
        x = x + lax.psum(jnp.dot(attended, w["o"]), AXIS)
        y = rms_norm(x, w["norm2"], eps)
        return x + lax.psum(jnp.dot(jax.nn.silu(jnp.dot(y, w["gate"])) * jnp.dot(y, w["up"]), w["down"]), AXIS), cache

    def step(params, caches, batch):
        x = embed(params["embed"], batch["ids"])
        cos, sin = angles(work, batch["positions"])
        new = []
        for w, cache in zip(params["layers"], caches):
            x, cache = layer(w, x, cache, batch, cos, sin)
            new.append(cache)
        if work.program == "prefill":
            x = x[batch["rows"]]
        return greedy(jnp.dot(rms_norm(x, params["norm"], eps), params["head"], preferred_element_type=jnp.float32)), new

    arguments = weights(work, mesh), attention.caches(mesh), batch_of(work, mesh)
    specs = jax.tree.map(lambda one: one.sharding.spec, arguments)
    return jax.shard_map(step, mesh=mesh, in_specs=specs, out_specs=(WHOLE, specs[1]), check_vma=False), arguments, (1,), {}
