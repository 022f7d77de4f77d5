"""The codec `planes`: a tensor's bytes as independent blocks of coded planes. Spec 11.2.

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
from ckptfmt.format.plane_words import (
    FOLD_BITS,
    FOLD_NONE,
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
    """The head of a stream, as spec 11.2 lists it."""

    word_bytes: int
    fold: int
    widths: tuple[int, ...]
    size_bytes: int
    base: int
    block_words: int
    row_length: int
    shift: int

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
        return HEAD.size + -(-self.row_length // ALIGNMENT_BYTES) * ALIGNMENT_BYTES

    def words_in(self, block: int) -> int:
        """Return how many words a block holds."""
        return min(self.block_words, self.word_count - block * self.block_words)


def encode_head(plan: PlanePlan, size_bytes: int) -> bytes:
    """Encode head and columns."""
    widths = bytes(plan.widths).ljust(8, b"\0")
    columns = plan.columns.ljust(-(-len(plan.columns) // ALIGNMENT_BYTES) * ALIGNMENT_BYTES, b"\0")
    fields = (MAGIC, VERSION, plan.word_bytes, plan.fold, len(plan.widths), widths, size_bytes, plan.base)
    return HEAD.pack(*fields, plan.block_words, plan.row_length, plan.shift, bytes(7)) + columns


def decode_head(data: bytes | memoryview) -> PlanesHead:
    """Decode the fixed part of the head, and check each of its fields.

    Raises:
        ValueError: a field is wrong.
    """
    if len(data) < HEAD.size:
        raise ValueError("a planes stream ends in its head")
    magic, version, word_bytes, kind, plane_count, widths, size, base, block_words, row_length, shift, zeros = HEAD.unpack(
        data[: HEAD.size]
    )
    if magic != MAGIC or version != VERSION or zeros != bytes(7):
        raise ValueError("no planes stream of version 1")
    head = PlanesHead(word_bytes, kind, tuple(widths[:plane_count]), size, base, block_words, row_length, shift)
    if word_bytes not in (1, 2, 4, 8) or kind > FOLD_BITS or (kind == FOLD_BITS and word_bytes != 1):
        raise ValueError(f"words of {word_bytes} bytes with fold {kind}")
    if sum(head.widths) != word_bytes or not set(head.widths) <= {1, 2, 4, 8} or any(widths[plane_count:]):
        raise ValueError(f"planes of {list(widths)} bytes for words of {word_bytes}")
    if size % word_bytes or base >> 8 * word_bytes or not 0 < head.block_bytes <= MAX_BLOCK_BYTES:
        raise ValueError(f"{size} bytes in blocks of {block_words} words of {word_bytes} bytes, with base {base}")
    if shift >= 8 * word_bytes or (row_length and (kind == FOLD_BITS or block_words % row_length or head.word_count % row_length)):
        raise ValueError(f"rows of {row_length} words, shifted by {shift}, in blocks of {block_words} of {head.word_count} words")
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

    def encode_block(self, block: int, raw: memoryview) -> bytes:
        """Return the bytes of one block, from the bytes of the tensor that belong into it."""
        return b"".join(self.encode_parts(block, raw))

    def encode_parts(self, block: int, raw: memoryview) -> list[bytes | memoryview]:
        """Return the bytes of one block in parts, valid until this thread encodes another."""
        import numpy

        plan, work = self.plan, self._work
        words, lower = self._words(raw, self.head.words_in(block))
        rows = self._take_rows(words) if plan.row_length else b""
        if work.base:
            numpy.subtract(words, words.dtype.type(work.base), out=words)
        spare = plan.spare if plan.spare and not int(words.max(initial=0)) >> (8 * work.word_bytes - plan.spare) else 0
        # Packing would tell equal words apart.
        if spare and words[0] == words[-1] and (words == words[0]).all():
            spare = 0
        self.spares[block] = spare
        planes = [cut_plane(words, *place, f"plane {index}") for index, place in enumerate(work.places(spare))] + lower
        parts: list[bytes | memoryview] = []
        for index, plane in reversed(list(enumerate(planes))):
            mode, data = encode_plane(plane, plan.widths[index], plan.levels[index])
            self.sizes[block][index] = mode << MODE_SHIFT | len(data)
            parts.append(data)
        size_bytes = sum(map(len, parts)) + len(rows)
        return [*parts, rows, bytes(-size_bytes % BLOCK_ALIGNMENT_BYTES)]

    def _words(self, raw: memoryview, count: int) -> tuple[Words, list[Words]]:
        """Return a block as folded words that may be overwritten, or as their upper halves and the plane of the lower ones."""
        import numpy

        plan = self.plan
        if plan.fold == FOLD_BITS:
            return numpy.packbits(numpy.frombuffer(raw, numpy.uint8), bitorder="little"), []
        words = numpy.frombuffer(raw, word_type(plan.word_bytes), count)
        if self._is_halved:
            upper, lower = split_rotated(words)
            return upper, [lower.view(numpy.uint8)]
        words = fold(words, plan.fold, scratch("words", count, words.dtype.str))
        return words.copy() if plan.fold == FOLD_NONE and (plan.base or plan.row_length) else words, []

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
        if len(columns) != head.head_bytes - HEAD.size or any(columns[head.row_length :]):
            raise ValueError(
                f"columns of a planes stream have {len(columns)} bytes, not {head.head_bytes - HEAD.size}, or bytes behind them"
            )
        zeros, table = end[: len(end) - head.table_bytes], end[len(end) - head.table_bytes :]
        self._columns = numpy.frombuffer(columns, numpy.int8)[: head.row_length]
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

    def decode_block(self, block: int, data: memoryview, out: memoryview) -> None:
        """Decode a block from the stream's bytes between `offsets[block]` and `offsets[block + 1]` into the tensor's bytes.

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
        if work.base:
            numpy.add(words, words.dtype.type(work.base), out=words)
        if head.row_length:
            matrix = words.reshape(-1, head.row_length)
            put_back(matrix, numpy.frombuffer(data[position : position + len(matrix)], numpy.int8), self._columns, work.shift)
            position += len(matrix)
        if any(data[position:]):
            raise ValueError("bytes behind the planes of a block")
        if lower is not None:
            join_rotated(words, lower.view("<u2"), numpy.frombuffer(out, "<u4"))
        elif head.fold == FOLD_BITS:
            numpy.copyto(numpy.frombuffer(out, numpy.uint8), numpy.unpackbits(words, count=len(out), bitorder="little"))
        else:
            unfold(words, head.fold, numpy.frombuffer(out, words.dtype))


def encode_planes(raw: memoryview, dtype: str, shape: tuple[int, ...], *, level: int) -> bytes:
    """Encode a whole tensor at once."""
    dtype = coded_type(raw, dtype)
    encoder = PlanesEncoder(plan_planes(take_sample(raw, dtype, shape), dtype, shape, len(raw), level=level), len(raw))
    step = encoder.head.block_bytes
    parts = [encoder.encode_head()]
    parts += [encoder.encode_block(block, raw[block * step : (block + 1) * step]) for block in range(encoder.head.block_count)]
    return b"".join([*parts, encoder.encode_table(sum(map(len, parts)))])


def open_planes(peek: Callable[[int, int], memoryview], stream_bytes: int, raw_size_bytes: int) -> PlanesStream:
    """Return a stream of so many bytes, of which `peek` gives ranges, and which must decode to so many.

    Raises:
        ValueError: it is none; nothing larger than the stream was allocated.
    """
    head = decode_head(peek(0, min(HEAD.size, stream_bytes)))
    if head.size_bytes != raw_size_bytes:
        raise ValueError(f"a planes stream of {head.size_bytes} bytes, where {raw_size_bytes} are declared")
    table_begin = stream_bytes - head.table_bytes
    if head.head_bytes > table_begin:
        raise ValueError(f"a planes stream of {stream_bytes} bytes is too short for its head and table")
    end = peek(max(head.head_bytes, table_begin - ALIGNMENT_BYTES), stream_bytes)
    return PlanesStream(head, peek(HEAD.size, head.head_bytes), end, stream_bytes)


def decode_planes(data: memoryview, raw_size_bytes: int) -> bytearray:
    """Decode a whole stream at once.

    Raises:
        ValueError: it is none.
    """
    stream = open_planes(lambda begin, end: data[begin:end], len(data), raw_size_bytes)
    raw = bytearray(raw_size_bytes)
    step, view = stream.head.block_bytes, memoryview(raw)
    for block in range(stream.head.block_count):
        stream.decode_block(block, data[stream.offsets[block] : stream.offsets[block + 1]], view[block * step : (block + 1) * step])
    return raw
