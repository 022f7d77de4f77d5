"""Checking the rows of the tensor index against the slots: sizes agree with shapes, chunks tile their tensors. Spec 9.3.

`RowColumns` checks many rows at once, column by column; `check_rows` checks one by one, knows every kind of row, and says what is wrong.
What the one accepts the other accepts too, and makes the same of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any

from ckptfmt.errors import FormatError
from ckptfmt.format.dtypes import itemsize_bytes
from ckptfmt.format.layout import are_shapes, are_tensor_names, is_shape, is_tensor_name
from ckptfmt.format.rules import shown, violation
from ckptfmt.format.tensor_index import Chunk, ShardTable, TensorIndex, TensorRow
from ckptfmt.format.tiling import covers_once, find_overlap, is_grid

MAX_COMPARED_CHUNKS = 256

_NO_PLACE = [[0, 0]]


class RowColumns:
    """Checks rows column by column, as `check_rows` does one by one: whole ones many at a time, the chunks of the others row by row."""

    def __init__(self, shards: Sequence[ShardTable], *, where: str) -> None:
        self._stored = [_chunk_sizes(shard) for shard in shards]
        self._one_by_one = _Rows(shards, where)
        self._names: list[str] = []
        self._forms: list[tuple[str, tuple[int, ...]]] = []
        self._shards: list[int] = []
        self._slots: list[int] = []
        self._parts: dict[int, tuple[Chunk, ...]] = {}
        self._known: dict[Any, Any] = {}

    def add(self, rows: list[Any]) -> bool:
        """Check and add some rows; tell whether no rule is broken as far as it has been looked at."""
        if not _are_lists_of(4, rows):
            return False
        names, dtypes, shapes, chunks = ([row[member] for row in rows] for member in range(4))
        if set(map(type, names)) != {str} or set(map(type, dtypes)) != {str} or set(map(type, chunks)) != {list}:
            return False
        if not are_tensor_names(names) or not are_shapes(shapes):
            return False
        known, first = self._known, len(self._names)
        forms = [known.setdefault(form, form) for form in zip(dtypes, map(tuple, shapes), strict=True)]
        try:
            parts = {at: self._checked_chunks(first + at, rows[at]) for at, found in enumerate(chunks) if not _is_whole(found)}
        except (LookupError, FormatError):
            return False
        places = [_NO_PLACE if at in parts else found for at, found in enumerate(chunks)] if parts else chunks
        numbers = list(chain.from_iterable(chain.from_iterable(places)))
        if set(map(type, numbers)) != {int} or min(numbers) < 0:
            return False
        shards, slots = numbers[::2], numbers[1::2]
        for at, found in parts.items():
            is_whole = len(found) == 1 and found[0].shape == forms[at][1]
            shards[at], slots[at] = found[0][:2] if is_whole else (-1, -1)
            if not is_whole:
                self._parts[first + at] = found
        self._names += names
        self._shards += shards
        self._slots += slots
        self._forms += forms
        return True

    def _checked_chunks(self, number: int, row: list[Any]) -> tuple[Chunk, ...]:
        """Check the chunks of a row that are not simply one whole one."""
        found = self._find_grid(row[3], tuple(row[2]), itemsize_bytes(row[1]))
        return self._one_by_one.checked_row(row, number).chunks if found is None else found

    def _find_grid(self, chunks: list[Any], full: tuple[int, ...], itemsize: int) -> tuple[Chunk, ...] | None:
        """Check chunks that are the cells of a grid; None where they are something else, or a rule is broken."""
        if not _are_lists_of(4, chunks):
            return None
        shards, slots, offsets, shapes = zip(*chunks, strict=True)
        if {*map(type, shards), *map(type, slots)} != {int} or min(shards) < 0 or min(slots) < 0:
            return None
        if not are_shapes(offsets) or not are_shapes(shapes) or {*map(len, offsets), *map(len, shapes)} != {len(full)}:
            return None
        known, stored = self._known, self._stored
        begins: list[tuple[int, ...]] = [known.setdefault(each, each) for each in map(tuple, offsets)]
        boxes: list[tuple[int, ...]] = [known.setdefault(each, each) for each in map(tuple, shapes)]
        expected = {shape: math.prod(shape) * itemsize for shape in set(boxes)}
        found = [stored[shard][slot] for shard, slot in zip(shards, slots, strict=True)]
        if [expected[shape] for shape in boxes] != found or not is_grid(begins, boxes, full):
            return None
        return tuple(map(Chunk, shards, slots, begins, boxes))

    def find_index(self) -> TensorIndex | None:
        """Return all rows, checked against the slots and one another; None where a rule is broken."""
        stored, parts = self._stored, self._parts
        try:
            known = {form: math.prod(form[1]) * itemsize_bytes(form[0]) for form in set(self._forms)}
            sizes = [known[form] for form in self._forms]
            found = [
                stored[shard][slot] if shard >= 0 else sizes[row]
                for row, (shard, slot) in enumerate(zip(self._shards, self._slots, strict=True))
            ]
        except LookupError:
            return None
        if sizes != found or len(set(self._names)) != len(self._names):
            return None
        dtypes, shapes = [dtype for dtype, _ in self._forms], [shape for _, shape in self._forms]
        return TensorIndex(self._names, dtypes, shapes, sizes, self._shards, self._slots, parts)


def _is_whole(chunks: list[Any]) -> bool:
    return len(chunks) == 1 and type(chunks[0]) is list and len(chunks[0]) == 2


def _are_lists_of(count: int, values: list[Any]) -> bool:
    return set(map(type, values)) == {list} and set(map(len, values)) == {count}


def _chunk_sizes(shard: ShardTable) -> Sequence[int]:
    """Return the size of the chunk in each slot, decoded where it is encoded."""
    if not shard.encodings:
        return shard.sizes
    sizes = list(shard.sizes)
    for slot, encoding in shard.encodings.items():
        sizes[slot] = encoding.raw_size_bytes
    return sizes


def check_rows(rows: list[Any], shards: Sequence[ShardTable], *, where: str) -> list[TensorRow]:
    """Check rows one by one.

    Raises:
        CorruptError, LimitError: the first that breaks a rule.
    """
    return _Rows(shards, where).checked(rows)


def check_row(row: Any, number: int, shards: Sequence[ShardTable], *, where: str) -> TensorRow:
    """Check one row by itself."""
    return _Rows(shards, where).checked_row(row, number)


class _Rows:
    """Checks the tensor index against the slots."""

    def __init__(self, shards: Sequence[ShardTable], where: str) -> None:
        self.shards = shards
        self.where = where
        self.itemsizes: dict[str, int] = {}

    def checked(self, rows: list[Any]) -> list[TensorRow]:
        checked = [self.checked_row(row, index) for index, row in enumerate(rows)]
        if len({row.name for row in checked}) != len(checked):
            seen: set[str] = set()
            twice = next(row.name for row in checked if row.name in seen or seen.add(row.name))  # type: ignore[func-returns-value]
            raise violation("E044", self.where, f"tensor {twice!r} stands twice in the index", tensor=twice)
        return checked

    def checked_row(self, row: Any, index: int) -> TensorRow:
        """Check one row."""
        if type(row) is not list or len(row) != 4 or type(row[0]) is not str or type(row[1]) is not str or type(row[3]) is not list:
            raise violation("E025", self.where, f"tensors[{index}] is not name, dtype, shape, chunks")
        name, dtype, shape, chunks = row
        if not is_tensor_name(name):
            raise violation("E035", self.where, f"name {name[:80]!r} is too long or holds control characters", tensor=name)
        if not is_shape(shape):
            raise violation("E036", self.where, f"shape of {name!r}", found=shown(shape), tensor=name)
        itemsize = self.itemsizes.get(dtype)
        if itemsize is None:
            try:
                itemsize = self.itemsizes[dtype] = itemsize_bytes(dtype)
            except KeyError:
                raise violation("E042", self.where, f"element type of {name!r}", found=dtype[:80], tensor=name) from None
        full = tuple(shape)
        placed = tuple([self._chunk(chunk, full, itemsize, name) for chunk in chunks])
        if len(placed) != 1 or placed[0].shape is not full:
            self._check_tiling(placed, full, name)
        return TensorRow(name, dtype, full, math.prod(full) * itemsize, placed)

    def _chunk(self, chunk: Any, full: tuple[int, ...], itemsize: int, name: str) -> Chunk:
        if type(chunk) is not list or len(chunk) not in (2, 4):
            raise violation("E025", self.where, f"a chunk of {name!r} is not shard, slot, offset, shape", tensor=name)
        shard, slot = chunk[:2]
        if (
            type(shard) is not int
            or type(slot) is not int
            or not 0 <= shard < len(self.shards)
            or not 0 <= slot < len(self.shards[shard].sizes)
        ):
            raise violation(
                "E025", self.where, f"a chunk of {name!r} names a slot that is not there", found=f"{shard}, {slot}", tensor=name
            )
        offset, shape = (0,) * len(full), full
        if len(chunk) == 4:
            if not is_shape(chunk[2]) or not is_shape(chunk[3]) or not len(chunk[2]) == len(chunk[3]) == len(full):
                raise violation("E041", self.where, f"a chunk of {name!r} has another rank than the tensor", tensor=name)
            offset, shape = tuple(chunk[2]), tuple(chunk[3])
            if any(begin + size > limit for begin, size, limit in zip(offset, shape, full, strict=True)):
                raise violation("E041", self.where, f"a chunk of {name!r} leaves the tensor", found=f"{offset} + {shape}", tensor=name)
        table = self.shards[shard]
        encoding = table.encodings.get(slot)
        size = encoding.raw_size_bytes if encoding else table.sizes[slot]
        if size != math.prod(shape) * itemsize:
            raise violation("E043", self.where, f"size of {name!r}", expected=math.prod(shape) * itemsize, found=size, tensor=name)
        return Chunk(shard, slot, offset, shape)

    def _check_tiling(self, chunks: tuple[Chunk, ...], full: tuple[int, ...], name: str) -> None:
        filled = [chunk for chunk in chunks if math.prod(chunk.shape)]
        volume = sum(math.prod(chunk.shape) for chunk in filled)
        if volume != math.prod(full):
            raise violation("E041", self.where, f"chunks of {name!r}", expected=f"{math.prod(full)} elements", found=volume, tensor=name)
        if len(filled) <= MAX_COMPARED_CHUNKS:
            overlap = find_overlap(filled)
            found = None if overlap is None else " and ".join(f"{chunk.offset} + {chunk.shape}" for chunk in overlap)
        else:
            found = None if covers_once(filled, full) else f"{len(filled)} chunks"
        if found is not None:
            raise violation("E041", self.where, f"chunks of {name!r} overlap", found=shown(found), tensor=name)
