"""Arrays and tensors in a fingerprint: numbers where they hold one, a digest of their elements where they hold more.

Libraries are never imported: what they made can only be met where they are loaded. An array counts by element type, shape and
the bytes of its elements in C order, little-endian; where its memory lies and how it is strided does not matter.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from ckptfmt.format.digest import Hasher, format_digest

BLOCK_BYTES = 8 * 2**20

Leaf = tuple[str, str]
_PLAIN_KINDS = "biufcSUmM"
_WIDEST = {"f": 8, "c": 16}


class NotAnArrayError(TypeError):
    """An array or tensor whose elements cannot be taken as bytes; the message says why."""


def find_number(value: Any) -> Any:
    """Return the Python number or text of a numpy scalar or of an array or tensor without dimensions; None for anything else."""
    if _is_a(value, "numpy", "generic") or (_is_array(value) and value.ndim == 0):
        kind = getattr(value.dtype, "kind", "")
        # A moment is no number, and bytes of no type are no text.
        number = None if kind in ("m", "M") else _item(value)
        if kind == "V" and type(number) is bytes:
            return None
        return number if type(number) in (bool, int, float, complex, str, bytes) else None
    return None


def find_array(value: Any) -> Leaf | None:
    """Return type and text of an array or tensor, None if it is neither.

    Raises:
        NotAnArrayError: it is one, but its elements have no bytes of their own.
    """
    if _is_a(value, "torch", "Tensor"):
        return _digest("tensor", str(value.dtype).removeprefix("torch."), tuple(value.shape), _torch_pieces(value))
    if _is_a(value, "numpy", "ndarray") or _is_a(value, "numpy", "generic") or _is_a(value, "jax", "Array"):
        array = _as_numpy(value)
        return _digest("array", _dtype_name(array.dtype), array.shape, _numpy_pieces(array))
    return None


def find_name(value: Any) -> Leaf | None:
    """Return type and text of an element type, a device or a function of a library, None for anything else."""
    if _is_a(value, "torch", "dtype") or _is_a(value, "torch", "device"):
        return type(value).__name__, str(value)
    if _is_a(value, "numpy", "dtype"):
        return "dtype", f"numpy.{_dtype_name(value)}"
    if _is_a(value, "numpy", "ufunc"):
        return "function", f"numpy.{value.__name__}"
    return None


def _is_a(value: Any, library: str, name: str) -> bool:
    kind = getattr(sys.modules.get(library), name, None)
    return isinstance(kind, type) and isinstance(value, kind)


def _is_array(value: Any) -> bool:
    return _is_a(value, "numpy", "ndarray") or _is_a(value, "torch", "Tensor") or _is_a(value, "jax", "Array")


def _item(value: Any) -> Any:
    try:
        return value.item()
    except (TypeError, ValueError, RuntimeError, NotImplementedError, AttributeError):
        return None


def _digest(kind: str, dtype: str, shape: tuple[int, ...], pieces: Iterator[Any]) -> Leaf:
    hasher = Hasher()
    try:
        for piece in pieces:
            hasher.update(piece)
    except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:
        raise NotAnArrayError(f"{dtype} {kind} whose elements cannot be read as bytes ({str(error).splitlines()[0][:80]})") from error
    return kind, f"{dtype}[{','.join(map(str, shape))}] {format_digest(hasher.digest())}"


def _as_numpy(value: Any) -> Any:
    if _is_a(value, "numpy.ma", "MaskedArray"):
        raise NotAnArrayError("masked array; give its data and its mask as two arrays")
    try:
        return sys.modules["numpy"].asarray(value)
    except (TypeError, RuntimeError) as error:
        raise NotAnArrayError(f"array that has no plain elements ({str(error).splitlines()[0][:80]})") from error


def _dtype_name(dtype: Any) -> str:
    """Return a name that says everything about the elements but their byte order."""
    if dtype.hasobject:
        raise NotAnArrayError("array of Python objects; give them as a list")
    if dtype.fields is not None or dtype.subdtype is not None:
        raise NotAnArrayError("array of records; give each of its fields as an array of its own")
    if dtype.kind in "fc" and dtype.itemsize > _WIDEST[dtype.kind]:
        raise NotAnArrayError(f"array of {dtype.name}, which differs between machines; convert it to float64 or complex128")
    return str(dtype.name)


def _numpy_pieces(array: Any) -> Iterator[Any]:
    numpy = sys.modules["numpy"]
    little = array.dtype.newbyteorder("<") if array.dtype.kind in _PLAIN_KINDS else array.dtype
    for piece in _pieces(array, array.nbytes):
        flat = numpy.ascontiguousarray(piece, dtype=little).reshape(-1)
        yield memoryview(flat.view(numpy.uint8)) if flat.size and flat.itemsize else b""


def _torch_pieces(tensor: Any) -> Iterator[Any]:
    torch = sys.modules["torch"]
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.device.type == "meta":
        raise NotAnArrayError(f"tensor of layout {tensor.layout} on {tensor.device}; give its parts as dense tensors")
    for piece in _pieces(tensor.detach(), tensor.numel() * tensor.element_size()):
        flat = piece.resolve_conj().resolve_neg().cpu().contiguous().reshape(-1)
        yield memoryview(flat.view(torch.uint8).numpy()) if flat.numel() else b""


def _pieces(array: Any, size_bytes: int) -> Iterator[Any]:
    """Yield an array in parts of its first dimension, so that copies stay small; a part is at least one row."""
    length = array.shape[0] if array.ndim else 0
    if size_bytes <= BLOCK_BYTES or length < 2:
        yield array
        return
    rows = max(1, BLOCK_BYTES * length // size_bytes)
    for start in range(0, length, rows):
        yield array[start : start + rows]
