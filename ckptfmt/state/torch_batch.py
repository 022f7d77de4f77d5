"""Many ordinary tensors of torch at once: which of them are plain bytes in memory, and copying small ones together.

A state may hold a hundred thousand small tensors, and what is done for each is then all that its save costs. So this file asks
each tensor as little as it can, and does once for each element type and shape what depends on those alone. A tensor that
is not plain is left to torch_tensors, which knows every kind, and what to say of those that cannot be stored.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from itertools import repeat
from math import prod
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from ckptfmt.format.layout import BATCH_ROWS, MAX_DIMENSION, MAX_RANK
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
_PARAMETER_NO_GRAD: Kind = ("parameter", {"grad": False})
_PLAIN_TAIL = ["torch", {}]

_REQUIRES_GRAD, _IS_CPU = attrgetter("requires_grad"), attrgetter("is_cpu")


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
    known: dict[Any, Form | None] = {}
    # In batches, so that what is asked first of a tensor has brought it near for what is asked then.
    for begin in range(0, len(values), BATCH_ROWS):
        batch = values[begin : begin + BATCH_ROWS]
        if not _add_alike(batch, found, known):
            _add_each(batch, found, known)
    return found


def _add_alike(values: Sequence[Any], found: PlainTensors, known: dict[Any, Form | None]) -> bool:
    """Add values that are all plain tensors without anything special about them; tell whether they are."""
    torch = sys.modules.get("torch")
    if torch is None or set(map(type, values)) != {torch.Tensor} or any(getattr(value, "_is_buffer", False) for value in values):
        return False
    try:
        keys = [(value.dtype, value.shape) for value in values]
        if any(map(_REQUIRES_GRAD, values)) or not all(map(_IS_CPU, values)) or not all(map(torch.Tensor.is_contiguous, values)):
            return False
        addresses = list(map(torch.Tensor.data_ptr, values))
    except RuntimeError:
        # Wrappers of other tensors have no memory, and some no shape.
        return False
    distinct = {key: known[key] if key in known else known.setdefault(key, _form_of(*key)) for key in set(keys)}
    if 0 in addresses or any(form is None or form.strides is not None for form in distinct.values()):
        return False
    forms = list(map(distinct.__getitem__, keys))
    found.forms += forms
    found.addresses += addresses
    found.kinds += repeat(_TORCH, len(forms))
    return True


def _add_each(values: Sequence[Any], found: PlainTensors, known: dict[Any, Form | None]) -> None:
    torch = sys.modules.get("torch")
    tensor_class, parameter_class = (torch.Tensor, torch.nn.Parameter) if torch is not None else (None, None)
    add_form, add_address, add_kind = found.forms.append, found.addresses.append, found.kinds.append
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
    dtypes, shapes = ready.dtypes, ready.shapes
    name: Any = None
    shape: Any = None
    dtype, count, strides = None, 0, None
    others = []
    for number, reference in zip(numbers, references, strict=True):
        payload, target, slot, above, _ = reference
        if 0 <= number < row_count and payload[1:] == _PLAIN_TAIL and not above.is_key and (seen is None or seen[number] == 1):
            memory = memories[number]
            if memory is not None:
                if dtypes[number] is not name or shapes[number] is not shape:
                    name, shape = key = dtypes[number], shapes[number]
                    dtype, count, strides = forms[key] if key in forms else forms.setdefault(key, _rebuilding(*key))
                if dtype is not None and count:
                    tensor = frombuffer(memory, dtype=dtype, count=count, offset=offsets[number])
                    target[slot] = tensor if strides is None else tensor.as_strided_(shape, strides)
                    continue
        others.append(reference)
    return others


def _rebuilding(dtype: str, shape: tuple[int, ...]) -> tuple[Any, int, tuple[int, ...] | None]:
    """Return element type, number of elements, and strides where these are not those of a vector."""
    return find_element_type(dtype), prod(shape), row_major_strides(shape) if len(shape) != 1 else None
