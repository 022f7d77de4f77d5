"""The codec `planes`: a tensor's bytes as independent blocks of coded planes. Spec 11.1.

`PlanesEncoder` makes a stream block by block, in any order and by several threads; `PlanesStream` is the checked head and table of one,
from which any block can be decoded alone. Nothing is allocated for a stream before what it declares agrees with what the index says.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ckptfmt.format.plane_coding import decode_plane, encode_plane
from ckptfmt.format.plane_fit import PlanePlan, coded_type, plan_planes, take_sample
from ckptfmt.format.plane_layout import WordLayout
from ckptfmt.format.plane_rows import find_rows, put_back, take_off
from ckptfmt.format.plane_source import CLASS_LIMIT, differences, find_order, put_back_in_place, put_in_order
from ckptfmt.format.plane_words import (
    FOLD_BITS,
    FOLD_NONE,
    FOLD_SOURCE,
    SPARE_BITS,
    cut_plane,
    fold,
    join_rotated,
    merge_plane,
    plane_bytes,
    scratch,
    split_rotated,
    unfold,
    word_type,
)

if TYPE_CHECKING:
    import numpy

    Words = numpy.ndarray[Any, Any]

MAGIC = b"ckpl"
VERSION = 1
HEAD = struct.Struct("<4s4B8sQQIIB7s")
ALIGNMENT_BYTES = 16
BLOCK_ALIGNMENT_BYTES = 8
MAX_BLOCK_BYTES = 2**19
MODE_SHIFT = 30


@dataclass(frozen=True, slots=True)
class PlanesHead:
    """The head of a stream, as spec 11.1 lists it."""

    word_bytes: int
    fold: int
    widths: tuple[int, ...]
    size_bytes: int
    base: int
    block_words: int
    column_count: int
    shift: int

    @property
    def row_length(self) -> int:
        """How many words a row has, 0 for no rows; with FOLD_SOURCE columns are classes."""
        return 0 if self.fold == FOLD_SOURCE else self.column_count

    @property
    def word_count(self) -> int:
        """How many words the stream holds; with FOLD_BITS a word holds eight bytes of the tensor."""
        return -(-self.size_bytes // 8) if self.fold == FOLD_BITS else self.size_bytes // self.word_bytes

    @property
    def block_count(self) -> int:
        """How many blocks there are."""
        return -(-self.word_count // self.block_words)

    @property
    def block_bytes(self) -> int:
        """How many of the tensor's bytes a block holds; the last one may hold fewer."""
        return self.block_words * (8 if self.fold == FOLD_BITS else self.word_bytes)

    @property
    def table_bytes(self) -> int:
        """Size of the table at the end of the stream."""
        return self.block_count * (1 + 4 * len(self.widths))

    @property
    def head_bytes(self) -> int:
        """Size of the head with its columns, up to the first block."""
        return HEAD.size + -(-self.column_count // ALIGNMENT_BYTES) * ALIGNMENT_BYTES

    def bytes_of(self, block: int) -> tuple[int, int]:
        """Return which of the tensor's bytes a block holds."""
        return block * self.block_bytes, min((block + 1) * self.block_bytes, self.size_bytes)

    def words_in(self, block: int) -> int:
        """Return how many words a block holds."""
        return min(self.block_words, self.word_count - block * self.block_words)


def encode_head(plan: PlanePlan, size_bytes: int) -> bytes:
    """Encode head and columns."""
    widths = bytes(plan.widths).ljust(8, b"\0")
    columns = plan.columns.ljust(-(-len(plan.columns) // ALIGNMENT_BYTES) * ALIGNMENT_BYTES, b"\0")
    fields = (MAGIC, VERSION, plan.word_bytes, plan.fold, len(plan.widths), widths, size_bytes, plan.base)
    return HEAD.pack(*fields, plan.block_words, len(plan.columns), plan.shift, bytes(7)) + columns


def decode_head(data: bytes | memoryview) -> PlanesHead:
    """Decode the fixed part of the head, and check each of its fields.

    Raises:
        ValueError: a field is wrong.
    """
    if len(data) < HEAD.size:
        raise ValueError("a planes stream ends in its head")
    magic, version, word_bytes, kind, plane_count, widths, size, base, block_words, columns, shift, zeros = HEAD.unpack(data[: HEAD.size])
    if magic != MAGIC or version != VERSION or zeros != bytes(7):
        raise ValueError("no planes stream of version 1")
    head = PlanesHead(word_bytes, kind, tuple(widths[:plane_count]), size, base, block_words, columns, shift)
    if word_bytes not in (1, 2, 4, 8) or kind > FOLD_SOURCE or (kind == FOLD_BITS and word_bytes != 1):
        raise ValueError(f"words of {word_bytes} bytes with fold {kind}")
    if sum(head.widths) != word_bytes or not set(head.widths) <= {1, 2, 4, 8} or any(widths[plane_count:]):
        raise ValueError(f"planes of {list(widths)} bytes for words of {word_bytes}")
    if size % word_bytes or base >> 8 * word_bytes or not 0 < head.block_bytes <= MAX_BLOCK_BYTES:
        raise ValueError(f"{size} bytes in blocks of {block_words} words of {word_bytes} bytes, with base {base}")
    rows = head.row_length
    if shift >= 8 * word_bytes or (rows and (kind == FOLD_BITS or block_words % rows or head.word_count % rows)):
        raise ValueError(f"rows of {rows} words, shifted by {shift}, in blocks of {block_words} of {head.word_count} words")
    if kind == FOLD_SOURCE and (not 0 < columns <= CLASS_LIMIT or base >= CLASS_LIMIT or shift):
        raise ValueError(f"{columns} classes of words from {base} on, shifted by {shift}")
    return head


class PlanesEncoder:
    """Encodes one tensor, block by block."""

    def __init__(self, plan: PlanePlan, size_bytes: int) -> None:
        self.plan = plan
        self.head = decode_head(encode_head(plan, size_bytes))
        self.spares = bytearray(self.head.block_count)
        self.sizes = [[0] * len(plan.widths) for _ in range(self.head.block_count)]
        upper = plan.layout.find_upper(has_rows=bool(plan.row_length))
        self._work, self._is_halved = upper or plan.layout, upper is not None

    def encode_head(self) -> bytes:
        """Return what stands before the first block."""
        return encode_head(self.plan, self.head.size_bytes)

    def encode_block(self, block: int, raw: memoryview, source: memoryview | None = None) -> bytes:
        """Return the bytes of one block, from the bytes of the tensor that belong into it, and those of a source."""
        return b"".join(self.encode_parts(block, raw, source))

    def encode_parts(self, block: int, raw: memoryview, source: memoryview | None = None) -> list[bytes | memoryview]:
        """Return the bytes of one block in parts, valid until this thread encodes another.

        With a `source`, which has as many bytes, they are those of what is to be added to it.
        """
        import numpy

        plan, work = self.plan, self._work
        words, lower, cuts = self._words(raw, self.head.words_in(block), source)
        rows = self._take_rows(words) if plan.row_length else b""
        if work.base and plan.fold != FOLD_SOURCE:
            numpy.subtract(words, words.dtype.type(work.base), out=words)
        spare = plan.spare if plan.spare and not int(words.max(initial=0)) >> (8 * work.word_bytes - plan.spare) else 0
        # Packing would tell equal words apart.
        if spare and words[0] == words[-1] and (words == words[0]).all():
            spare = 0
        self.spares[block] = spare
        planes = [cut_plane(words, *place, f"plane {index}") for index, place in enumerate(work.places(spare))] + lower
        parts: list[bytes | memoryview] = []
        for index, plane in reversed(list(enumerate(planes))):
            mode, data = encode_plane(plane, plan.widths[index], plan.levels[index], cuts)
            self.sizes[block][index] = mode << MODE_SHIFT | len(data)
            parts.append(data)
        size_bytes = sum(map(len, parts)) + len(rows)
        return [*parts, rows, bytes(-size_bytes % BLOCK_ALIGNMENT_BYTES)]

    def _words(self, raw: memoryview, count: int, source: memoryview | None) -> tuple[Words, list[Words], list[int]]:
        """Return a block as folded words that may be overwritten, or as their upper halves and the plane of the lower ones; and cuts."""
        import numpy

        plan = self.plan
        if plan.fold == FOLD_BITS:
            return numpy.packbits(numpy.frombuffer(raw, numpy.uint8), bitorder="little"), [], []
        words = numpy.frombuffer(raw, word_type(plan.word_bytes), count)
        if source is not None:
            from_words = numpy.frombuffer(source, words.dtype, count)
            if plan.fold == FOLD_SOURCE:
                order = find_order(from_words, plan.base, numpy.frombuffer(plan.columns, numpy.int8))
                return put_in_order(differences(words, from_words, "words"), order, "ordered"), [], order.cuts
            words = numpy.subtract(words, from_words, out=scratch("difference", count, words.dtype.str))
        if self._is_halved:
            upper, lower = split_rotated(words)
            return upper, [lower.view(numpy.uint8)], []
        words = fold(words, plan.fold, scratch("words", count, words.dtype.str))
        return words.copy() if plan.fold == FOLD_NONE and (plan.base or plan.row_length) else words, [], []

    def _take_rows(self, words: Words) -> bytes:
        import numpy

        columns = numpy.frombuffer(self.plan.columns, numpy.int8)
        matrix = words.reshape(-1, self.plan.row_length)
        rows = find_rows(matrix, columns, self.plan.centre, self._work.shift)
        take_off(matrix, rows, columns, self._work.shift)
        return rows.tobytes()

    def encode_table(self, position: int) -> bytes:
        """Return what follows the last block, which ends at `position`."""
        table = bytes(self.spares) + b"".join(size.to_bytes(4, "little") for sizes in self.sizes for size in sizes)
        return bytes(-(position + len(table)) % ALIGNMENT_BYTES) + table


class PlanesStream:
    """The head, columns and table of a stream, checked: where each block is, and how to decode it. Used by several threads at once."""

    def __init__(self, head: PlanesHead, columns: memoryview, end: memoryview, stream_bytes: int) -> None:
        """Check the table of a stream of so many bytes, given what it ends with: the table, and zeros before it.

        Raises:
            ValueError: it does not fit together.
        """
        import numpy

        self.head = head
        layout = WordLayout(head.word_bytes, head.fold, head.widths, head.base, head.shift)
        upper = layout.find_upper(has_rows=bool(head.row_length))
        self._work, self._is_halved = upper or layout, upper is not None
        count, planes = head.block_count, len(head.widths)
        if len(columns) != head.head_bytes - HEAD.size or any(columns[head.column_count :]):
            raise ValueError(
                f"columns of a planes stream have {len(columns)} bytes, not {head.head_bytes - HEAD.size}, or bytes behind them"
            )
        zeros, table = end[: len(end) - head.table_bytes], end[len(end) - head.table_bytes :]
        self._columns = numpy.frombuffer(columns, numpy.int8)[: head.column_count]
        if head.fold == FOLD_SOURCE and not 0 <= int(self._columns.min()) <= int(self._columns.max()) < 8 * head.word_bytes:
            raise ValueError("words of a planes stream are turned by more than they have")
        self._spares = bytes(table[:count])
        allowed = set(SPARE_BITS) if len(head.widths) > 1 and head.widths[:2] == (1, 1) else {0}
        if not set(self._spares) <= allowed:
            raise ValueError(f"spare bits {sorted(set(self._spares) - allowed)} in a planes stream")
        fields = numpy.frombuffer(table[count:], "<u4").astype(numpy.int64).reshape(count, planes)
        self._modes, self._sizes = fields >> MODE_SHIFT, fields & (1 << MODE_SHIFT) - 1
        rows = numpy.full(count, head.block_words // head.row_length if head.row_length else 0)
        if count and head.row_length:
            rows[-1] = head.words_in(count - 1) // head.row_length
        sizes = self._sizes.sum(axis=1) + rows
        sizes += -sizes % BLOCK_ALIGNMENT_BYTES
        self.offsets: list[int] = [head.head_bytes, *(head.head_bytes + numpy.cumsum(sizes)).tolist()]
        size_bytes = self.offsets[-1] + head.table_bytes
        padding_bytes = -size_bytes % ALIGNMENT_BYTES
        if stream_bytes != size_bytes + padding_bytes:
            raise ValueError(f"a planes stream has {stream_bytes} bytes, and its parts {size_bytes}")
        if any(zeros[len(zeros) - padding_bytes :]):
            raise ValueError("bytes between the blocks of a planes stream and its table")

    def decode_block(self, block: int, data: memoryview, out: memoryview, source: memoryview | None = None) -> None:
        """Decode a block from the stream's bytes between `offsets[block]` and `offsets[block + 1]` into the tensor's bytes.

        With a `source`, which has as many bytes and may be `out` itself, they are added to its words.

        Raises:
            ValueError: the bytes are no such block.
        """
        import numpy

        head, work, count = self.head, self._work, self.head.words_in(block)
        places = work.places(self._spares[block])
        position, planes = 0, []
        for index in reversed(range(len(head.widths))):
            size = int(self._sizes[block, index])
            width, spare = places[index][1:] if index < len(places) else (head.widths[index], 0)
            stored = data[position : position + size]
            planes.append(decode_plane(int(self._modes[block, index]), stored, plane_bytes(count, width, spare), width))
            position += size
        lower = planes.pop(0) if self._is_halved else None
        words = scratch("words", count, word_type(work.word_bytes))
        for place, plane in zip(reversed(places), planes, strict=True):
            merge_plane(words, plane, *place, is_first=plane is planes[0])
        if work.base and head.fold != FOLD_SOURCE:
            numpy.add(words, words.dtype.type(work.base), out=words)
        if head.row_length:
            matrix = words.reshape(-1, head.row_length)
            put_back(matrix, numpy.frombuffer(data[position : position + len(matrix)], numpy.int8), self._columns, work.shift)
            position += len(matrix)
        if any(data[position:]):
            raise ValueError("bytes behind the planes of a block")
        if head.fold == FOLD_SOURCE and source is not None:
            of_source = numpy.frombuffer(source, words.dtype)
            put_back_in_place(words, find_order(of_source, head.base, self._columns), of_source, numpy.frombuffer(out, words.dtype))
            return
        target = numpy.frombuffer(out, numpy.uint8) if source is None else scratch("difference", len(out), "u1")
        if lower is not None:
            join_rotated(words, lower.view("<u2"), target.view("<u4"))
        elif head.fold == FOLD_BITS:
            numpy.copyto(target, numpy.unpackbits(words, count=len(out), bitorder="little"))
        else:
            unfold(words, head.fold, target.view(words.dtype))
        if source is not None:
            dtype = word_type(head.word_bytes)
            numpy.add(target.view(dtype), numpy.frombuffer(source, dtype), out=numpy.frombuffer(out, dtype))


def encode_planes(raw: memoryview, dtype: str, shape: tuple[int, ...], *, level: int) -> bytes:
    """Encode a whole tensor at once."""
    dtype = coded_type(raw, dtype)
    return encode_whole(plan_planes(take_sample(raw, dtype, shape), dtype, shape, len(raw), level=level), raw)


def encode_whole(plan: PlanePlan, raw: memoryview, source: memoryview | None = None) -> bytes:
    """Encode a whole tensor as it was planned, as what is to be added to a source if there is one."""
    encoder = PlanesEncoder(plan, len(raw))
    parts = [encoder.encode_head()]
    for block in range(encoder.head.block_count):
        begin, end = encoder.head.bytes_of(block)
        parts.append(encoder.encode_block(block, raw[begin:end], None if source is None else source[begin:end]))
    return b"".join([*parts, encoder.encode_table(sum(map(len, parts)))])


def open_planes(peek: Callable[[int, int], memoryview], stream_bytes: int, raw_size_bytes: int, added_bytes: int = 0) -> PlanesStream:
    """Return a stream of so many bytes, of which `peek` gives ranges, and which must decode to so many.

    `added_bytes` is the size of the words that are to be added to a source, 0 if there is none.

    Raises:
        ValueError: it is none; nothing larger than the stream was allocated.
    """
    head = decode_head(peek(0, min(HEAD.size, stream_bytes)))
    if head.size_bytes != raw_size_bytes:
        raise ValueError(f"a planes stream of {head.size_bytes} bytes, where {raw_size_bytes} are declared")
    if added_bytes not in (0, head.word_bytes) or (head.fold == FOLD_SOURCE and not added_bytes):
        raise ValueError(f"words of {head.word_bytes} bytes, fold {head.fold}, of which words of {added_bytes} are added to a source")
    table_begin = stream_bytes - head.table_bytes
    if head.head_bytes > table_begin:
        raise ValueError(f"a planes stream of {stream_bytes} bytes is too short for its head and table")
    end = peek(max(head.head_bytes, table_begin - ALIGNMENT_BYTES), stream_bytes)
    return PlanesStream(head, peek(HEAD.size, head.head_bytes), end, stream_bytes)


def decode_planes(data: memoryview, raw_size_bytes: int, source: memoryview | None = None, added_bytes: int = 0) -> bytearray:
    """Decode a whole stream at once, and add it to a source if there is one, in words of `added_bytes`.

    Raises:
        ValueError: it is none.
    """
    stream = open_planes(lambda begin, end: data[begin:end], len(data), raw_size_bytes, added_bytes)
    raw = bytearray(raw_size_bytes)
    for block in range(stream.head.block_count):
        begin, end = stream.head.bytes_of(block)
        of_source = None if source is None else source[begin:end]
        stream.decode_block(block, data[stream.offsets[block] : stream.offsets[block + 1]], memoryview(raw)[begin:end], of_source)
    return raw
