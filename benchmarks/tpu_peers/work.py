"""What a program is asked to do, the same for everybody, and what the kernels in it are told about the chip."""

import sys
from dataclasses import dataclass

import jax
from jax._src.pallas.mosaic import tpu_info
from jax.experimental import pallas as pl

CHIPS = {"v5e": ("TPU v5 lite", 5), "v5p": ("TPU v5p", 5), "v6e": ("TPU v6 lite", 6), "tpu7x": ("TPU7x", 7)}


@dataclass(frozen=True)
class Work:
    """A step: `decode` is one token for each of the sequences, `prefill` one prompt; caches are full at its end.

    The cache of a prefill is that of its prompt: the reader takes a kernel to read all of the cache that it is given.
    """

    program: str
    topology: str
    layers: int
    config: dict  # config.json
    prompt: int  # tokens of a prefill
    sequences: int
    max_model_len: int

    @property
    def chip(self) -> str:
        return self.topology.split(":")[0]

    @property
    def tokens(self) -> int:
        return self.sequences if self.program == "decode" else self.prompt

    @property
    def cached(self) -> int:
        """Sequences that the cache has room for."""
        return self.sequences if self.program == "decode" else 1

    @property
    def head_dim(self) -> int:
        return self.config["hidden_size"] // self.config["num_attention_heads"]

    def attention_flops(self, devices: int) -> float:
        """Of one layer on one device: each query meets every position it sees."""
        met = self.tokens * self.max_model_len
        if self.program == "prefill":
            met -= self.prompt * (self.prompt - 1) // 2
        return 4.0 * self.config["num_attention_heads"] / devices * self.head_dim * met


def price_kernels(flops: float, idle: str) -> None:
    """Every kernel carries these flops in its cost estimate, but those whose name begins with `idle`."""
    original = pl.pallas_call

    def call(*args, **kwargs):
        works = not (kwargs.get("name") or "").startswith(idle)
        kwargs["cost_estimate"] = pl.CostEstimate(flops=int(flops) if works else 0, bytes_accessed=0, transcendentals=0)
        return original(*args, **kwargs)

    pl.pallas_call = call


def pretend_chip(work: Work, devices: int, batched: int = 1) -> None:
    """Kernels that ask what the device here is hear of the topology's chip, and all carry the same cost estimate.

    A kernel under vmap (`batched` times) has its estimate multiplied by jax. Of tpu-inference's two calls one has nothing to do in a step.
    """
    kind, version = CHIPS[work.chip]
    tpu_info.get_device_kind = lambda: kind
    tpu_info.get_num_device_cores = lambda: 1
    theirs = sys.modules.get("tpu_inference.kernels.ragged_paged_attention.v3.kernel")
    if theirs:
        theirs.get_tpu_version = lambda: version
    price_kernels(work.attention_flops(devices) / batched, "RPAm" if work.program == "decode" else "RPAd")


def shape(mesh, spec, dtype, *dims) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(dims, dtype, sharding=jax.NamedSharding(mesh, spec))
