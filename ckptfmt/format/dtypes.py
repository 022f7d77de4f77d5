"""Element types: their names, sizes, and the safetensors type that stores them. Spec 9.2.

One table for the whole library; the state floor maps it to and from torch, numpy and ml_dtypes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

RAW = "U8"
NUMPY_PREFIX = "numpy:"
MAX_ITEM_BYTES = 2**31 - 1

NATIVE = {
    "bool": ("BOOL", 1),
    "uint8": ("U8", 1),
    "int8": ("I8", 1),
    "float8_e4m3fn": ("F8_E4M3", 1),
    "float8_e5m2": ("F8_E5M2", 1),
    "float8_e4m3fnuz": ("F8_E4M3FNUZ", 1),
    "float8_e5m2fnuz": ("F8_E5M2FNUZ", 1),
    "uint16": ("U16", 2),
    "int16": ("I16", 2),
    "float16": ("F16", 2),
    "bfloat16": ("BF16", 2),
    "uint32": ("U32", 4),
    "int32": ("I32", 4),
    "float32": ("F32", 4),
    "uint64": ("U64", 8),
    "int64": ("I64", 8),
    "float64": ("F64", 8),
    "complex64": ("C64", 8),
}

STORED_SIZES = dict(NATIVE.values())

RAW_SIZES = {
    "complex32": 4,
    "complex128": 16,
    "bits16": 2,
    **dict.fromkeys(
        (
            *("float8_e8m0fnu", "float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz", "float4_e2m1fn_x2"),
            *("float4_e2m1fn", "float6_e2m3fn", "float6_e3m2fn"),
            *(f"{sign}{bits}" for sign in ("int", "uint") for bits in range(1, 8)),
            *("bits8", "bits1x8", "bits2x4", "bits4x2"),
        ),
        1,
    ),
}

SIZES = {**{name: size for name, (_, size) in NATIVE.items()}, **RAW_SIZES}

_NUMPY_STRING = re.compile(r"[<>|]([?biufcmMSUV])([0-9]{1,9})(\[[0-9A-Za-z/]{1,20}\])?")


def itemsize_bytes(dtype: str) -> int:
    """Return the bytes of one element (0 for empty numpy types).

    Raises:
        KeyError: the dtype is not in the table of spec 9.2.
    """
    size = SIZES.get(dtype)
    return _numpy_itemsize(dtype) if size is None else size


def _numpy_itemsize(dtype: str) -> int:
    if not dtype.startswith(NUMPY_PREFIX) or len(dtype) > 2**20:
        raise KeyError(dtype)
    text = dtype[len(NUMPY_PREFIX) :]
    match = _NUMPY_STRING.fullmatch(text)
    if match is not None:
        size = int(match[2]) * (4 if match[1] == "U" else 1)
    else:
        try:
            size = json.loads(text)["size"]
        except (ValueError, TypeError, KeyError, RecursionError):
            raise KeyError(dtype) from None
    if type(size) is not int or not 0 <= size <= MAX_ITEM_BYTES:
        raise KeyError(dtype)
    return size


def stored_form(dtype: str, shape: tuple[int, ...], size_bytes: int) -> tuple[str, tuple[int, ...]]:
    """Return the safetensors type and shape under which a chunk of this dtype and shape is stored."""
    native = NATIVE.get(dtype)
    return (native[0], shape) if native else (RAW, (size_bytes,))


def stored_forms(dtypes: Sequence[str], shapes: Sequence[tuple[int, ...]], sizes: Sequence[int]) -> list[tuple[str, tuple[int, ...]]]:
    """Return `stored_form` of each of many chunks."""
    native = {dtype: NATIVE[dtype][0] for dtype in set(dtypes) if dtype in NATIVE}
    chunks = zip(dtypes, shapes, sizes, strict=True)
    return [(native[dtype], shape) if dtype in native else (RAW, (size_bytes,)) for dtype, shape, size_bytes in chunks]


def alignment_bytes(dtype: str) -> int:
    """Return the power of two, at most 16, on which elements of this dtype should begin."""
    size = itemsize_bytes(dtype)
    return min(size & -size, 16) if size else 1
