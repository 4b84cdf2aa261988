"""The chips that kernels are lowered for, and what fits on them."""

import jax
import jax.numpy as jnp
from jax._src.pallas.mosaic import tpu_info

CHIPS = {"v5e": ("TPU v5 lite", 5), "v5p": ("TPU v5p", 5), "v6e": ("TPU v6 lite", 6), "tpu7x": ("TPU7x", 7)}
DTYPES = {"bf16": jnp.bfloat16, "f32": jnp.float32, "f8E4M3FN": jnp.float8_e4m3fn, "i8": jnp.int8}


class Refused(Exception):
    """The kernel does not do this, or it does not fit; the text says why."""


def pretend(chip):
    """What is asked of the device here is answered as the chip would."""
    tpu_info.get_device_kind = lambda: CHIPS[chip][0]
    tpu_info.get_num_device_cores = lambda: 1


def vmem_bytes():
    return tpu_info.get_tpu_info().vmem_capacity_bytes


def power_of_2(x):
    return 1 << (max(1, int(x)).bit_length() - 1)


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
