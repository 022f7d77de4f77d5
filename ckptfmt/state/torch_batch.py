"""Many ordinary tensors of torch at once: which of them are plain bytes in memory, and copying small ones together.

A state may hold a hundred thousand small tensors, and what is done for each is then all that its save costs. So this file asks
each tensor as little as it can, and does once for each element type and shape what depends on those alone. A tensor that
is not plain is left to torch_tensors, which knows every kind, and what to say of those that cannot be stored.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from ckptfmt.format.layout import MAX_DIMENSION, MAX_RANK
from ckptfmt.state.decode_walk import Reference
from ckptfmt.state.row_memory import ReadyRows
from ckptfmt.state.tensors import memory_at, row_major_strides
from ckptfmt.state.torch_tensors import TorchSource, element_names, find_element_type

if TYPE_CHECKING:
    import torch

Kind = tuple[str, dict[str, Any]]
"""Kind and attributes of a reference. Spec 9.1."""

_TORCH: Kind = ("torch", {})
_TORCH_GRAD: Kind = ("torch", {"grad": True})
_BUFFER: Kind = ("buffer", {})
_BUFFER_GRAD: Kind = ("buffer", {"grad": True})
_PARAMETER: Kind = ("parameter", {})
_PLAIN_TAIL = ["torch", {}]
_PARAMETER_NO_GRAD: Kind = ("parameter", {"grad": False})


class Form(NamedTuple):
    """What tensors of one element type and shape have in common. `strides` is None where C order leaves no choice of them."""

    dtype: str
    shape: tuple[int, ...]
    size_bytes: int
    strides: tuple[int, ...] | None


class PlainSource(TorchSource):
    """The source of a plain tensor."""

    __slots__ = ()

    def __init__(self, form: Form, tensor: torch.Tensor, keys: tuple[str, ...]) -> None:
        super().__init__(form.dtype, form.shape, form.size_bytes, tensor, is_direct=True)
        self.keys = keys

    def memory(self) -> memoryview | None:
        """Return the bytes; None if they are not the values, because those are conjugated or negated when they are read."""
        tensor = self.tensor
        return None if tensor.is_neg() or tensor.is_conj() else memory_at(tensor.data_ptr(), self.size_bytes)


class PlainTensors:
    """What is known of values, as columns: form, address and kind of plain tensors; the form of anything else is None."""

    __slots__ = ("addresses", "forms", "kinds")

    def __init__(self) -> None:
        self.forms: list[Form | None] = []
        self.addresses: list[int] = []
        self.kinds: list[Kind] = []


def find_plain(values: Sequence[Any]) -> PlainTensors:
    """Find out which values are plain tensors: their bytes are not empty and lie in C order in the memory of this process."""
    found = PlainTensors()
    torch = sys.modules.get("torch")
    tensor_class, parameter_class = (torch.Tensor, torch.nn.Parameter) if torch is not None else (None, None)
    add_form, add_address, add_kind = found.forms.append, found.addresses.append, found.kinds.append
    known: dict[Any, Form | None] = {}
    for value in values:
        form, address, kind = None, 0, _TORCH
        value_class = type(value)
        if value_class is tensor_class or value_class is parameter_class:
            try:
                key = (value.dtype, value.shape)
                form = known[key] if key in known else known.setdefault(key, _form_of(*key))
                if form is not None and value.is_cpu and value.is_contiguous():
                    address = value.data_ptr() if form.strides is None or form.strides == value.stride() else 0
            except RuntimeError:
                # Wrappers of other tensors have no memory, and some no shape.
                form = None
            if value_class is parameter_class:
                kind = _PARAMETER if value.requires_grad else _PARAMETER_NO_GRAD
            elif getattr(value, "_is_buffer", False):
                kind = _BUFFER_GRAD if value.requires_grad else _BUFFER
            elif value.requires_grad:
                kind = _TORCH_GRAD
        add_form(form if address else None)
        add_address(address)
        add_kind(kind)
    return found


def _form_of(dtype: torch.dtype, given: torch.Size) -> Form | None:
    """Return the form of plain tensors of an element type and shape; None where those are not plain or not stored."""
    name, itemsize = element_names().get(dtype, ("", 0))
    shape = tuple(given)
    size_bytes = prod(shape) * itemsize
    if not size_bytes or len(shape) > MAX_RANK or prod(shape) >= MAX_DIMENSION:
        return None
    return Form(name, shape, size_bytes, row_major_strides(shape) if 1 in shape else None)


def copy_plain(form: Form, tensors: list[torch.Tensor], target: memoryview) -> None:
    """Copy the bytes of plain tensors of one form, one after the other."""
    torch = sys.modules["torch"]
    rows = torch.frombuffer(target, dtype=find_element_type(form.dtype)).view(len(tensors), *form.shape)
    with torch.no_grad():
        torch.stack(tensors, out=rows)


def build_plain(references: list[Reference], ready: ReadyRows) -> list[Reference]:
    """Rebuild the plain tensors whose rows are ready and have no other reference, on the processor; return the other references."""
    try:
        import torch
    except ImportError:
        # Each reference by itself will say so.
        return references
    numbers = [payload[0] if type(payload) is list and payload and type(payload[0]) is int else -1 for payload, *_ in references]
    seen = Counter(numbers) if len(set(numbers)) != len(numbers) else None
    forms: dict[Any, tuple[Any, int, tuple[int, ...] | None]] = {}
    frombuffer, memories, offsets, row_count = torch.frombuffer, ready.memories, ready.offsets, len(ready.offsets)
    others = []
    for number, reference in zip(numbers, references, strict=True):
        payload, target, slot, above, _ = reference
        if 0 <= number < row_count and payload[1:] == _PLAIN_TAIL and not above.is_key and (seen is None or seen[number] == 1):
            memory = memories[number]
            if memory is not None:
                key = (ready.dtypes[number], ready.shapes[number])
                dtype, count, strides = forms[key] if key in forms else forms.setdefault(key, _rebuilding(*key))
                if dtype is not None and count:
                    tensor = frombuffer(memory, dtype=dtype, count=count, offset=offsets[number])
                    target[slot] = tensor if strides is None else tensor.as_strided_(key[1], strides)
                    continue
        others.append(reference)
    return others


def _rebuilding(dtype: str, shape: tuple[int, ...]) -> tuple[Any, int, tuple[int, ...] | None]:
    """Return element type, number of elements, and strides where these are not those of a vector."""
    return find_element_type(dtype), prod(shape), row_major_strides(shape) if len(shape) != 1 else None
