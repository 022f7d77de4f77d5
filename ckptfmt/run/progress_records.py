"""The records of a progress journal: keys, results and metrics as packed values, and back. Spec 17.2.

    ["begin", at, fingerprint or nil]      a session of a writer
    ["total", at, count or nil]            how many units there are
    ["done", key, at, content]             a finished unit
    ["fail", key, at, attempts, error]     an attempt that failed

`content` is bytes, so that opening a journal of a million units decodes none of their results. No file is opened here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from ckptfmt.errors import FormatError, UnsupportedTypeError
from ckptfmt.format.digest import Hasher, digest_of, format_digest, is_digest
from ckptfmt.format.dtypes import itemsize_bytes
from ckptfmt.format.layout import is_shape
from ckptfmt.format.packed import pack, unpack
from ckptfmt.format.rules import located, violation
from ckptfmt.state.tensors import TensorMemory
from ckptfmt.state.tree import EncodedState, decode_state

BEGIN, TOTAL, DONE, FAIL = "begin", "total", "done", "fail"
END_TIME = 2.0**63
MAX_INLINE_BYTES = 2**20
MAX_ERROR_CHARACTERS = 2000
_MAX_KEY_DEPTH = 16
_MAX_KEY_BYTES = 64 * 2**10
_BLOCK_BYTES = MAX_INLINE_BYTES

Key = Any
"""A key as the application gives it: an int, a str, or a tuple of keys."""


@dataclass(frozen=True, slots=True)
class UnitLink:
    """A checkpoint that a record names: its directory under `units/`, its manifest's digest, and the digest of what is in it."""

    name: str
    manifest: str
    content: str


@dataclass(frozen=True, slots=True)
class Content:
    """What a finished unit left: its result, in the record or in a checkpoint, its metrics, and a checkpoint of its state."""

    tree: Any
    tensors: tuple[tuple[str, tuple[int, ...], bytes], ...]
    metrics: Mapping[str, int | float]
    result_link: UnitLink | None = None
    state_link: UnitLink | None = None

    @property
    def identity(self) -> str:
        """What two results have in common if and only if they are the same: `content_digest` of the result."""
        if self.result_link is not None:
            return self.result_link.content
        return _inline_digest(self.tree, self.tensors)

    @property
    def links(self) -> tuple[UnitLink, ...]:
        """The checkpoints that belong to the unit."""
        return tuple(link for link in (self.result_link, self.state_link) if link is not None)


def plain_key(key: Key) -> Any:
    """Return a key as a record holds it: tuples become arrays.

    Raises:
        UnsupportedTypeError: it is no int, str or tuple of them.
    """
    plain = key if type(key) is int or type(key) is str else _plain_key(key, _MAX_KEY_DEPTH)
    if type(plain) is not int or not -(2**63) <= plain < 2**63:
        try:
            size_bytes = len(pack(plain))
        except (ValueError, OverflowError) as error:
            raise UnsupportedTypeError(f"key {key!r:.80}: cannot be stored: {error}", path="key") from None
        if size_bytes > _MAX_KEY_BYTES:
            raise UnsupportedTypeError(f"key {key!r:.80}: {size_bytes:,} bytes, expected at most {_MAX_KEY_BYTES:,}", path="key")
    return plain


def _plain_key(key: Key, depth: int) -> Any:
    if type(key) is int or type(key) is str:
        return key
    if type(key) is tuple and depth:
        return [_plain_key(member, depth - 1) for member in key]
    name = type(key).__name__
    advice = "tuple" if type(key) is list else "int" if hasattr(key, "__index__") else "str"
    raise UnsupportedTypeError(
        f"key {key!r:.80}: expected an int, a str or a tuple of them, found {name}\nConvert it, for example with {advice}(key).",
        path="key",
    )


def key_of(plain: Any, *, where: str, depth: int = _MAX_KEY_DEPTH) -> Key:
    """Return the key that a record holds."""
    if type(plain) is int or type(plain) is str:
        return plain
    if type(plain) is list and depth:
        return tuple([key_of(member, where=where, depth=depth - 1) for member in plain])
    raise violation("E057", where, "key of a unit is wrong", expected="an integer, a text or an array of them", found=plain)


def key_digest(plain: Any) -> bytes:
    """Return the digest by which claims and checkpoints name a key; `plain` is the key as a record holds it."""
    return digest_of(pack(plain))


def inline_tensors(state: EncodedState) -> tuple[tuple[str, tuple[int, ...], bytes], ...] | None:
    """Return the tensors of a result for its record; None if the result is too large for one."""
    if sum(source.size_bytes for source in state.tensors) > MAX_INLINE_BYTES:
        return None
    tensors = tuple([(source.dtype, tuple(source.shape), b"".join(source.blocks(_BLOCK_BYTES))) for source in state.tensors])
    size_bytes = len(pack(state.tree)) + sum(len(data) for _, _, data in tensors)
    return tensors if size_bytes <= MAX_INLINE_BYTES else None


def content_digest(state: EncodedState) -> str:
    """Return the digest of a state that is not in the record: of its tree, and of type, shape and bytes of each tensor."""
    hasher = Hasher(pack(state.tree))
    for source in state.tensors:
        hasher.update(pack([source.dtype, list(source.shape)]))
        for block in source.blocks(_BLOCK_BYTES):
            hasher.update(block)
    return format_digest(hasher.digest())


def _inline_digest(tree: Any, tensors: tuple[tuple[str, tuple[int, ...], bytes], ...]) -> str:
    """The same, of a result that is in the record."""
    hasher = Hasher(pack(tree))
    for dtype, shape, data in tensors:
        hasher.update(pack([dtype, list(shape)]))
        hasher.update(data)
    return format_digest(hasher.digest())


def links_in(payload: bytes, *, where: str) -> tuple[UnitLink, ...]:
    """Return the checkpoints that a record names, given as it is encoded; none for what is no record of a finished unit."""
    record = unpack(payload, where=where)
    if type(record) is not list or len(record) < 4 or record[0] != DONE or type(record[3]) is not bytes:
        return ()
    return decode_content(record[3], where=where).links


def encode_content(content: Content) -> bytes:
    """Encode what a finished unit left."""
    more: dict[str, Any] = {}
    if content.tensors:
        more["tensors"] = [[dtype, list(shape), data] for dtype, shape, data in content.tensors]
    for name, link in (("result", content.result_link), ("state", content.state_link)):
        if link is not None:
            more[name] = {"unit": link.name, "manifest": link.manifest, "content": link.content}
    return pack([content.tree, dict(content.metrics), more])


def decode_content(data: bytes, *, where: str) -> Content:
    """Decode it.

    Raises:
        CorruptError: it is not as spec 17.2 says (E024, E036, E042, E043, E057).
    """
    value = unpack(data, where=where)
    if type(value) is not list or len(value) < 3 or type(value[1]) is not dict or type(value[2]) is not dict:
        raise violation("E057", where, "content of a unit is wrong", expected="[result, metrics, more]", found=value)
    tree, metrics, more = value[:3]
    if any(type(number) not in (int, float) for number in metrics.values()):
        raise violation("E057", where, "metrics of a unit are wrong", expected="numbers", found=metrics)
    links = [_decode_link(more.get(name), where) for name in ("result", "state")]
    return Content(tree, _decode_tensors(more.get("tensors", []), where), metrics, *links)


def _decode_tensors(rows: Any, where: str) -> tuple[tuple[str, tuple[int, ...], bytes], ...]:
    tensors = []
    for row in rows if type(rows) is list else [rows]:
        if type(row) is not list or [type(member) for member in row] != [str, list, bytes]:
            raise violation("E057", where, "tensor of a unit is wrong", expected="[dtype, shape, bytes]", found=row)
        dtype, shape, data = row
        if not is_shape(shape):
            raise violation("E036", where, found=shape)
        try:
            size_bytes = prod(shape) * itemsize_bytes(dtype)
        except KeyError:
            raise violation("E042", where, found=dtype) from None
        if size_bytes != len(data):
            raise violation("E043", where, expected=f"{size_bytes} bytes", found=f"{len(data)} bytes")
        tensors.append((dtype, tuple(shape), data))
    return tuple(tensors)


def _decode_link(member: Any, where: str) -> UnitLink | None:
    if member is None:
        return None
    if type(member) is dict:
        name, manifest, content = (member.get(key) for key in ("unit", "manifest", "content"))
        if type(name) is str and is_digest(manifest) and is_digest(content) and is_unit_name(name):
            return UnitLink(name, str(manifest), str(content))
    raise violation("E057", where, "checkpoint of a unit is wrong", expected="unit, manifest and content", found=member)


def is_unit_name(name: str) -> bool:
    """Tell whether a directory under `units/` may have this name: lower-case letters, digits and dashes."""
    return 0 < len(name) <= 128 and all(character in "0123456789abcdefghijklmnopqrstuvwxyz-" for character in name)


def decode_results(contents: list[Content], keys: list[Key], *, where: str, device: Any = "cpu") -> list[Any]:
    """Rebuild results that are in their records, of the units of these keys. Those without tensors are decoded in one go.

    Raises:
        CorruptError: one is no sound state; the message names its unit.
    """
    plain = [content.tree for content in contents if not content.tensors]
    try:
        rebuilt = iter(decode_state(plain, _no_tensor, device=device))
    except FormatError:
        # One is wrong, or so deeply nested that it only decodes without the list around it. Each by itself says which.
        return [_decode_result(content, key, where, device) for content, key in zip(contents, keys, strict=True)]
    return [
        _decode_result(content, key, where, device) if content.tensors else next(rebuilt)
        for content, key in zip(contents, keys, strict=True)
    ]


def _decode_result(content: Content, key: Key, where: str, device: Any) -> Any:
    def memory(row: int) -> TensorMemory:
        dtype, shape, data = content.tensors[row]
        return TensorMemory(dtype, shape, memoryview(bytearray(data)))

    try:
        return decode_state(content.tree, memory, device=device)
    except FormatError as error:
        raise located(error, f"{where}: unit {key!r:.80}") from error


def _no_tensor(row: int) -> TensorMemory:
    raise IndexError(row)


def is_time(value: Any) -> bool:
    """Tell whether a value is a point in time: seconds since 1970, as float."""
    return type(value) is float and -END_TIME < value < END_TIME
