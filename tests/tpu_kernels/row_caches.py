"""Caches of rows (row_cache in the operator's header) made of numbers, and numbers made of them."""

import jax.numpy as jnp
import kernels
import numpy as np


def quantized(x):
    """int8 elements of heads [.., size], and the scale of each."""
    x = np.asarray(x, np.float32)
    most = np.abs(x).max(-1, keepdims=True)
    some = most > 1e-30
    with np.errstate(divide="ignore"):
        inverse = np.where(some, np.float32(127) / most, 0).astype(np.float32)
    return np.round(x * inverse).astype(np.int8), np.where(some, most * np.float32(1 / 127), 0).astype(np.float32)


def held(x, dtype):
    """Heads [.., size] as a cache of this type holds them, in f32."""
    if dtype == "i8":
        elements, scales = quantized(x)
        return elements.astype(np.float32) * scales
    if dtype == "f8E4M3FN":
        x = np.clip(np.asarray(x, np.float32), -448, 448)
    return x.astype(kernels.DTYPES[dtype]).astype(np.float32)


def width_of(slots, dim):
    return min(slots, dim, 128)


def packed(numbers, dtype, shape, shared):
    """Numbers [pages, slots, heads, dim] as a cache of rows, [pages, groups, r, row]."""
    pages, slots, heads, dim = numbers.shape
    together, row = shape[2:]
    scales = None
    if dtype == "i8":
        numbers, scales = quantized(numbers)
        if shared:
            numbers = np.concatenate([numbers, scales.view(np.int8).reshape(pages, slots, heads, 4)], axis=3)
    rows = numbers.reshape(pages, slots, -1).astype(kernels.DTYPES[dtype])
    rows = np.pad(rows, ((0, 0), (0, 0), (0, row - rows.shape[2]))).reshape(pages, slots // together, together, row)
    if scales is None or shared:
        return rows
    width = width_of(slots, dim)
    words = np.zeros((pages, shape[1] - rows.shape[1], heads, dim), np.float32)
    for i in range(slots):
        words[:, i // width, :, i % width] = scales[:, i, :, 0]
    behind = words.reshape(pages, -1, row).view(np.int8).reshape(pages, -1, row, 4)
    return np.concatenate([rows, np.swapaxes(behind, 2, 3)], axis=1)


def unpacked(cache, dtype, slots, heads, dim, shared):
    """The numbers of `packed`, in f32."""
    pages, _, together, row = cache.shape
    groups = slots // together
    rows = np.ascontiguousarray(cache[:, :groups]).reshape(pages, slots, row)
    numbers = rows[:, :, : heads * dim].reshape(pages, slots, heads, dim).astype(np.float32)
    if dtype != "i8":
        return numbers
    if shared:
        return numbers * np.ascontiguousarray(rows[:, :, row - 4 :]).view(np.float32)[..., None]
    behind = np.ascontiguousarray(np.swapaxes(cache[:, groups:], 2, 3)).view(np.float32).reshape(pages, -1, heads, dim)
    width = width_of(slots, dim)
    return numbers * np.stack([behind[:, i // width, :, i % width] for i in range(slots)], axis=1)[..., None]


def random_numbers(rng, dtype, *dims):
    x = rng.standard_normal(dims).astype(jnp.bfloat16)
    return held(x, dtype)
