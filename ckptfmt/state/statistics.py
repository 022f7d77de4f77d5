"""Numbers that describe one tensor: extremes, mean, and how much of it is not finite.

numpy is all it needs, also for the element types that numpy lacks: bfloat16 is widened by a shift, types of one byte are
counted byte by byte and looked up. Large tensors pass through in blocks, so that no wider copy of one ever exists.
Element types: spec 9.2. Eight-bit floats: https://arxiv.org/abs/2209.05433, https://arxiv.org/abs/2206.02915; narrower
ones: https://www.opencompute.org/documents/ocp-microscaling-formats-mx-v1-0-spec-final-pdf
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ckptfmt.format.dtypes import NUMPY_PREFIX, itemsize_bytes

_BLOCK_BYTES = 4 * 2**20


@dataclass(frozen=True, slots=True)
class TensorStats:
    """What a tensor's elements are like. Extremes and mean are those of the finite elements, None where there are none.

    Of complex elements the extremes are absolute values. Elements that are no numbers (texts, times, raw bits) are only
    counted: `is_numeric` is False.
    """

    element_count: int
    minimum: int | float | None = None
    maximum: int | float | None = None
    mean: float | complex | None = None
    nan_count: int = 0
    inf_count: int = 0
    is_numeric: bool = True


def tensor_statistics(dtype: str, data: memoryview) -> TensorStats:
    """Return the statistics of a tensor from its bytes in any order of its elements.

    Raises:
        KeyError: the dtype is not in the table of spec 9.2.
        ValueError: the bytes are not a whole number of elements.
    """
    itemsize = itemsize_bytes(dtype)
    if len(data) % itemsize if itemsize else len(data):
        raise ValueError(f"{len(data)} bytes are not a whole number of elements of {dtype}")
    if dtype in _BYTE_FORMATS or dtype in _NARROW_INTEGERS:
        return _byte_statistics(dtype, data)
    storage = _storage_type(dtype)
    if storage is None:
        return TensorStats(len(data) // itemsize if itemsize else 0, is_numeric=False)
    return _block_statistics(dtype, data, storage)


class _Running:
    """Statistics so far, block by block."""

    def __init__(self) -> None:
        self.minimum: int | float | None = None
        self.maximum: int | float | None = None
        self.mean: float | complex = 0.0
        self.finite_count = 0
        self.nan_count = 0
        self.inf_count = 0

    def add(self, minimum: int | float, maximum: int | float, mean: float | complex, count: int) -> None:
        """Take in `count` finite elements. The mean moves by a weighted difference, so that no sum can overflow."""
        self.minimum = minimum if self.minimum is None else min(self.minimum, minimum)
        self.maximum = maximum if self.maximum is None else max(self.maximum, maximum)
        self.finite_count += count
        weight = count / self.finite_count
        self.mean = self.mean * (1 - weight) + mean * weight

    def result(self) -> TensorStats:
        return TensorStats(
            element_count=self.finite_count + self.nan_count + self.inf_count,
            minimum=self.minimum,
            maximum=self.maximum,
            mean=self.mean if self.finite_count else None,
            nan_count=self.nan_count,
            inf_count=self.inf_count,
        )


def _storage_type(dtype: str) -> str | None:
    """Return the numpy type to read elements with, None for those that are no numbers."""
    import numpy

    if dtype == "bfloat16":
        return "<u2"
    if dtype == "complex32":
        return "<f2"
    if dtype.startswith(NUMPY_PREFIX):
        text = dtype[len(NUMPY_PREFIX) :]
        if text[1:2] not in set("biufc"):
            return None
        try:
            is_known_here = numpy.dtype(text).itemsize == itemsize_bytes(dtype)
        except TypeError:
            return None
        return text if is_known_here else None
    try:
        return numpy.dtype(dtype).newbyteorder("<").str
    except TypeError:
        return None


def _block_statistics(dtype: str, data: memoryview, storage: str) -> TensorStats:
    import numpy

    elements = numpy.frombuffer(data, dtype=storage)
    # A block is a whole number of elements also where a complex one is a pair of halves.
    length = max(_BLOCK_BYTES // elements.itemsize // 2 * 2, 2)
    running = _Running()
    # Signalling NaNs and sums that overflow are part of the answer.
    with numpy.errstate(all="ignore"):
        for begin in range(0, len(elements), length):
            _add_block(running, _widened(dtype, elements[begin : begin + length]))
    return running.result()


def _widened(dtype: str, block: Any) -> Any:
    """Return a block in a type that numpy computes with."""
    import numpy

    if dtype == "bfloat16":
        return (block.astype(numpy.uint32) << 16).view(numpy.float32)
    if dtype == "complex32":
        return block.astype(numpy.float32).view(numpy.complex64)
    if block.dtype.kind == "f" and block.itemsize == 2:
        return block.astype(numpy.float32)
    if block.dtype.kind == "b":
        return (block.view(numpy.uint8) != 0).view(numpy.uint8)
    return block if block.dtype.isnative else block.astype(block.dtype.newbyteorder("="))


def _add_block(running: _Running, block: Any) -> None:
    import numpy

    kind = block.dtype.kind
    if kind in "iu":
        running.add(int(block.min()), int(block.max()), float(block.mean(dtype=numpy.float64)), block.size)
        return
    # A NaN makes both extremes NaN, an infinity one of them infinite: for most blocks no mask is ever made.
    sizes = numpy.abs(block) if kind == "c" else block
    minimum, maximum = sizes.min(), sizes.max()
    if not (numpy.isfinite(minimum) and numpy.isfinite(maximum)):
        is_finite = numpy.isfinite(block)
        nan_count = int(numpy.isnan(block).sum())
        running.nan_count += nan_count
        running.inf_count += block.size - nan_count - int(is_finite.sum())
        block, sizes = block[is_finite], sizes[is_finite]
        if not block.size:
            return
        minimum, maximum = sizes.min(), sizes.max()
    running.add(_finite(minimum), _finite(maximum), _mean(block), block.size)


def _finite(extreme: Any) -> float:
    """Return an extreme as a float; absolute values and long doubles beyond its range become its largest number."""
    return max(min(float(extreme), math.nextafter(math.inf, 0)), -math.nextafter(math.inf, 0))


def _mean(block: Any) -> float | complex:
    import numpy

    if block.dtype.kind == "c":
        return complex(_mean(block.real), _mean(block.imag))
    mean = float(block.mean(dtype=numpy.float64))
    return mean if math.isfinite(mean) else _finite((block / block.size).sum())


def _byte_statistics(dtype: str, data: memoryview) -> TensorStats:
    """Count how often each byte occurs; everything else follows from 256 values."""
    import numpy

    elements = numpy.frombuffer(data, dtype=numpy.uint8)
    counts = numpy.zeros(256, dtype=numpy.int64)
    for begin in range(0, len(elements), _BLOCK_BYTES):
        counts += numpy.bincount(elements[begin : begin + _BLOCK_BYTES], minlength=256)
    found = [(value, int(counts[code])) for code in numpy.flatnonzero(counts) for value in _values_of_byte(dtype, int(code))]
    finite = [(value, count) for value, count in found if math.isfinite(value)]
    finite_count = sum(count for _, count in finite)
    return TensorStats(
        element_count=sum(count for _, count in found),
        minimum=min((value for value, _ in finite), default=None),
        maximum=max((value for value, _ in finite), default=None),
        mean=math.fsum(value * count for value, count in finite) / finite_count if finite else None,
        nan_count=sum(count for value, count in found if math.isnan(value)),
        inf_count=sum(count for value, count in found if math.isinf(value)),
    )


def _values_of_byte(dtype: str, code: int) -> tuple[int | float, ...]:
    if dtype == "float4_e2m1fn_x2":
        low_first = _BYTE_FORMATS["float4_e2m1fn"]
        return low_first.value(code & 15), low_first.value(code >> 4)
    if dtype in _BYTE_FORMATS:
        return (_BYTE_FORMATS[dtype].value(code),)
    is_signed, bits = _NARROW_INTEGERS[dtype]
    value = code & ((1 << bits) - 1)
    return (value - (1 << bits) if is_signed and value >> (bits - 1) else value,)


@dataclass(frozen=True, slots=True)
class _ByteFormat:
    """A float of at most eight bits: how it is divided, and which codes are no numbers.

    `specials` is "ieee" (the largest exponent means infinity and NaN), "fn" (only all ones is NaN), "fnuz" (the code of
    minus zero is NaN) or "finite" (every code is a number).
    """

    exponent_bits: int
    mantissa_bits: int
    bias: int
    specials: str

    def value(self, code: int) -> float:
        """Return the number that a code means; bits above the format's own are ignored."""
        code &= (1 << (1 + self.exponent_bits + self.mantissa_bits)) - 1
        sign = -1.0 if code >> (self.exponent_bits + self.mantissa_bits) else 1.0
        largest = (1 << self.exponent_bits) - 1
        exponent = code >> self.mantissa_bits & largest
        mantissa = code & ((1 << self.mantissa_bits) - 1)
        if self.specials == "ieee" and exponent == largest:
            return math.nan if mantissa else sign * math.inf
        if self.specials == "fn" and exponent == largest and mantissa == (1 << self.mantissa_bits) - 1:
            return math.nan
        if self.specials == "fnuz" and sign < 0 and not exponent and not mantissa:
            return math.nan
        fraction = mantissa / (1 << self.mantissa_bits)
        power = max(exponent, 1) - self.bias
        return sign * math.ldexp(fraction + (1 if exponent else 0), power)


class _PowerOfTwo(_ByteFormat):
    """Eight bits of exponent and nothing else; all ones is NaN."""

    def value(self, code: int) -> float:
        """Return the power of two that a code means."""
        return math.nan if code == 255 else math.ldexp(1.0, code - self.bias)


_FLOAT4 = _ByteFormat(2, 1, 1, "finite")

_BYTE_FORMATS = {
    "float8_e4m3fn": _ByteFormat(4, 3, 7, "fn"),
    "float8_e5m2": _ByteFormat(5, 2, 15, "ieee"),
    "float8_e4m3fnuz": _ByteFormat(4, 3, 8, "fnuz"),
    "float8_e5m2fnuz": _ByteFormat(5, 2, 16, "fnuz"),
    "float8_e8m0fnu": _PowerOfTwo(8, 0, 127, "fn"),
    "float8_e3m4": _ByteFormat(3, 4, 3, "ieee"),
    "float8_e4m3": _ByteFormat(4, 3, 7, "ieee"),
    "float8_e4m3b11fnuz": _ByteFormat(4, 3, 11, "fnuz"),
    "float4_e2m1fn": _FLOAT4,
    "float4_e2m1fn_x2": _FLOAT4,
    "float6_e2m3fn": _ByteFormat(2, 3, 1, "finite"),
    "float6_e3m2fn": _ByteFormat(3, 2, 3, "finite"),
}

# One element in the low bits of a byte: (is signed, bits).
_NARROW_INTEGERS = {f"{prefix}int{bits}": (not prefix, bits) for prefix in ("", "u") for bits in range(1, 8)}
