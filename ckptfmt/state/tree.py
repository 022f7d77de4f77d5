"""States of an application to packed trees with tensors, and back: the tables of types and tags. Spec 8 and 9.1.

Saving asks for the exact type of a value: first Python's own, then what the application registered, then tensors and
values of torch, numpy and jax, which are recognised by the module of their type, so that no library is imported by
saving. What is left is asked for its `state_dict()`, or refused. Loading knows the closed table of tags.
"""

from __future__ import annotations

import argparse
import random
import sys
import uuid
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from functools import partial
from pathlib import PosixPath, PurePosixPath, PureWindowsPath, WindowsPath
from reprlib import Repr
from types import SimpleNamespace
from typing import Any

from ckptfmt.format.packed import pack
from ckptfmt.state import (
    boosters,
    codecs,
    containers,
    jax_arrays,
    numpy_arrays,
    numpy_random,
    numpy_values,
    plain_values,
    torch_sparse,
    torch_tensors,
    torch_values,
)
from ckptfmt.state.decode_walk import Decoder, DecodeWalk, check_items
from ckptfmt.state.encode_walk import Encoder, EncodeWalk, Instead
from ckptfmt.state.pause import collector_paused
from ckptfmt.state.places import Place, refuse, root_place, wrong
from ckptfmt.state.row_memory import ReadyRows, RowTable
from ckptfmt.state.tensor_rows import place_tensors
from ckptfmt.state.tensors import TensorMemory, TensorSource
from ckptfmt.state.torch_batch import build_plain

ADVICE = "Register it with ckptfmt.register_codec, or give it a state_dict()."

_PYTHON: dict[type, Encoder] = {
    dict: containers.encode_dict,
    list: containers.encode_list,
    str: plain_values.encode_text,
    int: plain_values.encode_integer,
    float: plain_values.encode_itself,
    bool: plain_values.encode_itself,
    type(None): plain_values.encode_itself,
    bytes: plain_values.encode_itself,
    tuple: containers.encode_tuple,
    set: containers.encode_set,
    frozenset: containers.encode_set,
    OrderedDict: containers.encode_ordered_dict,
    defaultdict: containers.encode_defaultdict,
    Counter: containers.encode_counter,
    deque: containers.encode_deque,
    range: containers.encode_range,
    slice: containers.encode_slice,
    argparse.Namespace: containers.encode_namespace,
    SimpleNamespace: containers.encode_namespace,
    complex: plain_values.encode_complex,
    bytearray: plain_values.encode_bytearray,
    Decimal: plain_values.encode_decimal,
    uuid.UUID: plain_values.encode_uuid,
    PosixPath: plain_values.encode_path,
    WindowsPath: plain_values.encode_path,
    PurePosixPath: plain_values.encode_path,
    PureWindowsPath: plain_values.encode_path,
    datetime: plain_values.encode_datetime,
    date: plain_values.encode_date,
    time: plain_values.encode_time,
    timedelta: plain_values.encode_timedelta,
    timezone: plain_values.encode_timezone,
    random.Random: plain_values.encode_random,
}


def _checked_reference(payload: Any, place: Place) -> tuple[int, str]:
    number, kind, attributes = check_items(payload, 3, place)
    if place.is_key:
        raise wrong(place, "a tensor is a key or an element of a set")
    if type(kind) is not str or kind not in _KINDS or type(attributes) is not dict:
        raise wrong(place, "reference to a tensor is wrong", expected="[id, one of " + " ".join(_KINDS) + ", attributes]", found=kind)
    if type(number) is not int or number < 0:
        raise wrong(place, "reference to a tensor is wrong", expected="a row of the tensor index", found=number, rule="E028")
    return number, kind


def _decode_tensor(walk: DecodeWalk, payload: Any, place: Place) -> Any:
    number, kind = _checked_reference(payload, place)
    if payload[2].get("strides", ()) is None:
        # Nothing would tell it from an attribute that is not there.
        raise wrong(place, "attribute 'strides' is wrong", expected="an array", found=None, rule="E028")
    return _KINDS[kind](walk, walk.rows.row(number, place), kind, payload[2], place)


_KINDS: dict[str, Callable[[DecodeWalk, Any, str, dict[str, Any], Place], Any]] = {
    "torch": torch_tensors.decode_tensor,
    "parameter": torch_tensors.decode_tensor,
    "buffer": torch_tensors.decode_tensor,
    "numpy": numpy_arrays.decode_array,
    "jax": jax_arrays.decode_jax_array,
}

_TAGS: dict[str, Decoder] = {
    "$tensor": _decode_tensor,
    "$dict": containers.decode_dict,
    "$odict": containers.decode_ordered_dict,
    "$state_dict": containers.decode_state_dict,
    "$defaultdict": containers.decode_defaultdict,
    "$counter": containers.decode_counter,
    "$tuple": containers.decode_tuple,
    "$set": containers.decode_set,
    "$frozenset": containers.decode_frozenset,
    "$deque": containers.decode_deque,
    "$int": plain_values.decode_integer,
    "$complex": plain_values.decode_complex,
    "$bytearray": plain_values.decode_bytearray,
    "$range": containers.decode_range,
    "$slice": containers.decode_slice,
    "$decimal": plain_values.decode_decimal,
    "$uuid": plain_values.decode_uuid,
    "$path": plain_values.decode_path,
    "$datetime": plain_values.decode_datetime,
    "$date": plain_values.decode_date,
    "$time": plain_values.decode_time,
    "$timedelta": plain_values.decode_timedelta,
    "$timezone": plain_values.decode_timezone,
    "$namespace": containers.decode_namespace,
    "$sparse": torch_sparse.decode_sparse,
    "$numpy_scalar": numpy_values.decode_scalar,
    "$numpy_dtype": numpy_values.decode_numpy_dtype,
    "$torch_size": torch_values.decode_size,
    "$torch_dtype": torch_values.decode_dtype,
    "$torch_layout": torch_values.decode_layout,
    "$torch_memory_format": torch_values.decode_memory_format,
    "$torch_device": torch_values.decode_device,
    "$torch_generator": torch_values.decode_generator,
    "$jax_key": jax_arrays.decode_key,
    "$numpy_generator": numpy_random.decode_generator,
    "$numpy_random_state": numpy_random.decode_random_state,
    "$python_random": plain_values.decode_random,
    "$registered": codecs.decode_registered,
}


_SHORT = Repr()
_OUTLINED = (
    *("$sparse", "$numpy_scalar", "$numpy_dtype", "$numpy_generator", "$numpy_random_state", "$registered", "$jax_key"),
    *("$torch_size", "$torch_dtype", "$torch_layout", "$torch_memory_format", "$torch_device", "$torch_generator"),
)


@dataclass(frozen=True, slots=True)
class EncodedState:
    """A state in packed form (spec 8), and the tensors to which it refers, in the order of their first reference."""

    tree: Any
    tensors: Sequence[TensorSource]


def encode_state(state: Any) -> EncodedState:
    """Encode a state. Nothing is changed, and no tensor is copied; objects are asked for their `state_dict()` once.

    Raises:
        UnsupportedTypeError: a value cannot be stored; the error names its place and what to do.
        LimitError: the state is nested too deeply, or a container or tensor is too large for the format.
    """
    walk = EncodeWalk(encoder_for, _ordinary_layouts())
    with collector_paused():
        tree = walk.run(state)
        return EncodedState(tree, place_tensors(walk.leaves))


def tensor_sources(tensor: Any, name: str) -> list[TensorSource]:
    """Return the sources of one tensor: itself if it is dense, its parts if it is sparse. `name` is its path in messages.

    Raises:
        UnsupportedTypeError: it cannot be stored.
    """
    walk = EncodeWalk(encoder_for)
    place = Place(root_place(), name, 1, False)
    encoder_for(tensor, place)(walk, tensor, place)
    columns = place_tensors(walk.leaves)
    return [columns[row] for row in range(len(columns))]


def decode_state(tree: Any, tensor_of: Callable[[int], TensorMemory], *, device: Any = "cpu", ready: ReadyRows | None = None) -> Any:
    """Rebuild the state of a packed tree; tensors of torch go to `device`.

    `tensor_of(id)` gives the memory of a row; it is asked at most once for each, and the tensors live on what it gives. It need
    not be asked for rows that are `ready`.

    Raises:
        CorruptError: the tree is not as spec 8 and 9.1 say.
        LimitError: the tree is nested too deeply.
        UnsupportedTypeError: a library that a value needs is not installed, or a type is not registered.
    """
    with collector_paused():
        decode_many = partial(build_plain, ready=ready) if ready is not None and str(device) == "cpu" else None
        return DecodeWalk(_TAGS, RowTable(tensor_of), device, decode_many).run(tree)


@dataclass(frozen=True, slots=True)
class Outline:
    """What stands in an outline for a value of a library or an application: its tag, and its payload as text."""

    tag: str
    text: str


def outline_state(tree: Any, describe: Callable[[int], Any]) -> Any:
    """Rebuild a state with `describe(id)` in the place of each tensor; needs no library, and reads nothing.

    Values of libraries and of the application become an `Outline`.

    Raises:
        CorruptError, LimitError: as `decode_state`, for everything but the payloads of values that are outlined.
    """

    def outlined_tensor(walk: DecodeWalk, payload: Any, place: Place) -> Any:
        number, _ = _checked_reference(payload, place)
        try:
            return describe(number)
        except LookupError:
            raise wrong(place, "reference to a tensor is wrong", expected="a row of the index", found=number, rule="E028") from None

    def outlined(tag: str) -> Decoder:
        # Keys are told apart by all of their text; other texts are only shown.
        return lambda walk, payload, place: Outline(tag, pack(payload).hex() if place.is_key else _SHORT.repr(payload))

    tags = {**_TAGS, "$tensor": outlined_tensor, **{tag: outlined(tag) for tag in _OUTLINED}}
    return DecodeWalk(tags, RowTable(describe)).run(tree)


def decode_leaf(node: Any, tensor_of: Callable[[int], TensorMemory], *, device: Any = "cpu") -> Any:
    """Rebuild one packed node of a tree, such as a tensor. Nodes decoded apart do not share memory."""
    return decode_state(node, tensor_of, device=device)


def encoder_for(value: Any, place: Place) -> Encoder:
    """Return what encodes a value of this type.

    Raises:
        UnsupportedTypeError: nothing does; the error says what to do.
    """
    cls = type(value)
    encoder = _PYTHON.get(cls)
    if encoder is not None:
        return encoder
    if codecs.find_codec(cls) is not None:
        return codecs.encode_registered
    encoder = _find_library_encoder(value, cls)
    if encoder is not None:
        return encoder
    if _has_state_dict(value):
        return _encode_state_dict
    raise refuse(place, f"values of type {_type_name(cls)} are not stored", _advice(cls))


def _find_library_encoder(value: Any, cls: type) -> Encoder | None:
    library = cls.__module__.partition(".")[0]
    if library == "torch":
        return _torch_encoders().get(cls)
    if library in ("numpy", "ml_dtypes"):
        return _find_numpy_encoder(value, cls)
    if boosters.library_of(cls) is not None:
        return boosters.encode_booster
    return jax_arrays.encode_array if library in ("jax", "jaxlib") and jax_arrays.is_array(value) else None


def _ordinary_layouts() -> dict[type, Any]:
    """Return the types of tensors that need not be told from others in the walk, each with its layout."""
    torch = sys.modules.get("torch")
    if torch is None:
        return {}
    return {kind: torch.strided for kind in (torch.Tensor, torch.nn.Parameter) if codecs.find_codec(kind) is None}


def _torch_encoders() -> dict[Any, Encoder]:
    torch = sys.modules["torch"]
    return {
        torch.Tensor: torch_sparse.encode_any_tensor,
        torch.nn.Parameter: torch_sparse.encode_any_tensor,
        torch.Size: torch_values.encode_size,
        torch.dtype: torch_values.encode_dtype,
        torch.layout: torch_values.encode_layout,
        torch.memory_format: torch_values.encode_memory_format,
        torch.device: torch_values.encode_device,
        torch.Generator: torch_values.encode_generator,
    }


def _find_numpy_encoder(value: Any, cls: type) -> Encoder | None:
    numpy = sys.modules["numpy"]
    if cls in (numpy.ndarray, numpy.memmap):
        return numpy_arrays.encode_array
    if isinstance(value, numpy.generic) and cls is not numpy.record:
        return numpy_values.encode_scalar
    if isinstance(value, numpy.dtype):
        return numpy_values.encode_numpy_dtype
    if cls is numpy.random.Generator:
        return numpy_random.encode_generator
    return numpy_random.encode_random_state if cls is numpy.random.RandomState else None


def _has_state_dict(value: Any) -> bool:
    return not isinstance(value, type) and callable(getattr(value, "state_dict", None))


def _encode_state_dict(walk: EncodeWalk, value: Any, place: Place) -> Any:
    if place.is_key or not _has_state_dict(value):
        raise refuse(place, f"values of type {_type_name(type(value))} are not stored", ADVICE)
    return Instead(value.state_dict())


def _type_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _advice(cls: type) -> str:
    if codecs.has_default_codec(cls):
        return f"Register it: ckptfmt.register_codec({cls.__qualname__}, name=...). It needs no functions."
    if cls.__module__ in ("xgboost.sklearn", "lightgbm.sklearn"):
        return boosters.WRAPPER_ADVICE[cls.__module__.partition(".")[0]]
    for base in cls.__mro__[1:]:
        if base in _PYTHON or _type_name(base) in ("torch.Tensor", "numpy.ndarray"):
            return f"Convert it to a plain {base.__name__}. Or: {ADVICE[0].lower()}{ADVICE[1:]}"
    return ADVICE


__all__ = ["EncodedState", "Outline", "decode_leaf", "decode_state", "encode_state", "encoder_for", "outline_state", "tensor_sources"]
