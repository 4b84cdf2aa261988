"""Attention of whole sequences and its gradient, by jax's splash attention: the heads of all sequences beside each other.

A key (see kernels.py) has for these
  kernel                "sequence_attention", or "sequence_attention_gradient"
  sequences, length, q_heads, kv_heads, head_dim, value_dim, dtype
  scale, causal, window (0: none), soft_cap (0: none), sinks
  pairs                 of a query and a key that it sees, in one head of one sequence

Queries are multiplied with `scale` first, and rounded.
"""

import functools

import jax.numpy as jnp
from chips import DTYPES, LANES, Refused, divisor, priced, scoped_vmem, shape, vmem_bytes
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

BLOCK, AT_ONCE = 1024, 512  # queries or keys of a block, and keys that are multiplied at once
MOST_PARTS = 4  # sums of the gradient of queries, one for each block of keys, that may be kept


def mask_of(key):
    """Of one head: it stands for all."""
    size = (key["length"], key["length"])
    if key["window"]:
        mask = masks.LocalMask(size, (key["window"] - 1, 0 if key["causal"] else None), 0)
    else:
        mask = masks.CausalMask(size) if key["causal"] else masks.FullMask(size)
    return masks.MultiHeadMask([mask])


def blocks_of(key):
    """Block sizes, and the VMEM that the larger kernel takes.

    A block that is seen in part is computed in full: longer ones cost more than they save. The gradient of queries is
    computed with the others where it has few parts, else by a kernel of its own that computes scores again.
    """
    length, window = key["length"], key["window"]
    d, dv = (-(-key[k] // LANES) * LANES for k in ("head_dim", "value_dim"))
    gradient = key["kernel"] != "sequence_attention"
    queries = keys = min(BLOCK, max(2 * LANES, window)) if window else BLOCK
    if gradient and not window and BLOCK < length // MOST_PARTS <= 2 * BLOCK:
        keys = length // MOST_PARTS
    while True:
        q, k = divisor(length, queries), divisor(length, keys)
        c, k_dq = divisor(k, AT_ONCE), divisor(k, BLOCK)
        together = not window and length // k <= MOST_PARTS
        rows = 2 * (q + k) * (d + dv) + 8 * q * LANES  # logarithms and positions too
        sums = 8 * q * LANES + 4 * (q + k) * (d + dv)
        need = 2 * rows + sums + 4 * q * (6 * (c if together else k_dq) if gradient else 3 * c)
        if need <= vmem_bytes() // 2:
            break
        if q == k == LANES:
            raise Refused(f"heads of {key['head_dim']} and {key['value_dim']} take {need / 2**20:.1f} MiB of VMEM with "
                          f"the smallest blocks, of {vmem_bytes() / 2**20:.0f} MiB")
        queries, keys = max(LANES, q // 2), max(LANES, k // 2)
    apart = {} if together else {"block_q_dq": q, "block_kv_dq": k_dq}
    sizes = splash.BlockSizes(
        block_q=q, block_kv=k, block_kv_compute=c, block_q_dkv=q, block_kv_dkv=k, block_kv_dkv_compute=c,
        use_fused_bwd_kernel=together, **apart)  # fmt: skip
    return sizes, need


def work_of(key, together):
    """Flops of a kernel by its name: products of scores and of the gradients of q, k, v and the weights."""
    d, dv = key["head_dim"], key["value_dim"]
    pairs = 2 * key["pairs"] * key["q_heads"] * key["sequences"]
    flops = {"fwd": d + dv, "dq": 2 * d + dv, "dkv": (3 if together else 2) * d + 2 * dv}
    tokens = key["sequences"] * key["length"]
    moved = 2 * tokens * (key["q_heads"] + key["kv_heads"]) * (d + dv)

    def work(name):
        return pairs * flops[name.split("_")[2]], moved

    return work


def add_parts(made):
    """The sum of the parts in the place of the gradient of queries, which jax reduces: XLA takes that ten times as long."""
    if len(made) != 6 or made[3] is None:
        return made
    parts = [part.astype(jnp.float32) for part in made[3]]
    return [*made[:3], functools.reduce(jnp.add, parts)[None], *made[4:]]


def heads_first(x, length):
    """[tokens, heads, size] as [sequences * heads, length, size]."""
    tokens, heads, size = x.shape
    return x.reshape(-1, length, heads, size).swapaxes(1, 2).reshape(-1, length, size)


def tokens_first(x, sequences):
    heads, length, size = x.shape
    return x.reshape(sequences, -1, length, size).swapaxes(1, 2).reshape(sequences * length, -1, size)


def build(key):
    """(function, shapes of its arguments): q, k, v and sinks to output and logarithm; or these all and the gradient of
    the output to those of q, k, v and sinks."""
    n, length, heads, kv_heads = (key[k] for k in ("sequences", "length", "q_heads", "kv_heads"))
    tokens, dtype = n * length, DTYPES[key["dtype"]]
    sizes, need = blocks_of(key)
    priced(work_of(key, sizes.use_fused_bwd_kernel), scoped_vmem(need), add_parts)
    call = splash.make_splash_mha(
        mask_of(key), block_sizes=sizes, save_residuals=True, attn_logits_soft_cap=key["soft_cap"] or None,
        head_shards=1, q_seq_shards=1)  # fmt: skip

    def operands(q, k, v, sinks):
        q = (q.astype(jnp.float32) * key["scale"]).astype(dtype)
        return [*(heads_first(x, length) for x in (q, k, v)), None, jnp.tile(sinks[0], n) if sinks else None]

    def forward(q, k, v, *sinks):
        output, (logarithm,) = call(*operands(q, k, v, sinks))
        return tokens_first(output, n), logarithm.reshape(n, heads, length)

    def backward(q, k, v, *rest):
        *sinks, output, logarithm, d_output = rest
        given = operands(q, k, v, sinks)
        output, d_output = heads_first(output, length), heads_first(d_output, length)
        logarithm = logarithm.reshape(-1, length)
        options = {k: x for k, x in call.kwargs.items() if k not in ("save_residuals", "residual_checkpoint_name")}
        made = splash._splash_attention_bwd(
            save_residuals=False, residual_checkpoint_name=None, do=d_output, **options,
            res=(*given, output, logarithm, call.dq_mask_info, call.dkv_mask_info))  # fmt: skip
        d_q, d_k, d_v = (tokens_first(x, n) for x in made[3:6])
        gradients = [(d_q.astype(jnp.float32) * key["scale"]).astype(dtype), d_k, d_v]
        if sinks:
            shared = (output.astype(jnp.float32) * d_output.astype(jnp.float32)).sum(-1)
            each = -jnp.exp(given[4][:, None] - logarithm) * shared
            gradients.append(each.reshape(n, heads, length).sum((0, 2)))
        return tuple(gradients)

    arguments = [shape(dtype, tokens, heads, key["head_dim"]), shape(dtype, tokens, kv_heads, key["head_dim"]),
                 shape(dtype, tokens, kv_heads, key["value_dim"])]  # fmt: skip
    if key["sinks"]:
        arguments.append(shape(jnp.float32, heads))
    if key["kernel"] == "sequence_attention":
        return forward, arguments
    output = shape(dtype, tokens, heads, key["value_dim"])
    return backward, [*arguments, output, shape(jnp.float32, n, heads, length), output]
