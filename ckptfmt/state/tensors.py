"""The waist between what is saved and how its bytes move: a source of bytes for a tensor, and memory to rebuild one from.

A source is cheap and holds the application's tensor, never a copy. Where the bytes lie in C order in the memory of this
process it hands them out as they are; everything else (strided, expanded, on a device) is materialised in pieces.
No library is named here; one subclass for each lives beside its library's leaves.
"""

from __future__ import annotations

import ctypes
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any, Protocol

_READ_ONLY = 0x100
_BLOCK_BYTES = 8 * 2**20
_memory_at = ctypes.pythonapi.PyMemoryView_FromMemory
_memory_at.restype = ctypes.py_object
_memory_at.argtypes = (ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int)

Index = tuple[Any, ...]


@dataclass(slots=True)
class TensorMemory:
    """The bytes of one row of the tensor index: writable, one-dimensional, format "B", in C order of the shape."""

    dtype: str
    shape: tuple[int, ...]
    data: memoryview


class TensorSource(Protocol):
    """One tensor to be stored.

    `keys` is the path of the first reference, `aliases` are the paths of further references to exactly this tensor. References
    that view a part of its memory, or view it in another way, are in the tree only. `dtype` is of spec 9.2.
    """

    @property
    def keys(self) -> tuple[str, ...]: ...

    @property
    def aliases(self) -> Sequence[tuple[str, ...]]: ...

    @property
    def dtype(self) -> str: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def size_bytes(self) -> int: ...

    def memory(self) -> memoryview | None:
        """Return the tensor's own bytes without a copy, valid while this source lives; None where they have to be gathered."""

    def blocks(self, block_bytes: int) -> Iterator[memoryview]:
        """Yield all bytes in C order: the memory as one block, or pieces of at most `block_bytes`, each valid until the next."""


class LiveTensor(ABC):
    """A source over a tensor of the application. `keys` and `aliases` are set when all of the tree is known."""

    __slots__ = ("aliases", "dtype", "keys", "shape", "size_bytes")

    def __init__(self, dtype: str, shape: tuple[int, ...], size_bytes: int) -> None:
        self.keys: tuple[str, ...] = ()
        self.aliases: Sequence[tuple[str, ...]] = ()
        self.dtype = dtype
        self.shape = shape
        self.size_bytes = size_bytes

    @abstractmethod
    def memory(self) -> memoryview | None:
        """Return the bytes without a copy, or None."""

    @abstractmethod
    def pieces(self, block_bytes: int) -> Iterator[memoryview]:
        """Yield the bytes of a tensor without `memory`, gathered in pieces."""

    def blocks(self, block_bytes: int) -> Iterator[memoryview]:
        """Yield all bytes in C order."""
        memory = self.memory()
        if memory is not None:
            yield memory
        elif self.size_bytes:
            yield from self.pieces(block_bytes)


class RangeSource(LiveTensor):
    """The bytes of a range of addresses in this process, as a tensor of uint8; `owners` keep them alive."""

    __slots__ = ("_address", "_owners")

    def __init__(self, address: int, size_bytes: int, owners: list[Any]) -> None:
        super().__init__("uint8", (size_bytes,), size_bytes)
        self._address = address
        self._owners = owners

    def memory(self) -> memoryview:
        return memory_at(self._address, self.size_bytes)

    def pieces(self, block_bytes: int) -> Iterator[memoryview]:
        yield self.memory()


def copy_sources(sources: Iterable[TensorSource], target: memoryview) -> None:
    """Copy the bytes of any sources, one after the other."""
    filled = 0
    for source in sources:
        for block in source.blocks(_BLOCK_BYTES):
            target[filled : filled + len(block)] = block
            filled += len(block)


def memory_at(address: int, size_bytes: int) -> memoryview:
    """Return a read-only view of memory of this process. Whoever asks keeps its owner alive."""
    view: memoryview = _memory_at(address, size_bytes, _READ_ONLY) if size_bytes else memoryview(b"")
    return view


def plan_pieces(shape: tuple[int, ...], itemsize_bytes: int, block_bytes: int) -> Iterator[Index]:
    """Yield indices that cut a tensor into consecutive pieces of its C order, each of at most `block_bytes` or one element."""
    inner_bytes = itemsize_bytes
    axis = len(shape)
    while axis > 0 and inner_bytes * shape[axis - 1] <= block_bytes:
        axis -= 1
        inner_bytes *= shape[axis]
    if axis == 0:
        yield ()
        return
    length = shape[axis - 1]
    rows = max(1, block_bytes // inner_bytes)
    for outer in product(*map(range, shape[: axis - 1])):
        for start in range(0, length, rows):
            yield (*outer, slice(start, min(start + rows, length)))


@lru_cache(maxsize=1024)
def row_major_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides in elements of a tensor in C order, as torch counts them: an axis without elements counts as one."""
    strides = []
    step = 1
    for size in reversed(shape):
        strides.append(step)
        step *= size or 1
    return tuple(reversed(strides))


def dense_strides(shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return strides that name the memory order of a dense tensor, None if it is not dense.

    The result is what row-major strides are for some order of the axes. Axes of length one, whose strides say nothing,
    keep them if the whole is such an order.
    """
    if 0 in shape:
        return row_major_strides(shape)
    if is_dense_order(shape, strides):
        return strides
    fitting = tuple(1 if size == 1 else stride for stride, size in zip(strides, shape, strict=True))
    if not is_dense_order(shape, fitting):
        return None
    long_axes = [stride for stride, size in zip(strides, shape, strict=True) if size > 1]
    return row_major_strides(shape) if long_axes == sorted(long_axes, reverse=True) else fitting


def is_dense_order(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Tell whether strides are the row-major strides of the shape for some order of the axes. Spec 9.1."""
    step = 1
    for stride, size in sorted(zip(strides, shape, strict=True)):
        if stride != step:
            return False
        step *= size or 1
    return True
