"""The chips that kernels are lowered for, and what fits on them."""

import dataclasses

import jax
import jax.numpy as jnp
from jax._src.pallas.mosaic import tpu_info
from jax.experimental import pallas as pl

CHIPS = {"v5e": ("TPU v5 lite", 5), "v5p": ("TPU v5p", 5), "v6e": ("TPU v6 lite", 6), "tpu7x": ("TPU7x", 7)}
DTYPES = {"bf16": jnp.bfloat16, "f32": jnp.float32, "f8E4M3FN": jnp.float8_e4m3fn, "i8": jnp.int8,
          "i4": jnp.int4, "f4E2M1FN": jnp.float4_e2m1fn}  # fmt: skip
LANES = 128


class Refused(Exception):
    """The kernel does not do this, or it does not fit; the text says why."""


def pretend(chip):
    """What is asked of the device here is answered as the chip would."""
    tpu_info.get_device_kind = lambda: CHIPS[chip][0]
    tpu_info.get_num_device_cores = lambda: 1


def vmem_bytes():
    return tpu_info.get_tpu_info().vmem_capacity_bytes


def priced(work, vmem_limit=None, then=None):
    """pallas_call with the cost that work(name) tells, flops and bytes; where they are given with room for blocks of
    the kernel's own, and with what `then` makes of its results."""
    original = getattr(pl.pallas_call, "original", pl.pallas_call)

    def call(*args, **kwargs):
        flops, moved = work(kwargs.get("name") or "")
        kwargs["cost_estimate"] = pl.CostEstimate(flops=int(flops), bytes_accessed=int(moved), transcendentals=0)
        if vmem_limit:
            kwargs["compiler_params"] = dataclasses.replace(kwargs["compiler_params"], vmem_limit_bytes=vmem_limit)
        kernel = original(*args, **kwargs)
        return (lambda *operands: then(kernel(*operands))) if then else kernel

    call.original = original
    pl.pallas_call = call


def power_of_2(x):
    return 1 << (max(1, int(x)).bit_length() - 1)


def divisor(x, most):
    """The largest multiple of LANES that divides x and is at most `most`."""
    return max(d for d in range(LANES, max(LANES, int(most)) + 1, LANES) if x % d == 0)


def fitted(estimate, queries, pages, what):
    """Halves the blocks of queries and of pages until they take at most half of VMEM."""
    while True:
        need = estimate(queries, pages)
        if need <= vmem_bytes() // 2:
            return queries, pages
        if queries == 1 and pages == 1:
            raise Refused(f"{what} takes {need / 2**20:.1f} MiB of VMEM with the smallest blocks, "
                          f"of {vmem_bytes() / 2**20:.0f} MiB")
        if pages > 1 and (queries == 1 or need > 2 * vmem_bytes()):
            pages //= 2
        else:
            queries //= 2


def scoped_vmem(need):
    """What a call may take: twice the estimate. In the rest the compiler puts the weights that it fetches meanwhile."""
    return min(2 * int(need) + (8 << 20), vmem_bytes() * 7 // 8)


def check_smem(need):
    have = tpu_info.get_tpu_info().smem_capacity_bytes
    if need > have // 2:
        raise Refused(f"the table of pages takes {need / 2**10:.0f} KiB of SMEM, of {have / 2**10:.0f} KiB, half of it "
                      "for a kernel; use larger blocks of the cache or fewer sequences")


def shape(dtype, *dims):
    return jax.ShapeDtypeStruct(dims, dtype)
