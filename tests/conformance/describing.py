"""What a loaded state is, in the form in which a vector's `case.json` says what is expected.

Written from the tables of spec 8 and 9 and not from ckptfmt's encoder: a value's exact type gives its tag.
"""

import argparse
import json
import random
import sys
import uuid
from collections import Counter, OrderedDict, defaultdict, deque
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import PurePath
from types import SimpleNamespace

import msgpack
import numpy as np

from tests.conformance.vector_kit import readable


class Point:
    """An application's own type, for the vector with a registered one."""

    def __init__(self, x, y):
        self.x, self.y = x, y


def described(state):
    """Return a loaded state in readable form; tensors that share memory have the same `memory`, a number from 0."""
    ranges = []

    def number_of(address):
        begin, end = address
        overlapping = (number for number, (start, stop) in enumerate(ranges) if begin < stop and start < end)
        number = next(overlapping, len(ranges))
        return number if number < len(ranges) else ranges.append(address) or number

    return numbered(readable(_packed(state)), "address", number_of)


def expected(tree):
    """Return the tree of a `case.json` with the rows of tensors replaced by numbers of their memory."""
    rows = {}
    return numbered(tree, "row", lambda row: rows.setdefault(row, len(rows)))


def numbered(node, member, number_of):
    """Replace what identifies the memory of tensors by numbers in order of appearance; empty tensors have none."""
    if isinstance(node, dict) and node.keys() == {"$tensor"}:
        tensor = dict(node["$tensor"])
        identity = tensor.pop(member)
        return {"$tensor": {**tensor, "memory": number_of(identity) if tensor["bytes"]["$bytes"] else None}}
    if isinstance(node, dict):
        return {key: numbered(value, member, number_of) for key, value in node.items()}
    return [numbered(value, member, number_of) for value in node] if isinstance(node, list) else node


def _packed(value):
    kind = type(value)
    if kind in (type(None), bool, float, str, bytes):
        return value
    if kind is int:
        return value if -(2**63) <= value < 2**64 else {"$int": value.to_bytes((value.bit_length() + 8) // 8, "big", signed=True)}
    if kind is list:
        return [_packed(item) for item in value]
    if kind is dict:
        is_plain = all(type(key) is str and not key.startswith("$") for key in value)
        return {key: _packed(item) for key, item in value.items()} if is_plain else {"$dict": _pairs(value)}
    if kind in _TAGGED:
        return _TAGGED[kind](value)
    if kind is Point:
        return {"$registered": ["vector.point", vars(value)]}
    if isinstance(value, PurePath):
        return {"$path": ["posix" if "Pure" not in kind.__name__ else "pure_posix", str(value)]}
    library = kind.__module__.partition(".")[0]
    return {"torch": _torch, "numpy": _numpy, "ml_dtypes": _numpy, "jax": _jax, "jaxlib": _jax}[library](value)


def _pairs(mapping):
    return [_packed(part) for pair in mapping.items() for part in pair]


def _ordered(mapping):
    is_state = hasattr(mapping, "_metadata")
    return {"$state_dict": [_pairs(mapping), _packed(mapping._metadata)]} if is_state else {"$odict": _pairs(mapping)}


def _elements(elements):
    return sorted(map(_packed, elements), key=msgpack.packb)


def _zone(zone):
    if zone is None:
        return None
    return {"$timezone": _timezone(zone)} if type(zone) is timezone else {"zone": zone.key}


def _timezone(zone):
    offset, *name = zone.__getinitargs__()
    return [offset // timedelta(microseconds=1), name[0] if name else None]


def _clock(value):
    return [value.replace(tzinfo=None, fold=0).isoformat(), value.fold, _zone(value.tzinfo)]


_TAGGED = {
    tuple: lambda value: {"$tuple": [_packed(item) for item in value]},
    OrderedDict: _ordered,
    defaultdict: lambda value: {"$defaultdict": [value.default_factory and value.default_factory.__name__, _pairs(value)]},
    Counter: lambda value: {"$counter": _pairs(value)},
    set: lambda value: {"$set": _elements(value)},
    frozenset: lambda value: {"$frozenset": _elements(value)},
    deque: lambda value: {"$deque": [value.maxlen, [_packed(item) for item in value]]},
    complex: lambda value: {"$complex": [value.real, value.imag]},
    bytearray: lambda value: {"$bytearray": bytes(value)},
    range: lambda value: {"$range": [value.start, value.stop, value.step]},
    slice: lambda value: {"$slice": [_packed(part) for part in (value.start, value.stop, value.step)]},
    Decimal: lambda value: {"$decimal": str(value)},
    uuid.UUID: lambda value: {"$uuid": value.bytes},
    datetime: lambda value: {"$datetime": _clock(value)},
    date: lambda value: {"$date": value.isoformat()},
    time: lambda value: {"$time": _clock(value)},
    timedelta: lambda value: {"$timedelta": [value.days, value.seconds, value.microseconds]},
    timezone: lambda value: {"$timezone": _timezone(value)},
    argparse.Namespace: lambda value: {"$namespace": ["argparse", _packed(vars(value))]},
    SimpleNamespace: lambda value: {"$namespace": ["simple", _packed(vars(value))]},
    random.Random: lambda value: {"$python_random": [_packed(part) for part in value.getstate()]},
}


def _torch(value):
    torch = sys.modules["torch"]
    if isinstance(value, torch.Tensor):
        return _torch_tensor(torch, value)
    if isinstance(value, torch.Generator):
        return {"$torch_generator": [value.device.type, value.device.index, _packed(value.get_state())]}
    if isinstance(value, torch.Size):
        return {"$torch_size": list(value)}
    if isinstance(value, torch.device):
        return {"$torch_device": [value.type, value.index]}
    kinds = {torch.dtype: "$torch_dtype", torch.layout: "$torch_layout", torch.memory_format: "$torch_memory_format"}
    return {kinds[type(value)]: str(value).removeprefix("torch.")}


def _torch_tensor(torch, tensor):
    if tensor.layout is not torch.strided:
        return _torch_sparse(tensor.detach(), grad=tensor.requires_grad)
    kind = "parameter" if type(tensor) is torch.nn.Parameter else "buffer" if getattr(tensor, "_is_buffer", False) else "torch"
    plain = tensor.detach()
    memory = plain.untyped_storage()
    size = plain.element_size()
    offsets = [plain.storage_offset() * size]
    for length, stride in zip(plain.shape, plain.stride(), strict=True):
        offsets = [offset + index * stride * size for offset in offsets for index in range(length)]
    stored = bytes(memory.tolist())
    data = b"".join(stored[offset : offset + size] for offset in offsets)
    dtype = str(plain.dtype).removeprefix("torch.")
    members = {"kind": kind, "dtype": dtype, "shape": list(plain.shape), "bytes": data, "grad": tensor.requires_grad}
    return {"$tensor": {"address": (memory.data_ptr(), memory.data_ptr() + memory.nbytes()), **members}}


def _torch_sparse(tensor, *, grad):
    layout = str(tensor.layout).removeprefix("torch.sparse_")
    if layout == "coo":
        parts = {"indices": tensor._indices(), "values": tensor._values()}
    else:
        names = ("crow_indices", "col_indices") if layout in ("csr", "bsr") else ("ccol_indices", "row_indices")
        parts = {name: getattr(tensor, name)() for name in (*names, "values")}
    attributes = ({"grad": True} if grad else {}) | ({"coalesced": tensor.is_coalesced()} if layout == "coo" else {})
    return {"$sparse": [layout, list(tensor.shape), _packed(parts), attributes]}


def _dtype_name(dtype):
    if dtype.names is not None:
        fields = [[name, *_field_type(dtype.fields[name][0], dtype.fields[name][1])] for name in dtype.names]
        align = {"align": True} if dtype.isalignedstruct else {}
        return "numpy:" + json.dumps({"fields": fields, "size": dtype.itemsize, **align})
    is_common = dtype.isnative and dtype.kind in "biufcV" and not dtype.name.startswith("void")
    return dtype.name if is_common else f"numpy:{dtype.str}"


def _field_type(dtype, offset):
    inner, shape = dtype.subdtype or (dtype, None)
    return [inner.str, offset, *([list(shape)] if shape else [])]


def _numpy(value):
    if isinstance(value, np.ndarray):
        members = {"kind": "numpy", "dtype": _dtype_name(value.dtype), "shape": list(value.shape), "bytes": value.tobytes(), "grad": False}
        return {"$tensor": {"address": np.lib.array_utils.byte_bounds(value), **members}}
    if isinstance(value, np.dtype):
        return {"$numpy_dtype": _dtype_name(value)}
    if isinstance(value, np.random.Generator):
        bits = value.bit_generator
        seeds = bits.seed_seq
        known = [_packed(seeds.entropy), list(seeds.spawn_key), seeds.pool_size, seeds.n_children_spawned]
        return {"$numpy_generator": [type(bits).__name__, _packed(bits.state), known]}
    if isinstance(value, np.random.RandomState):
        return {"$numpy_random_state": [_packed(part) for part in value.get_state()]}
    return {"$numpy_scalar": [_dtype_name(value.dtype), value.tobytes()]}


def _jax(value):
    import jax

    if jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
        return {"$jax_key": [str(jax.random.key_impl(value)), _packed(jax.random.key_data(value))]}
    members = {"kind": "jax", "dtype": value.dtype.name, "shape": list(value.shape), "bytes": np.asarray(value).tobytes(), "grad": False}
    return {"$tensor": {"address": (value.unsafe_buffer_pointer(), value.unsafe_buffer_pointer() + value.nbytes), **members}}
