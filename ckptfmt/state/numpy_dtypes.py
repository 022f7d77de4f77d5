"""Element types of numpy and ml_dtypes as the texts of spec 9.2, both ways.

Writing is checked by reading: a dtype whose text does not give it back (titles, records, objects inside) is refused.
Reading builds dtypes from closed tables and from a strict grammar; only then does numpy see a text.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from ckptfmt.format.dtypes import NUMPY_PREFIX, SIZES, itemsize_bytes
from ckptfmt.format.layout import is_shape
from ckptfmt.state.places import Place, refuse, wrong

if TYPE_CHECKING:
    import numpy as np

BUILTIN_NAMES = frozenset(
    "bool uint8 int8 uint16 int16 uint32 int32 uint64 int64 float16 float32 float64 complex64 complex128".split(),
)
ML_NAMES = frozenset(
    """bfloat16 complex32 bcomplex32 float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz float8_e8m0fnu float8_e3m4
    float8_e4m3 float8_e4m3b11fnuz float4_e2m1fn float6_e2m3fn float6_e3m2fn int1 int2 int4 uint1 uint2 uint4""".split(),
)
MAX_NESTING = 32
MAX_ITEM_BYTES = 2**31 - 1
NUMPY_ADVICE = "Install it with: pip install numpy"

_TYPE_STRING = re.compile(r"[<>|][?biufcmMSUV][0-9]{1,9}(\[[0-9A-Za-z/]{1,20}\])?")
_FIELD_MEMBERS = {"fields", "size", "align"}


class _NotAType(Exception):
    """A text that describes no dtype."""


def require_numpy(place: Place) -> Any:
    """Return the numpy module; refuse to rebuild its values where it is not installed."""
    try:
        import numpy
    except ImportError:
        raise refuse(place, "this value needs numpy, which is not installed", NUMPY_ADVICE) from None
    return numpy


def element_type(dtype: np.dtype[Any], place: Place) -> str:
    """Return the text of a dtype.

    Raises:
        UnsupportedTypeError: it has none: objects, variable-width text, records, titles.
    """
    if dtype.isbuiltin == 1 and dtype.isnative and dtype.name in BUILTIN_NAMES:
        return dtype.name
    try:
        described = _describe(dtype)
        if type(described) is str:
            text = described if described in SIZES else NUMPY_PREFIX + described
        else:
            text = NUMPY_PREFIX + json.dumps(described, separators=(",", ":"))
        rebuilt = _built(described, 0)
    except (_NotAType, RecursionError):
        text, rebuilt = "", None
    if rebuilt is None or rebuilt != dtype or rebuilt.isalignedstruct != dtype.isalignedstruct:
        reason = "objects inside" if dtype.hasobject else "no portable form"
        advice = "Convert the array to numbers, text or bytes of fixed size."
        raise refuse(place, f"numpy element type {str(dtype)[:60]} has {reason}", advice)
    return text


def dtype_of(text: str, place: Place) -> np.dtype[Any]:
    """Return the dtype of a text.

    Raises:
        CorruptError: the text describes none.
        UnsupportedTypeError: the library that defines it is not installed, or too old.
    """
    numpy = require_numpy(place)
    if text in BUILTIN_NAMES:
        builtin: np.dtype[Any] = numpy.dtype(text)
        return builtin
    if text in ML_NAMES:
        return _ml_dtype(text, place)
    try:
        dtype = _parse(text)
    except ImportError:
        raise refuse(place, "this element type needs ml_dtypes, which is not installed", "Install it with: pip install ml_dtypes") from None
    except (_NotAType, RecursionError):
        raise wrong(place, "element type is none of numpy", found=text, rule="E042") from None
    if dtype.itemsize != itemsize_bytes(text):
        raise wrong(place, "element type has another size", found=text, rule="E042")
    return dtype


def _ml_dtype(name: str, place: Place) -> np.dtype[Any]:
    import numpy

    try:
        import ml_dtypes
    except ImportError:
        raise refuse(place, f"{name} needs ml_dtypes, which is not installed", "Install it with: pip install ml_dtypes") from None
    scalar = getattr(ml_dtypes, name, None)
    if scalar is None:
        raise refuse(place, f"the installed ml_dtypes has no {name}", "Update it with: pip install -U ml_dtypes")
    dtype: np.dtype[Any] = numpy.dtype(scalar)
    return dtype


def _describe(dtype: np.dtype[Any]) -> Any:
    if dtype.names is None:
        if dtype.subdtype is not None or dtype.hasobject:
            raise _NotAType
        is_extension = dtype.type.__module__ == "ml_dtypes" and dtype.name in ML_NAMES and dtype.name in SIZES
        return dtype.name if is_extension else dtype.str
    if dtype.type.__name__ != "void":
        raise _NotAType
    fields = []
    for name in dtype.names:
        member, offset, *title = dtype.fields[name]  # type: ignore[index]
        if title:
            raise _NotAType
        inner, shape = member.subdtype or (member, None)
        fields.append([name, _describe(inner), int(offset), *([list(shape)] if shape is not None else [])])
    return {"fields": fields, "size": dtype.itemsize, **({"align": True} if dtype.isalignedstruct else {})}


def _parse(text: str) -> np.dtype[Any]:
    if not text.startswith(NUMPY_PREFIX):
        raise _NotAType
    text = text.removeprefix(NUMPY_PREFIX)
    if not text.startswith("{"):
        return _simple(text)
    try:
        return _built(json.loads(text), 0)
    except ValueError:
        raise _NotAType from None


def _built(described: Any, depth: int) -> np.dtype[Any]:
    import numpy

    if type(described) is not str:
        return _structured(described, depth)
    if described in BUILTIN_NAMES:
        return numpy.dtype(described)
    if described not in ML_NAMES or described not in SIZES:
        return _simple(described)
    import ml_dtypes

    scalar = getattr(ml_dtypes, described, None)
    if scalar is None:
        raise _NotAType
    dtype: np.dtype[Any] = numpy.dtype(scalar)
    return dtype


def _simple(text: str) -> np.dtype[Any]:
    import numpy

    if _TYPE_STRING.fullmatch(text) is None:
        raise _NotAType
    try:
        dtype = numpy.dtype(text)
    except (TypeError, ValueError, OverflowError):
        raise _NotAType from None
    if dtype.str != text:
        raise _NotAType
    return dtype


def _structured(described: Any, depth: int) -> np.dtype[Any]:
    import numpy

    if depth >= MAX_NESTING or type(described) is not dict or not {"fields", "size"} <= described.keys() <= _FIELD_MEMBERS:
        raise _NotAType
    size, is_aligned = described["size"], described.get("align", False)
    if type(size) is not int or not 0 <= size <= MAX_ITEM_BYTES or type(is_aligned) is not bool or type(described["fields"]) is not list:
        raise _NotAType
    names, formats, offsets = [], [], []
    for field in described["fields"]:
        if type(field) is not list or len(field) not in (3, 4) or type(field[0]) is not str or type(field[2]) is not int:
            raise _NotAType
        member = _built(field[1], depth + 1)
        if len(field) == 4:
            member = _subarray(member, field[3])
        if not 0 <= field[2] <= size - member.itemsize:
            raise _NotAType
        names.append(field[0])
        formats.append(member)
        offsets.append(field[2])
    form: Any = {"names": names, "formats": formats, "offsets": offsets, "itemsize": size}
    try:
        structured: np.dtype[Any] = numpy.dtype(form, align=is_aligned)
    except (TypeError, ValueError, OverflowError):
        raise _NotAType from None
    return structured


def _subarray(member: np.dtype[Any], shape: Any) -> np.dtype[Any]:
    import numpy

    if not is_shape(shape):
        raise _NotAType
    size_bytes = member.itemsize
    for length in shape:
        size_bytes *= length
    if size_bytes > MAX_ITEM_BYTES or max(shape, default=0) > MAX_ITEM_BYTES:
        raise _NotAType
    try:
        return numpy.dtype((member, tuple(shape)))
    except (TypeError, ValueError, OverflowError):
        raise _NotAType from None
