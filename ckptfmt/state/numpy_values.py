"""Scalars and dtypes of numpy and ml_dtypes, exact by type. Spec 8, `$numpy_scalar` and `$numpy_dtype`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ckptfmt.state.decode_walk import DecodeWalk, check_items, check_kind
from ckptfmt.state.encode_walk import EncodeWalk
from ckptfmt.state.numpy_dtypes import dtype_of, element_type, require_numpy
from ckptfmt.state.places import Place, wrong
from ckptfmt.state.row_memory import checked_itemsize

if TYPE_CHECKING:
    import numpy as np


def encode_scalar(walk: EncodeWalk, scalar: np.generic, place: Place) -> dict[str, Any]:
    """Encode a scalar as its element type and its bytes."""
    import numpy

    if type(scalar) is numpy.str_:
        text = scalar.encode("utf-32-le", "surrogatepass")
        return {"$numpy_scalar": [f"numpy:<U{len(text) // 4}", text]}
    if type(scalar) is numpy.bytes_:
        return {"$numpy_scalar": [f"numpy:|S{len(scalar)}", bytes(scalar)]}
    return {"$numpy_scalar": [element_type(scalar.dtype, place), scalar.tobytes()]}


def decode_scalar(walk: DecodeWalk, payload: Any, place: Place) -> Any:
    """Rebuild a scalar."""
    numpy = require_numpy(place)
    text, data = check_items(payload, 2, place)
    itemsize = checked_itemsize(text, place)
    if len(check_kind(data, bytes, place)) != itemsize:
        raise wrong(place, "scalar is wrong", expected=f"{itemsize} bytes", found=data)
    dtype = dtype_of(text, place)
    if dtype.type is numpy.str_:
        try:
            little = data if dtype.isnative else numpy.frombuffer(data, ">u4").astype("<u4").tobytes()
            decoded = little.decode("utf-32-le", "surrogatepass")
        except UnicodeDecodeError:
            raise wrong(place, "scalar is wrong", expected="text in UTF-32", found=data) from None
        if dtype.isnative:
            return numpy.str_(decoded)
    if dtype.type is numpy.bytes_:
        return numpy.bytes_(data)
    try:
        return numpy.ndarray((), dtype, bytearray(data) if data else bytearray(1))[()]
    except ValueError as error:
        raise wrong(place, f"scalar is wrong: {error}") from None


def encode_numpy_dtype(walk: EncodeWalk, dtype: np.dtype[Any], place: Place) -> dict[str, Any]:
    """Encode a dtype."""
    return {"$numpy_dtype": element_type(dtype, place)}


def decode_numpy_dtype(walk: DecodeWalk, payload: Any, place: Place) -> np.dtype[Any]:
    """Rebuild a dtype."""
    checked_itemsize(check_kind(payload, str, place), place)
    return dtype_of(payload, place)
