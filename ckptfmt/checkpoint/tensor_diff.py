"""How far two tensors are apart, element by element, from their bytes.

numpy is all it needs, also for element types that numpy lacks: bfloat16 is widened by a shift, types of one byte are looked up in a
table. Both tensors pass in blocks, and only elements that are not equal are computed with. Equal means equal in value: two NaN are
equal, and so are the two zeros. Element types: spec 9.2.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from ckptfmt.format.dtypes import NUMPY_PREFIX, itemsize_bytes
from ckptfmt.state.statistics import tensor_statistics
from ckptfmt.state.tensors import TensorMemory

_BLOCK_ELEMENTS = 2**18
_BYTE_TYPE = re.compile(r"float[468]_\w+|u?int[1-7]")
_PAIRED = "float4_e2m1fn_x2"
# Unsigned integers as wide as one number of a float; complex elements are two of them.
_BITS = {"float16": "u2", "bfloat16": "u2", "complex32": "u2", "float32": "u4", "complex64": "u4", "float64": "u8", "complex128": "u8"}
_RAW = frozenset("bits8 bits16 bits1x8 bits2x4 bits4x2".split())


@dataclass(frozen=True, slots=True)
class ElementDifferences:
    """What comparing two tensors of one shape found. Distances are None where there are no two numbers to take one of.

    `max_abs` and `max_relative` (to the larger of both) are over all elements but NaN, `max_ulp` over finite ones: how many numbers of
    the element type lie between. `differing_count` counts elements beyond the tolerance; a NaN on one side is one.
    """

    element_count: int
    differing_count: int
    max_abs: int | float | None = None
    max_relative: float | None = None
    max_ulp: int | None = None
    nan_counts: tuple[int, int] = (0, 0)


def compare_elements(before: TensorMemory, after: TensorMemory, *, atol: float = 0.0, rtol: float = 0.0) -> ElementDifferences:
    """Compare two tensors of one shape; of different element types by their values.

    Elements a and b are within the tolerance if |a - b| <= atol + rtol * max(|a|, |b|).
    """
    import numpy

    first, second = _Elements(before), _Elements(after)
    if not first.is_numeric or not second.is_numeric:
        return _compare_raw(before, after)
    found = _Found(atol, rtol)
    has_ulp = before.dtype == after.dtype and first.has_ulp
    with numpy.errstate(all="ignore"):
        for begin in range(0, first.length, _BLOCK_ELEMENTS):
            end = min(begin + _BLOCK_ELEMENTS, first.length)
            a, b = _common(first.values(begin, end), second.values(begin, end))
            unequal = found.add_equal(a, b)
            if unequal is not None:
                found.add_unequal(a[unequal], b[unequal])
                if has_ulp:
                    found.add_ulp(*(side.ordinals(begin, end, unequal) for side in (first, second)))
    return found.result()


def _compare_raw(before: TensorMemory, after: TensorMemory) -> ElementDifferences:
    """Compare elements that are no numbers byte by byte."""
    import numpy

    count = math.prod(before.shape)
    if before.dtype != after.dtype:
        return ElementDifferences(count, count)
    itemsize = itemsize_bytes(before.dtype)
    differing = 0
    for begin in range(0, count * itemsize, step := max(_BLOCK_ELEMENTS * itemsize, 1)):
        a, b = (numpy.frombuffer(side.data[begin : begin + step], numpy.uint8).reshape(-1, itemsize) for side in (before, after))
        differing += int((a != b).any(axis=1).sum())
    return ElementDifferences(count, differing)


class _Elements:
    """One tensor as numbers. `length` counts elements; two share a byte in one type."""

    def __init__(self, memory: TensorMemory) -> None:
        import numpy

        self._dtype = memory.dtype
        self._table = _table_of(memory.dtype)
        storage = "u1" if self._table is not None else _storage_type(memory.dtype)
        self.is_numeric = storage is not None
        self._stored = numpy.frombuffer(memory.data, storage or "u1")
        if memory.dtype == "complex32":
            self._stored = self._stored.reshape(-1, 2)
        self.length = len(self._stored)

    def values(self, begin: int, end: int) -> Any:
        """Return some elements in a type that numpy computes with."""
        import numpy

        block = self._stored[begin:end]
        if self._table is not None:
            return self._table[block].reshape(-1)
        if self._dtype == "bfloat16":
            return (block.astype(numpy.uint32) << 16).view(numpy.float32)
        if self._dtype == "complex32":
            return block.astype(numpy.float32).view(numpy.complex64)[:, 0]
        if block.dtype.kind == "b":
            return (block.view(numpy.uint8) != 0).view(numpy.uint8)
        return block if block.dtype.isnative else block.astype(block.dtype.newbyteorder("="))

    @property
    def has_ulp(self) -> bool:
        """Whether there is a next number to each number, other than by adding one."""
        return "float" in self._dtype if self._table is not None else self._bits is not None

    @property
    def _bits(self) -> str | None:
        name = self._stored.dtype.name if self._dtype.startswith(NUMPY_PREFIX) else self._dtype
        return _BITS.get(name)

    def ordinals(self, begin: int, end: int, chosen: Any) -> tuple[Any, Any, Any]:
        """Return of chosen elements (is negative, how many numbers lie between it and zero, is finite); a row for each part."""
        import numpy

        if self._table is not None:
            values = self._table[self._stored[begin:end]].reshape(-1)[chosen]
            numbers = numpy.unique(numpy.abs(self._table[numpy.isfinite(self._table)]))
            return values < 0, numpy.searchsorted(numbers, numpy.abs(values)).astype(numpy.uint64), numpy.isfinite(values)
        stored, width = self._stored[begin:end], numpy.dtype(self._bits or "u1")
        stored = numpy.ascontiguousarray(stored if stored.dtype.isnative else stored.astype(stored.dtype.newbyteorder("=")))
        bits = stored.view(width).reshape(len(stored), -1)[chosen].astype(numpy.uint64)
        sign = numpy.uint64(1 << (8 * width.itemsize - 1))
        values = self.values(begin, end)[chosen]
        is_finite = numpy.isfinite(values)
        return (bits & sign) != 0, bits & (sign - numpy.uint64(1)), is_finite[:, None]


class _Found:
    """What has been found so far."""

    def __init__(self, atol: float, rtol: float) -> None:
        self._atol, self._rtol = atol, rtol
        self._count = self._differing = 0
        self._abs: int | float | None = None
        self._relative: float | None = None
        self._ulp: int | None = None
        self._nans = [0, 0]

    def add_equal(self, a: Any, b: Any) -> Any:
        """Count a block, and return the mask of what is not equal in it, None where everything is."""
        import numpy

        self._count += len(a)
        unequal = a != b
        if a.dtype.kind in "fc":
            nans = [numpy.isnan(side) for side in (a, b)]
            self._nans = [count + int(mask.sum()) for count, mask in zip(self._nans, nans, strict=True)]
            unequal &= ~(nans[0] & nans[1])
        return unequal if unequal.any() else None

    def add_unequal(self, a: Any, b: Any) -> None:
        """Take in pairs that are not equal."""
        import numpy

        if a.dtype.kind in "iu":
            # Modular arithmetic: the distance of any two integers of 64 bits fits into 64 bits without a sign.
            high, low = numpy.maximum(a, b), numpy.minimum(a, b)
            exact = high.astype(numpy.uint64) - low.astype(numpy.uint64)
            self._abs = max(self._abs or 0, int(exact.max()))
            distance = exact.astype(numpy.float64)
            size = numpy.maximum(numpy.abs(a.astype(numpy.float64)), numpy.abs(b.astype(numpy.float64)))
        else:
            wide = numpy.complex128 if a.dtype.kind == "c" else numpy.float64
            a, b = a.astype(wide), b.astype(wide)
            distance, size = numpy.abs(a - b), numpy.maximum(numpy.abs(a), numpy.abs(b))
            # A complex NaN may have an infinite size.
            is_nan = numpy.isnan(a) | numpy.isnan(b)
            distance = numpy.where(is_nan, numpy.nan, distance)
            if not is_nan.all():
                self._abs = max(self._abs or 0.0, float(numpy.nanmax(distance)))
        is_close = (distance <= self._atol + self._rtol * size) & numpy.isfinite(size)
        self._differing += int((~is_close).sum())
        relative = numpy.where(numpy.isfinite(size), distance / size, numpy.where(numpy.isnan(distance), numpy.nan, numpy.inf))
        if not numpy.isnan(relative).all():
            self._relative = max(self._relative or 0.0, float(numpy.nanmax(relative)))

    def add_ulp(self, before: tuple[Any, Any, Any], after: tuple[Any, Any, Any]) -> None:
        """Take in how many numbers lie between two."""
        import numpy

        (is_negative, a, is_finite), (is_other_negative, b, is_other_finite) = before, after
        apart = numpy.where(is_negative == is_other_negative, numpy.maximum(a, b) - numpy.minimum(a, b), a + b)
        apart = numpy.where(is_finite & is_other_finite, apart, numpy.uint64(0))
        if (is_finite & is_other_finite).any():
            self._ulp = max(self._ulp or 0, int(apart.max()))

    def result(self) -> ElementDifferences:
        """Return it; without any difference every distance is zero."""
        nothing: Any = 0 if self._count else None
        has_pairs = self._abs is not None or self._differing == 0
        return ElementDifferences(
            element_count=self._count,
            differing_count=self._differing,
            max_abs=self._abs if self._abs is not None else (nothing if has_pairs else None),
            max_relative=self._relative if self._relative is not None else (nothing if has_pairs else None),
            max_ulp=self._ulp,
            nan_counts=(self._nans[0], self._nans[1]),
        )


def _common(a: Any, b: Any) -> tuple[Any, Any]:
    """Return two blocks in one type; integers are only converted where the other side is none."""
    import numpy

    if a.dtype == b.dtype:
        return a, b
    if "c" in (a.dtype.kind, b.dtype.kind):
        return a.astype(numpy.complex128), b.astype(numpy.complex128)
    return a.astype(numpy.float64), b.astype(numpy.float64)


def _storage_type(dtype: str) -> str | None:
    """Return the numpy type to read elements with, None for those that are no numbers."""
    import numpy

    if dtype in ("bfloat16", "complex32"):
        return {"bfloat16": "<u2", "complex32": "<f2"}[dtype]
    text = dtype.removeprefix(NUMPY_PREFIX)
    if dtype in _RAW or (text != dtype and text[1:2] not in set("biufc")):
        return None
    try:
        known = numpy.dtype(text)
    except TypeError:
        return None
    if known.itemsize != itemsize_bytes(dtype):
        return None
    return text if text != dtype else known.newbyteorder("<").str


@cache
def _table_of(dtype: str) -> Any:
    """Return what each byte of a type of one byte means, a row for each; None for other types and those that numpy has."""
    import numpy

    if not _BYTE_TYPE.fullmatch(dtype):
        return None
    if dtype == _PAIRED:
        half = _table_of("float4_e2m1fn")[:16, 0]
        return numpy.array([(half[code & 15], half[code >> 4]) for code in range(256)])
    return numpy.array([[_value_of(dtype, code)] for code in range(256)])


def _value_of(dtype: str, code: int) -> float:
    found = tensor_statistics(dtype, memoryview(bytes([code])))
    if found.minimum is not None:
        return float(found.minimum)
    return math.nan if found.nan_count else math.copysign(math.inf, -1 if code & 0x80 else 1)
