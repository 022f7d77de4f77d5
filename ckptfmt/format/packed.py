"""Packed form: the subset of msgpack in which metadata is written. Spec 7.

nil, booleans, integers, float 64, str, bin, arrays, maps with distinct str keys, each in its shortest encoding and
nothing else. Decoding re-encodes and compares, in C both ways: one comparison finds duplicate keys, long forms,
extension types and trailing bytes alike.

Source: https://github.com/msgpack/msgpack/blob/master/spec.md
"""

from __future__ import annotations

from typing import Any

import msgpack

from ckptfmt.format.layout import MAX_CONTAINER_ITEMS
from ckptfmt.format.rules import violation


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
