"""Small values of torch: sizes, element types, layouts, memory formats, devices, generators. Spec 8.

Names are looked up in closed tables only.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from ckptfmt.state.decode_walk import DecodeWalk, Later, check_integer, check_items, check_kind
from ckptfmt.state.encode_walk import EncodeWalk
from ckptfmt.state.places import Place, refuse, wrong
from ckptfmt.state.torch_tensors import ELEMENT_TYPES, require_torch

if TYPE_CHECKING:
    import torch

DTYPE_NAMES = frozenset({*ELEMENT_TYPES, "qint8", "quint8", "qint32", "quint4x2", "quint2x4"})
LAYOUT_NAMES = frozenset({"strided", "sparse_coo", "sparse_csr", "sparse_csc", "sparse_bsr", "sparse_bsc", "_mkldnn", "jagged"})
MEMORY_FORMAT_NAMES = frozenset({"contiguous_format", "preserve_format", "channels_last", "channels_last_3d"})
MAX_DEVICE_INDEX = 127

_LEGACY_STATE_BYTES = 5056
_MERSENNE_WORDS = 624


def _encode_name(tag: str, names: frozenset[str]) -> Any:
    def encode(walk: EncodeWalk, value: Any, place: Place) -> dict[str, Any]:
        name = str(value).removeprefix("torch.")
        if name not in names:
            raise refuse(place, f"{value} is not known to this version of ckptfmt", "Store its name as text.")
        return {tag: name}

    return encode


def _decode_name(names: frozenset[str]) -> Any:
    def decode(walk: DecodeWalk, payload: Any, place: Place) -> Any:
        torch = require_torch(place)
        if check_kind(payload, str, place) not in names:
            raise wrong(place, "unknown name", found=payload)
        value = getattr(torch, payload, None)
        if value is None:
            raise refuse(place, f"the installed torch has no {payload}", "Update torch.")
        return value

    return decode


encode_dtype = _encode_name("$torch_dtype", DTYPE_NAMES)
decode_dtype = _decode_name(DTYPE_NAMES)
encode_layout = _encode_name("$torch_layout", LAYOUT_NAMES)
decode_layout = _decode_name(LAYOUT_NAMES)
encode_memory_format = _encode_name("$torch_memory_format", MEMORY_FORMAT_NAMES)
decode_memory_format = _decode_name(MEMORY_FORMAT_NAMES)


def encode_size(walk: EncodeWalk, value: torch.Size, place: Place) -> dict[str, Any]:
    """Encode a torch.Size."""
    sizes = list(value)
    if any(type(size) is not int for size in sizes):
        raise refuse(place, "a torch.Size of symbolic sizes cannot be stored", "Store the numbers.")
    return {"$torch_size": sizes}


def decode_size(walk: DecodeWalk, payload: Any, place: Place) -> Any:
    """Rebuild a torch.Size."""
    torch = require_torch(place)
    return torch.Size([check_integer(item, -(2**63), 2**63 - 1, place) for item in check_kind(payload, list, place)])


def encode_device(walk: EncodeWalk, value: torch.device, place: Place) -> dict[str, Any]:
    """Encode a torch.device."""
    return {"$torch_device": [value.type, value.index]}


def decode_device(walk: DecodeWalk, payload: Any, place: Place) -> Any:
    """Rebuild a torch.device, whether or not this machine has it."""
    torch = require_torch(place)
    kind, index = check_items(payload, 2, place)
    return _device(torch, kind, index, place)


def _device(torch: Any, kind: Any, index: Any, place: Place) -> Any:
    if type(kind) is not str or not kind.isidentifier() or len(kind) > 32:
        raise wrong(place, "device type is wrong", found=kind)
    if index is not None:
        check_integer(index, 0, MAX_DEVICE_INDEX, place)
    try:
        return torch.device(kind) if index is None else torch.device(kind, index)
    except RuntimeError:
        raise refuse(place, f"the installed torch has no device type {kind}", "Install the torch that has it.") from None


def encode_generator(walk: EncodeWalk, value: torch.Generator, place: Place) -> dict[str, Any]:
    """Encode a torch.Generator as its state."""
    return {"$torch_generator": walk.content(value.get_state(), place, value.device.type, value.device.index)}


def decode_generator(walk: DecodeWalk, payload: Any, place: Place) -> Later:
    """Rebuild a torch.Generator on its device."""
    torch = require_torch(place)
    kind, index, node = check_items(payload, 3, place)
    device = _device(torch, kind, index, place)

    def build(members: list[Any]) -> Any:
        state = members[0]
        if not is_state(state):
            raise wrong(place, "state of a generator is wrong", expected="a tensor of uint8")
        state = state.cpu()
        if kind == "cpu":
            check_cpu_state(state, place)
        try:
            generator = torch.Generator(device=device)
        except RuntimeError as error:
            raise refuse(place, f"a generator on {device} cannot be made here: {error}", "Load it on a machine with that device.") from None
        try:
            generator.set_state(state)
        except (RuntimeError, TypeError) as error:
            raise wrong(place, f"state of a generator is wrong: {error}") from None
        return generator

    return Later(walk.content(node, place), build)


def is_state(state: Any) -> bool:
    """Tell whether a value has the form of a generator's state: a dense tensor of bytes."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(state, torch.Tensor) and state.dtype is torch.uint8 and state.dim() == 1


def check_cpu_state(state: torch.Tensor, place: Place) -> None:
    """Refuse a state of the CPU generator whose position lies outside of its words; torch itself only checks parts of it.

    Layout: `CPUGeneratorImplStateLegacy` in aten/src/ATen/CPUGeneratorImpl.cpp: u64 seed, i32 left, i32 seeded, u64 next, ...
    """
    data = bytes(state.contiguous().tolist())
    left = int.from_bytes(data[8:12], sys.byteorder, signed=True)
    position = int.from_bytes(data[16:24], sys.byteorder)
    if len(data) != _LEGACY_STATE_BYTES or not 0 < left <= _MERSENNE_WORDS or left + position > _MERSENNE_WORDS + 1:
        expected = f"{_LEGACY_STATE_BYTES} bytes and a position within {_MERSENNE_WORDS} words"
        raise wrong(place, "state of a generator is wrong", expected=expected)
