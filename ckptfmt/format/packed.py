"""Packed form: the subset of msgpack in which metadata is written. Spec 7.

nil, booleans, integers, float 64, str, bin, arrays, maps with distinct str keys, each in its shortest encoding and
nothing else. Decoding re-encodes and compares, in C both ways: one comparison finds duplicate keys, long forms,
extension types and trailing bytes alike.

Source: https://github.com/msgpack/msgpack/blob/master/spec.md
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgpack

from ckptfmt.format.layout import MAX_CONTAINER_ITEMS
from ckptfmt.format.rules import violation

# What one batch of elements may have before it counts as large.
_BATCH_BYTES = 2**18


def pack(value: Any) -> bytes:
    """Encode a value of None, bool, int, float, str, bytes, list and dict with str keys.

    Raises:
        TypeError, ValueError, OverflowError: it holds something that msgpack cannot encode.
    """
    packer = msgpack.Packer(use_bin_type=True, strict_types=True, autoreset=True)
    try:
        packed: bytes = packer.pack(value)
    except ValueError as error:
        if "recursion" not in str(error):
            raise
        return _pack_deep(value)
    return packed


def pack_map(members: Mapping[str, bytes]) -> bytes:
    """Encode a map as `pack` does, from the packed form of its members."""
    parts = [msgpack.Packer().pack_map_header(len(members))]
    for name, packed in members.items():
        parts += (pack(name), packed)
    return b"".join(parts)


def pack_array(count: int, elements: Iterable[Any]) -> bytes:
    """Encode an array as `pack` does, from so many elements, none of which is needed when the next is made."""
    packer = msgpack.Packer(use_bin_type=True, strict_types=True, autoreset=False)
    packer.pack_array_header(count)
    for element in elements:
        packer.pack(element)
    return bytes(packer.bytes())


def _pack_deep(value: Any) -> bytes:
    """Encode without recursion: the C packer of some versions stops at 511 levels, tagged values of 256 levels need 768."""
    packer = msgpack.Packer(use_bin_type=True, strict_types=True, autoreset=False)
    pending = [value]
    while pending:
        item = pending.pop()
        if type(item) is dict:
            packer.pack_map_header(len(item))
            for key, member in reversed(item.items()):
                pending += (member, key)
        elif type(item) is list:
            packer.pack_array_header(len(item))
            pending += reversed(item)
        else:
            packer.pack(item)
    return bytes(packer.bytes())


def _checked_map(members: dict[Any, Any]) -> dict[Any, Any]:
    for key in members:
        if type(key) is not str:
            raise ValueError("a map has a key that is not str")
    return members


def _refuse_extension(code: int, data: bytes) -> Any:
    raise ValueError("a value of an extension type")


def _skip(data: bytes) -> None:
    """Walk over one value without making anything: older decoders make room for all that an array declares, at each level."""
    scanner = msgpack.Unpacker(max_buffer_size=max(1, len(data)))
    scanner.feed(data)
    scanner.skip()


def unpack(data: bytes, *, where: str) -> Any:
    """Decode one value in packed form; anything else is a violation of E024.

    The depth of the result is bounded by the decoder's stack of 1,024 levels.
    """
    # No array has more elements than there are bytes.
    max_items = min(MAX_CONTAINER_ITEMS, len(data))
    try:
        _skip(data)
        value = msgpack.unpackb(
            data,
            raw=False,
            use_list=True,
            strict_map_key=True,
            timestamp=0,
            object_hook=_checked_map,
            ext_hook=_refuse_extension,
            max_array_len=max_items,
            max_map_len=max_items,
            max_ext_len=0,
        )
        is_canonical = pack(value) == data
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
        reason = str(error) or type(error).__name__
        raise violation("E024", where, f"not in packed form: {reason[:200]}") from None
    if not is_canonical:
        raise violation("E024", where, "not in packed form: duplicate keys, or a value that is not in its shortest encoding")
    return value


def split_map(data: bytes) -> dict[str, tuple[int, int]] | None:
    """Return where the value of each member of a map in packed form begins and ends; None where `unpack` would find something wrong.

    The values themselves are not looked at.
    """
    packer = msgpack.Packer()
    try:
        scanner = msgpack.Unpacker(max_buffer_size=max(1, len(data)), strict_map_key=True)
        scanner.feed(data)
        prefix = packer.pack_map_header(count := scanner.read_map_header())
        position, parts = 0, {}
        for _ in range(count):
            name = scanner.unpack()
            prefix += pack(name)
            begin = scanner.tell()
            if type(name) is not str or data[position:begin] != prefix:
                return None
            scanner.skip()
            position, prefix = scanner.tell(), b""
            parts[name] = (begin, position)
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException):
        return None
    return parts if len(parts) == count and position == len(data) else None


def unpack_member(data: bytes, name: str, part: tuple[int, int], *, where: str) -> Any:
    """Decode the value of one member that `split_map` has found, as deep in a map as it stands there."""
    return unpack(pack_map({name: data[part[0] : part[1]]}), where=where)[name]


def unpack_batches(data: bytes, part: tuple[int, int], count: int) -> Iterator[list[Any] | None]:
    """Decode an array that `split_map` has found, so many elements at a time, or fewer large ones.

    None and no more comes where `unpack` would find something wrong.
    The memory of one batch serves for the next.
    """
    packer = msgpack.Packer()
    try:
        scanner = msgpack.Unpacker(max_buffer_size=max(1, len(data)))
        scanner.feed(data[part[0] : part[1]])
        left = scanner.read_array_header()
        if packer.pack_array_header(left) != data[part[0] : part[0] + scanner.tell()]:
            yield None
            return
        while left:
            size, begin = 0, part[0] + scanner.tell()
            while size < min(left, count) and part[0] + scanner.tell() - begin < _BATCH_BYTES:
                scanner.skip()
                size += 1
            yield unpack(packer.pack_array_header(size) + data[begin : part[0] + scanner.tell()], where="")
            left -= size
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException):
        yield None
