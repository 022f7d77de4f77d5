"""The names of torch that stand for data in files of `torch.save`, with builders of ours.

A storage is a place in the file. Tensors are views of the file's private memory, one flat tensor for each storage, so tensors that
shared memory when they were saved share it again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ckptfmt.adapters.pickle_reader import Builder

STORAGE_TYPES = {
    "Float": "float32",
    "Double": "float64",
    "Half": "float16",
    "BFloat16": "bfloat16",
    "Bool": "bool",
    "Byte": "uint8",
    "Char": "int8",
    "Short": "int16",
    "Int": "int32",
    "Long": "int64",
    "ComplexFloat": "complex64",
    "ComplexDouble": "complex128",
    "Untyped": "uint8",
}
_ATTRIBUTE_DICTS = (
    "lightning_fabric.utilities.data.AttributeDict",
    "lightning.fabric.utilities.data.AttributeDict",
    "lightning_utilities.core.apply_func.AttributeDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict",
    "pytorch_lightning.utilities.data.AttributeDict",
)


@dataclass(frozen=True, slots=True)
class StorageType:
    """The type of a storage, by the name of its elements' type."""

    dtype: str


@dataclass(frozen=True, slots=True)
class Storage:
    """A storage of a file: its bytes as a flat tensor of uint8, None while they are not known, and the type that its owner gave it."""

    flat: Any
    dtype: Any


def torch_names() -> dict[str, Any]:
    """Return the table of names for `read_pickle`."""
    import torch

    return {
        **{f"torch.{name}Storage": StorageType(dtype) for name, dtype in STORAGE_TYPES.items()},
        "torch.storage.UntypedStorage": StorageType("uint8"),
        **{f"torch.{name}": value for name, value in vars(torch).items() if isinstance(value, (torch.dtype, torch.layout))},
        "torch.Size": Builder(lambda sizes=(): torch.Size(tuple(sizes) if isinstance(sizes, (list, tuple)) else ())),
        "torch.device": Builder(torch.device),
        "torch._utils._rebuild_tensor": Builder(_rebuild_tensor),
        "torch._utils._rebuild_tensor_v2": Builder(_rebuild_tensor_v2),
        "torch._utils._rebuild_tensor_v3": Builder(_rebuild_tensor_v3),
        "torch._utils._rebuild_parameter": Builder(_rebuild_parameter),
        "torch.nn.parameter.Parameter": Builder(_rebuild_parameter),
        "torch.serialization._get_layout": Builder(lambda name: getattr(torch, _layout_name(name))),
        **{name: Builder(dict) for name in _ATTRIBUTE_DICTS},
    }


def storage_of(memory: memoryview, dtype: Any) -> Storage:
    """Return a storage over bytes of the file."""
    import torch

    flat = torch.frombuffer(memory, dtype=torch.uint8) if len(memory) else torch.empty(0, dtype=torch.uint8)
    return Storage(flat, dtype)


def element_type(name: str) -> Any:
    """Return the dtype of torch of this name."""
    import torch

    return getattr(torch, name)


def _layout_name(name: str) -> str:
    short = name.removeprefix("torch.")
    if short not in ("strided", "sparse_coo", "sparse_csr", "sparse_csc", "sparse_bsr", "sparse_bsc", "jagged"):
        raise ValueError(f"no layout is named {name!r}")
    return short


def _rebuild_tensor(storage: Storage, offset: int, size: Any, stride: Any) -> Any:
    return _view(storage, storage.dtype, offset, size, stride)


def _rebuild_tensor_v2(storage: Storage, offset: int, size: Any, stride: Any, requires_grad: Any, *_: Any) -> Any:
    return _view(storage, storage.dtype, offset, size, stride).requires_grad_(bool(requires_grad))


def _rebuild_tensor_v3(storage: Storage, offset: int, size: Any, stride: Any, requires_grad: Any, _: Any, dtype: Any, *__: Any) -> Any:
    return _view(storage, dtype, offset, size, stride).requires_grad_(bool(requires_grad))


def _rebuild_parameter(data: Any, requires_grad: Any = 1, *_: Any) -> Any:
    import torch

    if type(data) is not torch.Tensor:
        raise TypeError(f"a parameter is made from a {type(data).__name__}")
    return torch.nn.Parameter(data.detach(), requires_grad=bool(requires_grad))


def _view(storage: Storage, dtype: Any, offset: int, size: Any, stride: Any) -> Any:
    """Return a tensor in a storage; elements outside it are refused, because torch would enlarge the storage for them."""
    import torch

    if type(storage) is not Storage or not isinstance(dtype, torch.dtype):
        raise TypeError("a tensor without a storage")
    if storage.flat is None:
        return torch.empty(tuple(size), dtype=dtype, device="meta")
    size, stride = tuple(size), tuple(stride)
    numbers = (offset, *size, *stride)
    if len(size) != len(stride) or not all(type(number) is int and 0 <= number < 2**62 for number in numbers):
        raise ValueError(f"a tensor of shape {size} with strides {stride}")
    available = len(storage.flat) // dtype.itemsize
    needed = 0 if 0 in size else offset + 1 + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if needed > available:
        raise ValueError(f"a tensor of {needed:,} elements in a storage of {available:,}")
    if 0 in size:
        return torch.empty(size, dtype=dtype)
    whole = storage.flat[: available * dtype.itemsize].view(dtype)
    return whole.as_strided(size, stride, offset)
