"""Encoded slots as the bytes of their chunks: in pieces, by all cores, verified on the way. Spec 11.

Memory stays bounded: what is decoded passes through a few buffers, or goes at once to where it is wanted. What a file declares is compared
with the index before anything is allocated for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

from ckptfmt.checkpoint.piece_buffers import BUFFERS, PIECE_BYTES
from ckptfmt.checkpoint.shard_file import ShardFile
from ckptfmt.checkpoint.stored_bytes import StoredBytes
from ckptfmt.disk.aligned import aligned_buffer
from ckptfmt.disk.background import usable_cores
from ckptfmt.errors import FormatError
from ckptfmt.format.byte_planes import PlanesStream, open_planes
from ckptfmt.format.digest import Hasher, short
from ckptfmt.format.encodings import PLANES, SAME, Encoding
from ckptfmt.format.rounding import round_floats
from ckptfmt.format.rules import violation
from ckptfmt.format.zstd_frame import decompress_frames

MAX_THREADS = 8
MANY_PIECES_BYTES = 2 * PIECE_BYTES
SMALL_BYTES = 2**20
FLOAT32_BYTES = 4

Place = tuple[int, int]
Room = tuple[memoryview, memoryview]


def default_threads() -> int:
    """Return how many threads decode: the cores there are, up to what memory is bounded for."""
    return min(usable_cores(), MAX_THREADS)


class SlotDecoder:
    """Decodes slots of an open checkpoint's shards. Several threads may use it at once.

    `kept` are chunks that the caller has decoded already: those that are made from others are made from them.
    """

    def __init__(self, shards: Mapping[int, ShardFile], *, verify: bool) -> None:
        self.kept: dict[Place, memoryview] = {}
        self._shards = shards
        self._verify = verify
        self._sound: set[Place] = set()

    def encoding(self, place: Place) -> Encoding | None:
        """Return how a slot is encoded, None where it holds its chunk as it is."""
        return self._shards[place[0]].table.encodings.get(place[1])

    def stored_size_bytes(self, place: Place) -> int:
        """Return how many bytes a slot has."""
        return self._shards[place[0]].table.sizes[place[1]]

    def raw_size_bytes(self, place: Place) -> int:
        """Return the size of a slot's chunk."""
        encoding = self.encoding(place)
        return encoding.raw_size_bytes if encoding else self.stored_size_bytes(place)

    def source(self, place: Place) -> Place | None:
        """Return the slot from which one is made, None where it has bytes of its own."""
        encoding = self.encoding(place)
        return None if encoding is None else encoding.source

    def chain(self, place: Place) -> list[Place]:
        """Return the slots whose decoded bytes add up to the chunk of one: a slot that is no delta, then deltas, and the slot itself."""
        places = [place]
        while (encoding := self.encoding(places[-1])) is not None and encoding.delta_source is not None:
            places.append(encoding.delta_source)
        return places[::-1]

    def is_reachable(self, place: Place) -> bool:
        """Tell whether every shard is there that decoding a slot takes."""
        pending: Place | None = place
        while pending is not None:
            if pending[0] not in self._shards:
                return False
            encoding = self.encoding(pending)
            pending = None if encoding is None else encoding.source or encoding.delta_source
        return True

    def key(self, place: Place) -> str:
        """Return the key of a slot, for messages."""
        return self._shards[place[0]].table.keys[place[1]]

    def decode(self, place: Place, out: memoryview | None = None, *, threads: int | None = None) -> memoryview:
        """Return a slot's chunk, verified, in memory of its own or in `out`."""
        target = out if out is not None else self.allocate(place)
        for _ in self.pieces(place, target, threads=threads):
            pass
        return target

    def pieces(self, place: Place, out: memoryview | None = None, *, threads: int | None = None) -> Iterator[memoryview]:
        """Give a slot's chunk piece by piece, each valid until the next; with `out` they are parts of that. Verified at the end.

        Raises:
            CorruptError: E040 where its bytes are damaged, E045 or E047 where they do not decode to what is declared.
        """
        encoding = self.encoding(place)
        if encoding is None:
            yield from _copied(self._stored_pieces(place), out)
            return
        yield from self._verified(place, encoding, self._decoded(place, encoding, out, threads or default_threads()))

    def sums(self, place: Place, total: memoryview, *, threads: int | None = None) -> Iterator[memoryview]:
        """Make the chunk of a delta of that of its source, which `total` holds, and give it as `pieces` does.

        Raises:
            CorruptError: as of `pieces`.
        """
        encoding = self.encoding(place)
        if encoding is not None:
            yield from self._verified(place, encoding, self._added(place, encoding, total, threads or default_threads()))

    def _verified(self, place: Place, encoding: Encoding, pieces: Iterator[memoryview]) -> Iterator[memoryview]:
        hasher = Hasher() if self._verify else None
        for piece in pieces:
            if hasher is not None:
                hasher.update(piece)
            yield piece
        if hasher is not None and hasher.digest() != encoding.raw_digest:
            raise self.refused("E045", place, f"decoded bytes of {self.key(place)!r}", expected=short(encoding.raw_digest))
        self._sound.add(place)

    def _summed(self, place: Place, out: memoryview | None, threads: int) -> Iterator[memoryview]:
        """Decode the slots of a chain, one after the other, into the same memory; only the last sum is given, and verified."""
        lowest, *deltas = self.chain(place)
        total = self.decode(lowest, out if out is not None else self.allocate(place), threads=threads)
        for delta in deltas:
            if (encoding := self.encoding(delta)) is not None:
                for piece in self._added(delta, encoding, total, threads):
                    if delta == place:
                        yield piece

    def _added(self, place: Place, encoding: Encoding, total: memoryview, threads: int) -> Iterator[memoryview]:
        return self._planes(place, encoding, total, threads, encoding.added_bytes)

    def _decoded(self, place: Place, encoding: Encoding, out: memoryview | None, threads: int) -> Iterator[memoryview]:
        if encoding.source is not None:
            kept = self.kept.get(encoding.source)
            source = _cut(kept) if kept is not None else self.pieces(encoding.source, threads=threads)
            return _copied(source, out) if encoding.kind == SAME else _rounded(source, encoding.codecs[0][1]["to"], out)
        if encoding.delta_source is not None:
            return self._summed(place, out, threads)
        if encoding.kind == PLANES:
            return self._planes(place, encoding, out, threads)
        return _copied(self._frames(place, encoding), out)

    def _stored_pieces(self, place: Place) -> Iterator[memoryview]:
        stored = self._stored(place)
        buffer = BUFFERS.take(PIECE_BYTES)
        try:
            for end in range(min(PIECE_BYTES, stored.size_bytes), stored.size_bytes + PIECE_BYTES, PIECE_BYTES):
                yield stored.take(min(end, stored.size_bytes), buffer)
        finally:
            BUFFERS.give_back(buffer)
        stored.check()
        self._sound.add(place)

    def _stored(self, place: Place) -> StoredBytes:
        return StoredBytes(self._shards[place[0]], place[1], verify=self._verify and place not in self._sound)

    def _frames(self, place: Place, encoding: Encoding) -> Iterator[memoryview]:
        stored = self._stored(place)
        data = stored.peek(0, stored.size_bytes)
        try:
            for _ in encoding.codecs:
                raw = decompress_frames(data, raw_size_bytes=encoding.raw_size_bytes, where=self._where(place), tensor=self.key(place))
                data = memoryview(raw)
        except FormatError as error:
            raise stored.blamed_for(error) from None
        stored.check()
        yield from _cut(data)

    def _planes(self, place: Place, encoding: Encoding, out: memoryview | None, threads: int, added_bytes: int = 0) -> Iterator[memoryview]:
        """Decode a stream; with `added_bytes`, words of that size are added to those that `out` holds."""
        stored = self._stored(place)
        try:
            stream = open_planes(stored.peek, stored.size_bytes, encoding.raw_size_bytes, added_bytes)
            stored.take(stream.offsets[0])
            threads = threads if encoding.raw_size_bytes > MANY_PIECES_BYTES else 1
            yield from self._run(stored, stream, out, threads, is_added=added_bytes > 0)
        except ValueError as error:
            if isinstance(error, FormatError):
                raise
            raise stored.blamed_for(self.refused("E047", place, f"tensor {self.key(place)!r}: {error}")) from None
        stored.check()

    def _run(
        self, stored: StoredBytes, stream: PlanesStream, out: memoryview | None, threads: int, *, is_added: bool
    ) -> Iterator[memoryview]:
        """Read and hash here, in order; with several threads, they decode what was read before."""
        with ExitStack() as stack:
            rooms = deque(stack.enter_context(_room(stream, out)) for _ in range(threads + 1 if threads > 1 else 1))
            if threads < 2:
                for group in _groups(stream):
                    data = stored.take(stream.offsets[group.stop], rooms[0][0])
                    yield _decode_group(stream, group, data, _target(stream, group, out, rooms[0][1]), is_added=is_added)
                return
            pending: deque[tuple[Future[memoryview], Room]] = deque()
            # Left before the rooms are given back: no thread works in them any more then.
            with ThreadPoolExecutor(threads, thread_name_prefix="ckptfmt-decode") as pool:
                for group in _groups(stream):
                    if not rooms:
                        future, room = pending.popleft()
                        yield future.result()
                        rooms.append(room)
                    room = rooms.popleft()
                    data = stored.take(stream.offsets[group.stop], room[0])
                    target = _target(stream, group, out, room[1])
                    pending.append((pool.submit(_decode_group, stream, group, data, target, is_added=is_added), room))
                while pending:
                    yield pending.popleft()[0].result()

    def read_range(self, place: Place, begin: int, end: int) -> memoryview:
        """Return some bytes of a slot's chunk, decoding only the blocks that hold them. The slot's stored bytes are verified once."""
        encoding = self.encoding(place)
        if encoding is not None and encoding.source is not None:
            if encoding.kind == SAME:
                return self.read_range(encoding.source, begin, end)
            rounded = memoryview(bytearray(end - begin))
            source = self.read_range(encoding.source, begin // 2 * FLOAT32_BYTES, -(-end // 2) * FLOAT32_BYTES)
            whole = memoryview(bytearray(len(source) // 2))
            round_floats(source, encoding.codecs[0][1]["to"], whole)
            rounded[:] = whole[begin % 2 : begin % 2 + len(rounded)]
            return rounded
        if encoding is None or encoding.kind != PLANES:
            return self._verified_range(place, begin, end) if encoding is None else self.decode(place)[begin:end]
        stored = self._stored(place)
        stored.check()
        self._sound.add(place)
        try:
            stream = open_planes(stored.peek, stored.size_bytes, encoding.raw_size_bytes, encoding.added_bytes)
            step = stream.head.block_bytes
            blocks = range(begin // step, -(-end // step))
            start, stop = blocks.start * step, min(blocks.stop * step, encoding.raw_size_bytes)
            below = encoding.delta_source
            raw = memoryview(bytearray(stop - start)) if below is None else self.read_range(below, start, stop)
            for group in _groups(stream, blocks):
                data = stored.peek(stream.offsets[group.start], stream.offsets[group.stop])
                _decode_group(stream, group, data, raw[(group.start - blocks.start) * step :], is_added=below is not None)
        except ValueError as error:
            if isinstance(error, FormatError):
                raise
            raise self.refused("E047", place, f"tensor {self.key(place)!r}: {error}") from None
        return raw[begin - start : end - start]

    def _verified_range(self, place: Place, begin: int, end: int) -> memoryview:
        stored = self._stored(place)
        stored.check()
        self._sound.add(place)
        return memoryview(bytearray(stored.peek(begin, end)))

    def allocate(self, place: Place) -> memoryview:
        """Return memory for a slot's chunk.

        Raises:
            FormatError: E045, this machine has not so much.
        """
        size_bytes = self.raw_size_bytes(place)
        try:
            return aligned_buffer(size_bytes) if size_bytes > SMALL_BYTES else memoryview(bytearray(size_bytes))
        except (MemoryError, OSError, OverflowError):
            what = f"tensor {self.key(place)!r}: declared size of the decoded bytes is more than the memory of this machine"
            raise self.refused("E045", place, what, found=size_bytes) from None

    def _where(self, place: Place) -> str:
        return self._shards[place[0]].where

    def refused(self, rule: str, place: Place, what: str, *, expected: object = None, found: object = None) -> FormatError:
        """Return the violation of a rule by a slot, ready to be raised."""
        return violation(rule, self._where(place), what, expected=expected, found=found, tensor=self.key(place))


def _groups(stream: PlanesStream, blocks: range | None = None) -> list[range]:
    """Return runs of blocks that decode to a piece each."""
    wanted = blocks if blocks is not None else range(stream.head.block_count)
    count = max(1, PIECE_BYTES // stream.head.block_bytes)
    return [range(first, min(first + count, wanted.stop)) for first in range(wanted.start, wanted.stop, count)]


@contextmanager
def _room(stream: PlanesStream, out: memoryview | None) -> Iterator[Room]:
    """Lend memory for the stored bytes of a piece and, unless pieces are parts of `out`, for the piece."""
    stored = BUFFERS.take(PIECE_BYTES)
    raw = BUFFERS.take(max(PIECE_BYTES, stream.head.block_bytes)) if out is None else memoryview(b"")
    try:
        yield stored, raw
    finally:
        BUFFERS.give_back(stored)
        BUFFERS.give_back(raw)


def _target(stream: PlanesStream, group: range, out: memoryview | None, buffer: memoryview) -> memoryview:
    begin = group.start * stream.head.block_bytes
    end = min(group.stop * stream.head.block_bytes, stream.head.size_bytes)
    return buffer[: end - begin] if out is None else out[begin:end]


def _decode_group(stream: PlanesStream, group: range, data: memoryview, target: memoryview, *, is_added: bool) -> memoryview:
    """Decode some blocks from their bytes, which are together in `data`, or add what they decode to."""
    start, step = stream.offsets[group.start], stream.head.block_bytes
    for block in group:
        part = data[stream.offsets[block] - start : stream.offsets[block + 1] - start]
        begin = (block - group.start) * step
        of_block = target[begin : min(begin + step, len(target))]
        stream.decode_block(block, part, of_block, of_block if is_added else None)
    return target


def _cut(memory: memoryview) -> Iterator[memoryview]:
    for begin in range(0, len(memory), PIECE_BYTES):
        yield memory[begin : begin + PIECE_BYTES]


def _copied(pieces: Iterator[memoryview], out: memoryview | None) -> Iterator[memoryview]:
    position = 0
    for piece in pieces:
        if out is not None:
            out[position : position + len(piece)] = piece
        yield piece
        position += len(piece)


def whole_elements(pieces: Iterator[memoryview]) -> Iterator[memoryview]:
    """Give the same bytes in pieces of whole elements of float32, whatever the blocks of a stream are."""
    rest = b""
    for piece in pieces:
        joined = memoryview(rest + bytes(piece)) if rest else piece
        end = len(joined) // FLOAT32_BYTES * FLOAT32_BYTES
        rest = bytes(joined[end:])
        yield joined[:end]


def _rounded(pieces: Iterator[memoryview], to: str, out: memoryview | None) -> Iterator[memoryview]:
    position = 0
    for piece in whole_elements(pieces):
        target = memoryview(bytearray(len(piece) // 2)) if out is None else out[position : position + len(piece) // 2]
        round_floats(piece, to, target)
        yield target
        position += len(target)
