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

Range = tuple[int, int]


class OneTensor(NamedTuple):
    """A leaf of the tree, the only row of the index to which it refers, and the slots of the shard in which that lies."""

    leaf: Any
    row: TensorRow
    table: ShardTable


def find_one(raw: bytes, name: str, *, where: str) -> OneTensor | None:
    """Find the tensor of this path if it is one whole tensor, and not encoded."""
    try:
        return _find(raw, name, where)
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException, FormatError):
        return None


def _find(raw: bytes, name: str, where: str) -> OneTensor | None:
    members = _members(raw)
    if members is None or not members.keys() >= MEMBERS:
        return None
    tree, tensors, shards = (raw[slice(*members[key])] for key in ("tree", "tensors", "shards"))
    leaf = _find_leaf(tree, name, where)
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
    """Find a leaf; of a map of several members only the one is unpacked that the name begins with."""
    members = _members(tree) or {}
    below = [key for key in members if name == key or name.startswith(key + ".")]
    if len(members) < 2 or len(below) != 1:
        return find_tensor(unpack(tree, where=where), name, where=where)
    (key,) = below
    member = unpack(tree[slice(*members[key])], where=where)
    # In the place of the map stands a list of one, which is as deep.
    return find_tensor([member], "0" + name[len(key) :], where=where)


def _unpacker(packed: bytes) -> msgpack.Unpacker:
    unpacker = msgpack.Unpacker(raw=False, max_buffer_size=max(1, len(packed)))
    unpacker.feed(packed)
    return unpacker


def _members(packed: bytes) -> dict[str, Range] | None:
    """Return where the value of each key of a map lies; None for another value, or keys that are no distinct strings."""
    unpacker = _unpacker(packed)
    try:
        count = unpacker.read_map_header()
    except ValueError:
        return None
    members: dict[str, Range] = {}
    for _ in range(count):
        begin = unpacker.tell()
        unpacker.skip()
        middle = unpacker.tell()
        unpacker.skip()
        key = unpack(packed[begin:middle], where="")
        if type(key) is not str or key in members:
            return None
        members[key] = (middle, unpacker.tell())
    return members


def _element(packed: bytes, position: Any, where: str) -> tuple[Any, int]:
    """Return one element of an array, and how many there are."""
    unpacker = _unpacker(packed)
    count: int = unpacker.read_array_header()
    if type(position) is not int or not 0 <= position < count:
        return None, count
    for _ in range(position):
        unpacker.skip()
    begin = unpacker.tell()
    unpacker.skip()
    return unpack(packed[begin : unpacker.tell()], where=where), count
