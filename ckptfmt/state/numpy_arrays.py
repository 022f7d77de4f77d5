"""Arrays of numpy: from an array to a source of bytes, and from the memory of a row to an array. Spec 9.1.

Arrays share memory when their addresses intersect. Loaded arrays are writable views of the row's memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING, Any

from ckptfmt.format.layout import MAX_DIMENSION
from ckptfmt.state.decode_walk import DecodeWalk
from ckptfmt.state.encode_leaves import TensorLeaf
from ckptfmt.state.encode_walk import EncodeWalk
from ckptfmt.state.numpy_dtypes import dtype_of, element_type, require_numpy
from ckptfmt.state.places import Place, refuse, too_large, wrong
from ckptfmt.state.row_memory import Row, Strides, checked_view
from ckptfmt.state.tensors import LiveTensor, RangeSource, dense_strides, plan_pieces, row_major_strides

if TYPE_CHECKING:
    import numpy as np


class ArraySource(LiveTensor):
    """An array of numpy."""

    __slots__ = ("_array",)

    def __init__(self, dtype: str, shape: tuple[int, ...], array: np.ndarray[Any, Any]) -> None:
        super().__init__(dtype, shape, array.nbytes)
        self._array = array

    def memory(self) -> memoryview | None:
        return array_bytes(self._array) if self._array.flags.c_contiguous else None

    def pieces(self, block_bytes: int) -> Iterator[memoryview]:
        import numpy

        for index in plan_pieces(self.shape, self._array.itemsize, block_bytes):
            yield array_bytes(numpy.ascontiguousarray(self._array[(*index, ...)]))


def array_bytes(array: np.ndarray[Any, Any]) -> memoryview:
    """Return the bytes of an array in C order as they lie in memory."""
    import numpy

    octets: Any = array.reshape(-1).view(numpy.uint8) if array.nbytes else b""
    return memoryview(octets)


def encode_array(walk: EncodeWalk, array: np.ndarray[Any, Any], place: Place) -> dict[str, Any]:
    """Encode a reference to an array; a memory map is the array that it maps."""
    import numpy

    if place.is_key:
        raise refuse(place, "an array cannot be a key or an element of a set", "Use a tuple of numbers instead.")
    given, array = array, array.view(numpy.ndarray)
    name = element_type(array.dtype, place)
    shape = array.shape
    if max(shape, default=0) >= MAX_DIMENSION:
        raise too_large(shape, place)
    itemsize = array.itemsize
    attributes: dict[str, Any] = {}
    strides = array.strides
    is_viewable = bool(itemsize) and all(step % itemsize == 0 for step in strides)
    if is_viewable and array.size:
        strides = tuple(step // itemsize for step in strides)
        order = dense_strides(shape, strides)
        if order is not None and order != row_major_strides(shape):
            attributes["strides"] = list(order)
    space, address, start, stop = _range(array, given, is_viewable=is_viewable)
    is_row_major = array.flags.c_contiguous
    reference = [-1, "numpy", attributes]
    source = ArraySource(name, shape, array)
    walk.leaves.append(
        TensorLeaf(space, address, start, stop, name, shape, strides, is_row_major, start, 1, reference, source, place, given),
    )
    return {"$tensor": reference}


def range_source(leaves: list[TensorLeaf], start: int, stop: int) -> LiveTensor:
    """Return the source for bytes that several arrays view."""
    return RangeSource(start, stop - start, [leaf.owner for leaf in leaves])


def _range(array: np.ndarray[Any, Any], given: Any, *, is_viewable: bool) -> tuple[Any, int, int, int]:
    if not array.nbytes:
        return ("numpy", id(given)), 0, 0, 0
    address = array.__array_interface__["data"][0]
    if not is_viewable:
        return "numpy", address, 0, 0
    reach = [(size - 1) * step for size, step in zip(array.shape, array.strides, strict=True)]
    start = address + sum(step for step in reach if step < 0)
    stop = address + sum(step for step in reach if step > 0) + array.itemsize
    return "numpy", address, start, stop


def decode_array(walk: DecodeWalk, row: Row, kind: str, attributes: dict[str, Any], place: Place) -> Any:
    """Rebuild an array on the memory of a row."""
    numpy = require_numpy(place)
    if not attributes.keys() <= {"view", "strides"} or len(attributes) > 1:
        raise wrong(place, "attributes are wrong", expected="view or strides", found=", ".join(map(str, attributes)))
    if "view" in attributes:
        view = checked_view(attributes["view"], row, place)
        dtype = dtype_of(view.dtype, place)
        row.settle_order(None, _rearranged, place)
        offset, shape, strides = view.offset, view.shape, view.strides
    else:
        dtype = dtype_of(row.dtype, place)
        row.settle_order(attributes.get("strides"), _rearranged, place)
        offset, shape, strides = 0, row.shape, row.strides or row_major_strides(row.shape)
    try:
        if not prod(shape) * dtype.itemsize:
            return numpy.ndarray(shape, dtype)
        return numpy.ndarray(shape, dtype, row.data, offset, tuple(step * dtype.itemsize for step in strides))
    except (ValueError, OverflowError, MemoryError) as error:
        raise wrong(place, f"array cannot be rebuilt: {error}", rule="E028") from None


def _rearranged(row: Row, strides: Strides) -> memoryview:
    import numpy

    opaque = numpy.dtype(f"V{row.itemsize}")
    target = memoryview(bytearray(row.data.nbytes))
    ordered = numpy.ndarray(row.shape, opaque, target, 0, tuple(step * row.itemsize for step in strides))
    ordered[...] = numpy.ndarray(row.shape, opaque, row.data)
    return target
