"""One tensor of a metadata file, found without decoding what belongs to the others. Spec 7, 9, 12.

Parts that are not needed are stepped over; those that are needed are unpacked and checked as always. Whatever is not as a
writer leaves it, or not as simple as one whole tensor, is no finding here but None: then everything is decoded, and that
says what is wrong.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgpack

from ckptfmt.errors import FormatError
from ckptfmt.format.metadata import MEMBERS, ShardTable, TensorRow, check_one
from ckptfmt.format.packed import unpack
from ckptfmt.format.tree_walk import ABSENT, find_tensor, tensor_ids

Members = dict[str, tuple[int, int]]

# Deeper than this, everything below is unpacked.
_MAX_STEPS = 8


class OneTensor(NamedTuple):
    """A leaf of the tree, the only row of the index to which it refers, and the slots of the shard in which that lies."""

    leaf: Any
    row: TensorRow
    table: ShardTable


def find_one(raw: bytes, name: str, *, where: str) -> OneTensor | None:
    """Find the tensor of this path if it is one whole tensor, and not encoded."""
    try:
        return _find(raw, name, where)
    except (ValueError, TypeError, OverflowError, IndexError, msgpack.UnpackException, FormatError):
        return None


def _find(raw: bytes, name: str, where: str) -> OneTensor | None:
    members = _map_members(raw)
    if members is None or not members.keys() >= MEMBERS:
        return None
    tensors, shards = (raw[slice(*members[key])] for key in ("tensors", "shards"))
    leaf = _find_leaf(raw[slice(*members["tree"])], name, where)
    ids = tensor_ids(leaf)
    if leaf is ABSENT or len(ids) != 1:
        return None
    row, _ = _element(tensors, ids[0], where)
    if type(row) is not list or len(row) != 4 or type(row[3]) is not list or len(row[3]) != 1:
        return None
    (chunk,) = row[3]
    if type(chunk) is not list or len(chunk) != 2:
        return None
    shard, shard_count = _element(shards, chunk[0], where)
    checked, table = check_one(row, ids[0], shard, shard_count, where=where)
    return None if checked.chunks[0].slot in table.encodings else OneTensor(leaf, checked, table)


def _find_leaf(tree: bytes, name: str, where: str) -> Any:
    """Find a leaf; of mappings from str only the one member is unpacked that the name begins with, if it is one."""
    packed, rest, level = tree, name, 0
    while level < _MAX_STEPS:
        below = {key: place for key, place in _children(packed, rest).items() if rest == key or rest.startswith(key + ".")}
        if len(below) != 1:
            break
        ((key, place),) = below.items()
        packed, level = packed[slice(*place)], level + 1
        is_end = rest == key
        rest = rest[len(key) + 1 :]
        if is_end:
            return find_tensor(_nested(unpack(packed, where=where), level), ".".join(["0"] * level), where=where)
    return find_tensor(_nested(unpack(packed, where=where), level), "0." * level + rest, where=where)


def _nested(node: Any, levels: int) -> Any:
    """Return a node below so many lists of one, which stand for the mappings that were left out."""
    for _ in range(levels):
        node = [node]
    return node


def _children(packed: bytes, path: str) -> Members:
    """Return where those members of a mapping lie whose keys a path begins with; nothing for a value whose keys are not all str."""
    scan = _Scan(packed)
    count = scan.unpacker.read_map_header() if scan.is_map() else 0
    members = scan.members(count, path if count > 1 else None) or {}
    if count != 1 or not members:
        return members
    ((tag, (begin, end)),) = members.items()
    if not tag.startswith("$"):
        return members
    pairs = packed[begin:end]
    scan = _Scan(pairs)
    if tag == "$state_dict":
        if not scan.is_array() or scan.unpacker.read_array_header() != 2:
            return {}
    elif tag not in ("$dict", "$odict"):
        return {}
    if not scan.is_array():
        return {}
    count = scan.unpacker.read_array_header()
    found = scan.members(count // 2, path) if count % 2 == 0 else None
    return {} if found is None else {key: (begin + first, begin + last) for key, (first, last) in found.items()}


def _map_members(packed: bytes) -> Members | None:
    """Return where the value of each key of a map lies; None for another value, or keys that are not distinct strings."""
    scan = _Scan(packed)
    return scan.members(scan.unpacker.read_map_header()) if scan.is_map() else None


class _Scan:
    """A decoder that steps over values; nothing is made of them but keys."""

    def __init__(self, packed: bytes) -> None:
        self.packed = packed
        # A key that is no string is refused before room is made for what it declares; stepping over values makes nothing.
        limits = {"max_array_len": 0, "max_map_len": 0, "max_ext_len": 0}
        self.unpacker = msgpack.Unpacker(raw=False, max_buffer_size=max(1, len(packed)), **limits)
        self.unpacker.feed(packed)

    def is_map(self) -> bool:
        """Tell whether a map is next."""
        first = self.packed[self.unpacker.tell()]
        return 0x80 <= first <= 0x8F or first in (0xDE, 0xDF)

    def is_array(self) -> bool:
        """Tell whether an array is next."""
        first = self.packed[self.unpacker.tell()]
        return 0x90 <= first <= 0x9F or first in (0xDC, 0xDD)

    def members(self, count: int, path: str | None = None) -> Members | None:
        """Step over so many keys and values, and return where values lie; None if the keys are not distinct strings.

        With a path only those members are returned whose keys it begins with.
        """
        tell, skip, unpack_key = self.unpacker.tell, self.unpacker.skip, self.unpacker.unpack
        found: Members = {}
        keys = []
        for _ in range(count):
            key = unpack_key()
            if type(key) is not str:
                return None
            keys.append(key)
            if path is None or path.startswith(key):
                begin = tell()
                skip()
                found[key] = (begin, tell())
            else:
                skip()
        return found if len(set(keys)) == count else None


def _element(packed: bytes, position: Any, where: str) -> tuple[Any, int]:
    """Return one element of an array, and how many there are."""
    unpacker = _Scan(packed).unpacker
    count: int = unpacker.read_array_header()
    if type(position) is not int or not 0 <= position < count:
        return None, count
    for _ in range(position):
        unpacker.skip()
    begin = unpacker.tell()
    unpacker.skip()
    return unpack(packed[begin : unpacker.tell()], where=where), count
