"""A packed value of the state as (type, text), for any tag of spec 8, without building it and without its library.

Texts are visible and of bounded length whatever the value is. Payloads come from a file: where one is not what the
specification says, the text is `?` and the verifier has the details.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from ckpt_inspect.output.units import size_text
from ckpt_inspect.output.visible import columns, cut_end, visible
from ckptfmt.format.tree_walk import children_of, tag_of

MAX_TEXT = 200
_MAX_INT_BITS = 512
_INLINE_DEPTH = 4
_INLINE_ITEMS = 24
_WRONG_PAYLOADS = (AttributeError, TypeError, ValueError, LookupError, OverflowError, RecursionError, struct.error)

_CONTAINERS = {
    "$dict": "dict",
    "$odict": "OrderedDict",
    "$state_dict": "OrderedDict",
    "$counter": "Counter",
    "$tuple": "tuple",
}
_NAMESPACES = {"argparse": "Namespace", "simple": "SimpleNamespace"}
_BRACKETS = {"list": "[]", "tuple": "()", "set": "{}", "frozenset": "{}", "torch.Size": "[]", "deque": "[]"}
_PATHS = {"posix": "PosixPath", "windows": "WindowsPath", "pure_posix": "PurePosixPath", "pure_windows": "PureWindowsPath"}
_SCALARS = {
    "bool": "<?",
    "int8": "<b",
    "uint8": "<B",
    "int16": "<h",
    "uint16": "<H",
    "int32": "<i",
    "uint32": "<I",
    "int64": "<q",
    "uint64": "<Q",
    "float16": "<e",
    "float32": "<f",
    "float64": "<d",
}
# As many digits as tell two neighbours of the type apart.
_SCALAR_DIGITS = {"float16": 5, "float32": 8}


def dtype_text(dtype: str) -> str:
    """Return an element type for people: numpy's own without their prefix, structured ones by their number of fields."""
    text = dtype.removeprefix("numpy:")
    if text.startswith("{"):
        return f"struct of {text.count('[') - 1} fields" if len(text) < 10_000 else "struct"
    return cut_end(visible(text), 24)


def type_of(node: Any) -> str:
    """Return the name of a value's type as its users write it."""
    tag = tag_of(node)
    if tag is None:
        return "None" if node is None else type(node).__name__
    payload = node[tag]
    if tag in _CONTAINERS:
        return _CONTAINERS[tag]
    if tag == "$registered":
        return visible(str(_part(payload, 0)))[:60]
    if tag == "$namespace":
        return _NAMESPACES.get(str(_part(payload, 0)), "namespace")
    if tag == "$path":
        return _PATHS.get(str(_part(payload, 0)), "path")
    if tag == "$numpy_scalar":
        return f"numpy.{dtype_text(str(_part(payload, 0)))}"
    if tag == "$defaultdict":
        return f"defaultdict({visible(str(_part(payload, 0)))[:20]})"
    return _NAMES.get(tag) or visible(tag)[:40]


def text_of(node: Any) -> str:
    """Return a leaf's value as text, "" where the type says it all."""
    try:
        return _text(node, _INLINE_DEPTH)
    except _WRONG_PAYLOADS:
        return "?"


def is_inline(node: Any) -> bool:
    """Tell whether a value is shown on one line: a leaf, or a sequence of plain leaves."""
    children = children_of(node)
    if not children:
        return True
    is_sequence = type(node) is list or tag_of(node) in ("$tuple", "$deque")
    return is_sequence and all(not children_of(child) and tag_of(child) not in ("$tensor", "$sparse") for _, child in children)


def _text(node: Any, depth: int) -> str:
    tag = tag_of(node)
    if tag is not None:
        return cut_end(_tagged_text(tag, node[tag], depth), MAX_TEXT)
    if node is None:
        return ""
    if type(node) is dict:
        return "{...}" if node else "{}"
    if type(node) is list:
        return _inline("list", node, depth)
    if type(node) is bytes:
        return f"{size_text(len(node))} {cut_end(repr(node[:40]), 40)}"
    if type(node) is str:
        return cut_end(visible(repr(node[: MAX_TEXT + 1])), MAX_TEXT)
    return repr(node)


def _tagged_text(tag: str, payload: Any, depth: int) -> str:
    reader = _TEXTS.get(tag)
    if reader is not None:
        return visible(reader(payload))
    if tag in ("$set", "$frozenset", "$tuple", "$torch_size"):
        return _inline(_NAMES.get(tag) or _CONTAINERS[tag], payload, depth)
    if tag == "$deque":
        return _inline("deque", payload[1], depth)
    if tag == "$registered":
        return _text(payload[1], depth - 1) if depth else "..."
    return ""


def _inline(kind: str, values: list[Any], depth: int) -> str:
    opening, closing = tuple(_BRACKETS.get(kind, "{}"))
    if depth == 0:
        return f"{opening}...{closing}" if values else opening + closing
    texts = []
    taken = 0
    for value in values[:_INLINE_ITEMS]:
        texts.append(_text(value, depth - 1) or type_of(value))
        taken += len(texts[-1]) + 2
        if taken > MAX_TEXT:
            break
    if len(texts) < len(values):
        texts.append(f"... {len(values) - len(texts):,} more")
    comma = "," if kind == "tuple" and len(values) == 1 else ""
    return opening + ", ".join(texts) + comma + closing


def fitted(node: Any, width: int) -> str:
    """Return the text of a value in at most `width` columns; a sequence loses whole elements and says how many."""
    text = text_of(node)
    children = children_of(node) or ()
    if columns(text) <= width and len(text) < MAX_TEXT:
        return text
    if len(children) > 1 and is_inline(node):
        opening, closing = _BRACKETS.get(type_of(node), "[]")[:1], _BRACKETS.get(type_of(node), "[]")[1:]
        shown = [text_of(child) or type_of(child) for _, child in children[:_INLINE_ITEMS]]
        for count in range(len(shown), 0, -1):
            shorter = f"{opening}{', '.join(shown[:count])}, ... {len(children) - count:,} more{closing}"
            if columns(shorter) <= width and count < len(children):
                return shorter
    return cut_end(text, width)


def _part(payload: Any, index: int) -> Any:
    return payload[index] if type(payload) is list and len(payload) > index else "?"


def _integer(payload: bytes) -> str:
    if len(payload) * 8 > _MAX_INT_BITS:
        return f"of {len(payload) * 8:,} bits"
    return str(int.from_bytes(payload, "big", signed=True))


def _moment(payload: list[Any]) -> str:
    text, _, offset = payload
    zone = offset.get("zone", "") if type(offset) is dict else ""
    if type(offset) is dict and "$timezone" in offset:
        zone = _offset(offset["$timezone"])
    return f"{text}{zone}" if zone[:1] in ("+", "-") else f"{text} {zone}".rstrip()


def _offset(payload: list[Any]) -> str:
    microseconds, name = payload
    sign, minutes = ("-" if microseconds < 0 else "+"), abs(microseconds) // 60_000_000
    return str(name) if name else f"{sign}{minutes // 60:02d}:{minutes % 60:02d}"


def _duration(payload: list[Any]) -> str:
    return str(timedelta(*payload))


def _numpy_scalar(payload: list[Any]) -> str:
    dtype, data = payload
    if dtype.startswith("numpy:<U"):
        return repr(data[: 4 * MAX_TEXT].decode("utf-32-le", "replace"))
    if dtype.startswith("numpy:|S"):
        return repr(data[:MAX_TEXT])
    form = _SCALARS.get(dtype)
    if form is None:
        return f"0x{data[:20].hex()}"
    value = struct.unpack(form, data)[0]
    return f"{value:.{_SCALAR_DIGITS[dtype]}g}" if dtype in _SCALAR_DIGITS else repr(value)


def _device(payload: list[Any]) -> str:
    kind, index = payload[:2]
    return str(kind) if index is None else f"{kind}:{index}"


def _span(payload: list[Any]) -> str:
    start, stop, step = [_text(part, 1) or "None" for part in payload]
    return f"{start}:{stop}" if step in ("1", "None") else f"{start}:{stop}:{step}"


def _seeded(payload: list[Any]) -> str:
    return str(payload[0])


_NAMES = {
    "$set": "set",
    "$frozenset": "frozenset",
    "$deque": "deque",
    "$int": "int",
    "$complex": "complex",
    "$bytearray": "bytearray",
    "$range": "range",
    "$slice": "slice",
    "$decimal": "Decimal",
    "$uuid": "UUID",
    "$datetime": "datetime",
    "$date": "date",
    "$time": "time",
    "$timedelta": "timedelta",
    "$timezone": "timezone",
    "$tensor": "tensor",
    "$sparse": "sparse tensor",
    "$numpy_dtype": "numpy.dtype",
    "$torch_size": "torch.Size",
    "$torch_dtype": "torch.dtype",
    "$torch_layout": "torch.layout",
    "$torch_memory_format": "torch.memory_format",
    "$torch_device": "torch.device",
    "$torch_generator": "torch.Generator",
    "$jax_key": "jax key",
    "$numpy_generator": "numpy.Generator",
    "$numpy_random_state": "numpy.RandomState",
    "$python_random": "random.Random",
}

_TEXTS: dict[str, Callable[[Any], str]] = {
    "$int": _integer,
    "$complex": lambda payload: repr(complex(payload[0], payload[1])),
    "$bytearray": lambda payload: f"{size_text(len(payload))} {cut_end(repr(payload[:40]), 40)}",
    "$range": _span,
    "$slice": _span,
    "$decimal": str,
    "$uuid": lambda payload: f"{payload[:4].hex()}-{payload[4:6].hex()}-{payload[6:8].hex()}-{payload[8:10].hex()}-{payload[10:].hex()}",
    "$path": lambda payload: str(payload[1]),
    "$datetime": _moment,
    "$date": str,
    "$time": _moment,
    "$timedelta": _duration,
    "$timezone": _offset,
    "$numpy_scalar": _numpy_scalar,
    "$numpy_dtype": dtype_text,
    "$torch_dtype": str,
    "$torch_layout": str,
    "$torch_memory_format": str,
    "$torch_device": _device,
    "$torch_generator": _device,
    "$jax_key": _seeded,
    "$numpy_generator": _seeded,
}
