"""Dense tensors of torch: from a tensor to a source of bytes, and from the memory of a row to a tensor. Spec 9.1.

Bytes are taken at the tensor's address and put under a tensor with `frombuffer`, so every element type works, also those
for which torch has no kernels and numpy no type; where elements must be gathered they are moved as integers of
their size. Tensors that are a wrapper around something else are refused: they have no bytes of their own.

Parameters of `torch.nn` are an exact type; buffers are tensors with a mark. Other subclasses are not known here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cache
from math import prod
from typing import TYPE_CHECKING, Any

from ckptfmt.format.dtypes import SIZES
from ckptfmt.format.layout import MAX_DIMENSION, MAX_RANK
from ckptfmt.state.decode_walk import DecodeWalk
from ckptfmt.state.encode_leaves import TensorLeaf
from ckptfmt.state.encode_walk import EncodeWalk
from ckptfmt.state.places import Place, refuse, too_large, wrong
from ckptfmt.state.row_memory import Row, Strides, checked_view
from ckptfmt.state.tensors import (
    LiveTensor,
    RangeSource,
    dense_strides,
    is_dense_order,
    memory_at,
    plan_pieces,
    row_major_strides,
)

if TYPE_CHECKING:
    import torch

ELEMENT_TYPES = (
    *("bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", "bfloat16", "float32", "float64"),
    *("complex32", "complex64", "complex128", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"),
    *("float4_e2m1fn_x2", "bits8", "bits16", "bits1x8", "bits2x4", "bits4x2"),
    *(f"{sign}{bits}" for sign in ("int", "uint") for bits in range(1, 8)),
)
INSTALL_ADVICE = "Install it with: pip install torch"
_KINDS = {"torch": False, "parameter": True, "buffer": False}
_CARRIERS = {1: "uint8", 2: "int16", 4: "int32", 8: "int64", 16: "complex128"}


def require_torch(place: Place) -> Any:
    """Return the torch module; refuse to rebuild its values where it is not installed."""
    try:
        import torch
    except ImportError:
        raise refuse(place, "this value needs torch, which is not installed", INSTALL_ADVICE) from None
    return torch


@cache
def element_names() -> dict[Any, tuple[str, int]]:
    """Return name and size in bytes of every element type of this torch."""
    torch = sys.modules["torch"]
    return {getattr(torch, name): (name, SIZES[name]) for name in ELEMENT_TYPES if hasattr(torch, name)}


@cache
def _dtypes() -> dict[str, Any]:
    return {name: dtype for dtype, (name, _) in element_names().items()}


def find_element_type(name: str) -> Any:
    """Return torch's element type of a name of spec 9.2, None if this torch has none."""
    return _dtypes().get(name)


def element_type_of(dtype: torch.dtype) -> str | None:
    """Return the name in the format of a dtype, None if it is none that is stored."""
    found = element_names().get(dtype)
    return None if found is None else found[0]


def torch_dtype_of(name: str) -> torch.dtype | None:
    """Return the dtype of a name in the format, None if torch has none."""
    return _dtypes().get(name)


class TorchSource(LiveTensor):
    """A dense tensor; `is_direct` says that its bytes lie in C order in the memory of this process."""

    __slots__ = ("_is_direct", "tensor")

    def __init__(self, dtype: str, shape: tuple[int, ...], size_bytes: int, tensor: torch.Tensor, *, is_direct: bool) -> None:
        LiveTensor.__init__(self, dtype, shape, size_bytes)
        self.tensor = tensor
        self._is_direct = is_direct

    def memory(self) -> memoryview | None:
        return memory_at(self.tensor.data_ptr(), self.size_bytes) if self._is_direct else None

    def pieces(self, block_bytes: int) -> Iterator[memoryview]:
        tensor = self.tensor.detach()
        for index in plan_pieces(self.shape, SIZES[self.dtype], block_bytes):
            piece = _gathered(tensor[index] if index else tensor, SIZES[self.dtype])
            yield memory_at(piece.data_ptr(), piece.numel() * piece.element_size())


def _gathered(piece: Any, itemsize: int) -> Any:
    torch = sys.modules["torch"]
    if piece._is_zerotensor():
        return torch.zeros(piece.shape, dtype=piece.dtype, device="cpu")
    if piece.is_conj() or piece.is_neg():
        piece = piece.resolve_conj().resolve_neg()
    if piece.device.type == "cpu" or itemsize == 1:
        piece = piece.view(getattr(torch, _CARRIERS[itemsize]))
    return piece.contiguous().cpu()


def encode_tensor(walk: EncodeWalk, tensor: torch.Tensor, place: Place) -> dict[str, Any]:
    """Encode a reference to a dense tensor, Parameter or Buffer."""
    torch = sys.modules["torch"]
    name, itemsize = element_names().get(tensor.dtype) or _refuse_type(tensor, place)
    if tensor.is_nested or torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        raise _refuse_wrapper(tensor, place)
    shape = tuple(tensor.shape)
    count = prod(shape)
    if len(shape) > MAX_RANK or ((not count or count >= MAX_DIMENSION) and max(shape) >= MAX_DIMENSION):
        raise too_large(shape, place)
    size_bytes = count * itemsize
    strides = tensor.stride()
    is_cpu = tensor.is_cpu
    address = tensor.data_ptr() if is_cpu else 0
    is_row_major = tensor.is_contiguous() and not (tensor.is_conj() or tensor.is_neg() or tensor._is_zerotensor())
    reference = _reference(torch, tensor)
    if is_row_major and address and count:
        space, start, stop = "torch", address, address + size_bytes
        if 1 in shape and strides != row_major_strides(shape) and is_dense_order(shape, strides):
            reference[2]["strides"] = list(strides)
    else:
        space, address, start, stop, order = _unusual_range(tensor, shape, itemsize, address, place)
        if order is not None and order != row_major_strides(shape):
            reference[2]["strides"] = list(order)
    origin = start - int(tensor.storage_offset()) * itemsize
    source = TorchSource(name, shape, size_bytes, tensor, is_direct=is_row_major and is_cpu)
    walk.leaves.append(
        TensorLeaf(space, address, start, stop, name, shape, strides, is_row_major, origin, itemsize, reference, source, place, tensor),
    )
    return {"$tensor": reference}


def _reference(torch: Any, tensor: torch.Tensor) -> list[Any]:
    needs_grad = tensor.requires_grad
    if type(tensor) is not torch.Tensor:
        return [-1, "parameter", {} if needs_grad else {"grad": False}]
    return [-1, "buffer" if getattr(tensor, "_is_buffer", False) else "torch", {"grad": True} if needs_grad else {}]


def range_source(leaves: list[TensorLeaf], start: int, stop: int) -> LiveTensor:
    """Return the source for bytes that several tensors view: on the processor by address, elsewhere by their storage."""
    owners = [leaf.owner for leaf in leaves]
    if leaves[0].space == "torch":
        return RangeSource(start, stop - start, owners)
    torch = sys.modules["torch"]
    flat = torch.empty(0, dtype=torch.uint8, device=owners[0].device)
    flat.set_(owners[0].untyped_storage(), start, (stop - start,), (1,))
    return TorchSource("uint8", (stop - start,), stop - start, flat, is_direct=False)


def _unusual_range(
    tensor: torch.Tensor, shape: tuple[int, ...], itemsize: int, address: int, place: Place
) -> tuple[Any, int, int, int, Strides | None]:
    """Return space, address, start, stop of a tensor that is not simply in memory, and the order of its elements if it is dense.

    Conjugated and negated tensors, whose bytes are not their values, are tied to their equals only.
    """
    if tensor.is_meta:
        raise refuse(place, "a tensor on the meta device has no data", "Materialise it, or store its shape and dtype.")
    if 0 in shape:
        return ("torch", id(tensor)), 0, 0, 0, None
    if tensor._is_zerotensor():
        return ("torch", id(tensor)), 0, 0, 0, None
    if tensor.is_cpu and not address:
        what = "a tensor without memory: its storage was freed, or it wraps another tensor"
        raise refuse(place, what, "Save the tensor that holds the data.")
    strides = tensor.stride()
    device = "" if tensor.is_cpu else str(tensor.device)
    storage = 0 if tensor.is_cpu else tensor.untyped_storage()._cdata
    if not tensor.is_cpu:
        address = int(tensor.storage_offset()) * itemsize
    if tensor.is_conj() or tensor.is_neg():
        return ("torch", device, storage, tensor.is_conj(), tensor.is_neg()), address, 0, 0, None
    span = itemsize * (1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True)))
    space = "torch" if tensor.is_cpu else ("torch", device, storage)
    return space, address, address, address + span, dense_strides(shape, strides)


def _refuse_type(tensor: torch.Tensor, place: Place) -> tuple[str, int]:
    if tensor.is_quantized or str(tensor.dtype).startswith(("torch.q", "torch.quint")):
        advice = "Store tensor.int_repr() and its scales and zero points."
        raise refuse(place, f"quantized tensors ({tensor.dtype}) are not stored", advice)
    raise refuse(place, f"element type {tensor.dtype} is not known to this version", "Store it as tensor.view(torch.uint8).")


def _refuse_wrapper(tensor: torch.Tensor, place: Place) -> Exception:
    if tensor.is_nested:
        return refuse(place, "a nested tensor cannot be stored", "Store the list of its tensors, from unbind().")
    return refuse(place, "a tensor inside a function transform (vmap, grad) has no data of its own", "Save outside of the transform.")


def decode_tensor(walk: DecodeWalk, row: Row, kind: str, attributes: dict[str, Any], place: Place) -> Any:
    """Rebuild a tensor on the memory of a row; on another device than the processor all of a row is moved there once."""
    torch = require_torch(place)
    if type(walk.device) is not torch.device:
        walk.device = torch.device(walk.device)
    needs_grad = _KINDS[kind]
    strides = view = dtype = None
    for name, value in attributes.items():
        if name == "grad" and type(value) is bool and value is not needs_grad:
            continue
        if name == "view" and "strides" not in attributes:
            view = checked_view(value, row, place)
            dtype = _dtype_of(view.dtype, place)
            if min(view.strides, default=0) < 0 or view.offset % view.itemsize:
                raise wrong(place, "view is wrong", expected="aligned, with strides from 0", rule="E028")
        elif name == "strides":
            strides = value
        else:
            raise wrong(place, f"attribute {name!r} is wrong", found=value)
    needs_grad = attributes.get("grad", needs_grad)
    if dtype is None:
        dtype = _dtype_of(row.dtype, place)
    row.settle_order(strides, _rearranged, place)
    try:
        if view is None:
            tensor = _whole(walk, row, dtype)
        else:
            tensor = _viewed(walk, row, dtype, view.offset // view.itemsize, view.shape, view.strides)
        if kind == "torch" and not needs_grad:
            return tensor
        key = (kind, needs_grad, view)
        if row.built is None:
            row.built = {}
        if key not in row.built:
            row.built[key] = _as_kind(torch, tensor, kind, needs_grad=needs_grad)
    except RuntimeError as error:
        raise wrong(place, f"tensor cannot be rebuilt: {error}") from None
    return row.built[key]


def _as_kind(torch: Any, tensor: Any, kind: str, *, needs_grad: bool) -> Any:
    if kind == "parameter":
        return torch.nn.Parameter(tensor, requires_grad=needs_grad)
    built = tensor.detach()
    if needs_grad:
        built.requires_grad_(True)
    return torch.nn.Buffer(built) if kind == "buffer" else built


def _dtype_of(name: str, place: Place) -> Any:
    dtype = find_element_type(name)
    if dtype is None:
        if name in ELEMENT_TYPES:
            raise refuse(place, f"the installed torch has no element type {name}", "Update torch.")
        raise wrong(place, "element type is none of torch", found=name)
    return dtype


def _whole(walk: DecodeWalk, row: Row, dtype: Any) -> Any:
    if row.base is not None and row.is_base_whole:
        return row.base
    torch = sys.modules["torch"]
    device = walk.device
    strides = row.strides or row_major_strides(row.shape)
    if not row.data.nbytes:
        row.base = torch.empty(row.shape, dtype=dtype, device=device)
    elif device.type == "cpu" and row.base is None:
        row.base = torch.frombuffer(row.data, dtype=dtype)
        if len(row.shape) != 1 or strides != (1,):
            row.base.as_strided_(row.shape, strides)
    else:
        row.base = _viewed(walk, row, dtype, 0, row.shape, strides)
    row.is_base_whole = True
    return row.base


def _viewed(walk: DecodeWalk, row: Row, dtype: Any, offset: int, shape: tuple[int, ...], strides: Strides) -> Any:
    torch = sys.modules["torch"]
    device = walk.device
    if 0 in shape:
        return torch.empty(shape, dtype=dtype, device=device)
    if row.base is None:
        flat = torch.frombuffer(row.data, dtype=torch.uint8)
        row.base = flat if device.type == "cpu" else flat.to(device)
    return torch.empty(0, dtype=dtype, device=device).set_(row.base.untyped_storage(), offset, shape, strides)


def _rearranged(row: Row, strides: Strides) -> memoryview:
    long_axes = [stride for stride, size in zip(strides, row.shape, strict=True) if size > 1]
    if long_axes == sorted(long_axes, reverse=True):
        return row.data
    torch = sys.modules["torch"]
    carrier = getattr(torch, _CARRIERS[row.itemsize])
    target = memoryview(bytearray(row.data.nbytes))
    ordered = torch.frombuffer(target, dtype=carrier).as_strided(row.shape, strides)
    ordered.copy_(torch.frombuffer(row.data, dtype=carrier).view(row.shape))
    return target
