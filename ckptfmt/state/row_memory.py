"""The memory of the rows to which a packed tree refers, and what may be built on it. Spec 9.1.

Each row is asked for once. All bounds are computed with Python's integers before any library sees the memory. A row
whose tensors have a memory order other than the stored one is rearranged at its first reference; all references to a
row agree about that order, because they share its memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, NamedTuple

from ckptfmt.errors import CheckpointError
from ckptfmt.format.dtypes import SIZES, itemsize_bytes
from ckptfmt.format.layout import MAX_DIMENSION, is_shape
from ckptfmt.state.places import Place, wrong
from ckptfmt.state.tensors import TensorMemory, is_dense_order

Strides = tuple[int, ...]


class Row:
    """One row: its memory, the order in which its elements lie there (None: C order), and what was built on it before.

    `base` holds the storage of torch on this memory; `is_base_whole` says that it is the row's tensor itself.
    """

    __slots__ = ("_is_ordered", "base", "built", "data", "dtype", "is_base_whole", "itemsize", "shape", "strides")

    def __init__(self, memory: TensorMemory, itemsize: int) -> None:
        self.dtype = memory.dtype
        self.shape = memory.shape
        self.data = memory.data
        self.itemsize = itemsize
        self.strides: Strides | None = None
        self._is_ordered = False
        self.base: Any = None
        self.is_base_whole = False
        self.built: dict[Any, Any] | None = None

    def settle_order(self, strides: Any, rearranged: Callable[[Row, Strides], memoryview], place: Place) -> None:
        """Bring the elements into the order that a reference names; None is C order."""
        if strides is not None:
            strides = _checked_strides(strides, self, place)
        if not self._is_ordered:
            self._is_ordered = True
            self.strides = strides
            if strides is not None and self.data.nbytes:
                self.data = rearranged(self, strides)
        elif strides != self.strides:
            raise wrong(place, "references to one tensor differ in strides", expected=self.strides, found=strides, rule="E028")


class ReadyRows(NamedTuple):
    """Rows whose memory can be had without asking for each: that of `row` lies at `offsets[row]` of `memories[row]`, if that is not None.

    `dtypes`, `shapes` and `sizes` are the columns of the tensor index, which agree with each other.
    """

    dtypes: Sequence[str]
    shapes: Sequence[tuple[int, ...]]
    sizes: Sequence[int]
    memories: Sequence[memoryview | None]
    offsets: Sequence[int]

    def find(self, row: int) -> TensorMemory | None:
        """Return the memory of one row, None if it is not ready."""
        memory = self.memories[row]
        if memory is None:
            return None
        begin = self.offsets[row]
        return TensorMemory(self.dtypes[row], self.shapes[row], memory[begin : begin + self.sizes[row]])


class View(NamedTuple):
    """A view of a row's memory: element type, shape, and strides in elements from `offset` in bytes."""

    offset: int
    dtype: str
    itemsize: int
    shape: tuple[int, ...]
    strides: Strides


class RowTable:
    """The rows that have been asked for so far."""

    __slots__ = ("_rows", "_tensor_of")

    def __init__(self, tensor_of: Callable[[int], TensorMemory]) -> None:
        self._tensor_of = tensor_of
        self._rows: dict[int, Row] = {}

    def row(self, number: int, place: Place) -> Row:
        """Return the row of this number.

        Raises:
            CorruptError: there is no such row, or its memory is not of its size.
        """
        row = self._rows.get(number)
        if row is None:
            try:
                memory = self._tensor_of(number)
            except LookupError as error:
                if isinstance(error, CheckpointError):
                    raise
                raise wrong(place, "no such row in the tensor index", found=number, rule="E028") from None
            itemsize = SIZES.get(memory.dtype) or checked_itemsize(memory.dtype, place)
            if memory.data.nbytes != prod(memory.shape) * itemsize:
                raise wrong(place, "size differs from shape and element type", found=memory.data.nbytes, rule="E043")
            row = self._rows[number] = Row(memory, itemsize)
        return row


def checked_itemsize(dtype: Any, place: Place) -> int:
    """Return the bytes of one element of an element type."""
    if type(dtype) is not str:
        raise wrong(place, "payload is wrong", expected="an element type", found=dtype)
    try:
        return itemsize_bytes(dtype)
    except KeyError:
        raise wrong(place, "unknown element type", found=dtype, rule="E042") from None


def checked_view(payload: Any, row: Row, place: Place) -> View:
    """Return the view that a payload describes; all of its elements lie inside the row."""
    if type(payload) is not list or len(payload) != 4:
        raise wrong(place, "view is wrong", expected="[offset, dtype, shape, strides]", found=payload)
    offset, dtype, shape, strides = payload
    itemsize = checked_itemsize(dtype, place)
    if not is_shape(shape) or not _is_strides(strides) or len(strides) != len(shape) or type(offset) is not int:
        raise wrong(place, "view is wrong", expected="offset, shape and strides of one rank", rule="E028")
    first = offset + itemsize * sum(min(0, (size - 1) * stride) for size, stride in zip(shape, strides, strict=True))
    last = offset + itemsize * sum(max(0, (size - 1) * stride) for size, stride in zip(shape, strides, strict=True))
    if 0 in shape:
        first, last = offset, offset - itemsize
    size_bytes = row.data.nbytes
    if first < 0 or last + itemsize > size_bytes:
        found = f"{first} to {last + itemsize}"
        raise wrong(place, "view is out of range", expected=f"within {size_bytes} bytes", found=found, rule="E028")
    return View(offset, dtype, itemsize, tuple(shape), tuple(strides))


def _checked_strides(strides: Any, row: Row, place: Place) -> Strides:
    if not _is_strides(strides) or len(strides) != len(row.shape) or not is_dense_order(row.shape, tuple(strides)):
        raise wrong(place, "strides are wrong", expected="a dense order of the axes", found=strides, rule="E028")
    return tuple(strides)


def _is_strides(strides: Any) -> bool:
    return type(strides) is list and all(type(stride) is int and -MAX_DIMENSION < stride < MAX_DIMENSION for stride in strides)
