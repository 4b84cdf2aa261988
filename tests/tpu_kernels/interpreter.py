"""Teaches jax's interpreter of Mosaic kernels memory that is seen through reshapes and bitcasts.

jax 0.10's takes slices alone. Here every element of such a view is found by the places of its bytes, so that reads and
writes go through the interpreter's own of the whole buffer.
"""

import sys

import jax
import numpy as np
from jax._src.pallas.mosaic.interpret import interpret_pallas_call as interpreter
from jax._src.pallas.mosaic.interpret import utils
from jax._src.state import types as state


def bytes_of(array):
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def places(array, transforms):
    """The byte places in `array` of each element of the view, in a last dimension, and the view's dtype."""
    dtype = np.dtype(array.dtype)
    at = np.arange(array.nbytes).reshape(array.shape + (dtype.itemsize,))
    for transform in transforms:
        if isinstance(transform, state.ReshapeTransform):
            at = at.reshape(tuple(transform.shape) + at.shape[-1:])
        elif isinstance(transform, state.BitcastTransform):
            wider = np.dtype(transform.dtype)
            factor = wider.itemsize // dtype.itemsize  # rows that lie together in a lane, the first lowest
            *outer, rows, lanes, size = at.shape
            at = at.reshape(*outer, rows // factor, factor, lanes, size)
            at = np.moveaxis(at, -3, -2).reshape(*outer, rows // factor, lanes, factor * size)
            dtype = wider
        else:
            at = at[tuple(utils._transform_slice_or_index(index) for index in transform.indices)]
    return at, dtype


def is_plain(transforms):
    return not any(isinstance(t, (state.ReshapeTransform, state.BitcastTransform)) for t in transforms)


def install():
    get, store, swap = (getattr(interpreter, name).__wrapped__ for name in ("get", "store", "swap"))

    def read(place, transforms, **options):
        _, whole = get(*place, (), **options)
        at, dtype = places(whole, transforms)
        taken = np.ascontiguousarray(bytes_of(whole)[at])
        return whole, at, taken.view(dtype).reshape(at.shape[:-1])

    def write(place, whole, at, value, **options):
        data = bytes_of(whole).copy()
        data[at] = bytes_of(value).reshape(at.shape)
        return store(*place, (), data.view(whole.dtype).reshape(whole.shape), **options)

    def get_view(token, device, core, space, buffer, transforms, *rest, **options):
        if is_plain(transforms):
            return get(token, device, core, space, buffer, transforms, *rest, **options)
        transforms = jax.tree.map(int, transforms)
        return token, read((token, device, core, space, buffer), transforms, **options)[2]

    def store_view(token, device, core, space, buffer, transforms, value, *rest, **options):
        if is_plain(transforms):
            return store(token, device, core, space, buffer, transforms, value, *rest, **options)
        place = (token, device, core, space, buffer)
        whole, at, _ = read(place, jax.tree.map(int, transforms), **options)
        return write(place, whole, at, np.asarray(value), **options)

    def swap_view(token, device, core, space, buffer, transforms, value, mask, **options):
        if is_plain(transforms):
            return swap(token, device, core, space, buffer, transforms, value, mask, **options)
        place = (token, device, core, space, buffer)
        whole, at, before = read(place, jax.tree.map(int, transforms), **options)
        value = np.asarray(value) if mask is None else np.where(mask, value, before)
        return write(place, whole, at, value, **options), before

    for name, function in (("get", get_view), ("store", store_view), ("swap", swap_view)):
        setattr(interpreter, name, interpreter.fail_on_exception(function))


def run(cases, check):
    """check(name, case, random numbers) of every case, or of those whose names have a word of the command line. Exit code 1
    when one says no."""
    install()
    rng = np.random.default_rng(1)
    wanted = sys.argv[1:]
    chosen = {name: case for name, case in cases.items() if not wanted or any(w in name for w in wanted)}
    return 0 if all([check(name, case, rng) for name, case in chosen.items()]) else 1
