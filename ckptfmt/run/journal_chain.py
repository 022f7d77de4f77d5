"""The chain of records through the segments of a journal: where it stands, and what it takes to go on. Spec 16.4.

Segments are entered in order; each continues from a position that the chain has reached, or the journal is damaged. Of the records after
the last one that is known to be durable the chain keeps the links, because the next segment continues from one of them.
"""

from __future__ import annotations

from collections.abc import Iterator

from ckptfmt.disk.protocol import Directory, ReadableFile
from ckptfmt.errors import FormatError
from ckptfmt.format.journal_header import SNAPSHOT, StoredHeader
from ckptfmt.format.journal_record import (
    LINK_BYTES,
    MARK_BYTES,
    ORIGIN,
    RECORD_OVERHEAD_BYTES,
    LoneRecord,
    Position,
    find_lone_record,
    lone_record_size,
    take_records,
)
from ckptfmt.format.rules import violation
from ckptfmt.run.journal_segments import Segment

PIECE_BYTES = 4 * 2**20
_SMALL_PIECE_BYTES = 2**16
_MAX_SEARCHED_BYTES = 2**28


class Chain:
    """Where the chain stands. Attributes: `base_number`, the number before its first record; `position`; `acknowledged`, the number
    up to which any byte says that records were acknowledged.
    """

    def __init__(self) -> None:
        self.base_number = 0
        self.position = ORIGIN
        self.acknowledged = 0
        self._durable_number = 0
        self._durable = ORIGIN
        self._links = bytearray()

    @property
    def record_count(self) -> int:
        """How many records it holds."""
        return self.position.number - self.base_number

    def begin(self, stored: StoredHeader) -> None:
        """Enter a segment with which a chain begins; what was before is forgotten."""
        self.base_number = stored.header.base.number
        self.acknowledged = self._durable_number = 0
        self.position = self._durable = Position(self.base_number, stored.link)
        self._links = bytearray()
        self.extend(b"", acknowledged=stored.header.acknowledged, is_durable=stored.header.is_durable)

    def enter(self, segment: Segment, stored: StoredHeader, *, previous_path: str, previous_bytes: int) -> int:
        """Enter a segment that continues the chain; return how many records it takes back, to repeat them.

        `previous_bytes` is how much of the segment before it is sound.

        Raises:
            CorruptError: the chain ends before it (E054, blamed on `previous_path`), or does not pass there (E055).
        """
        base = stored.header.base
        if base.number > self.position.number:
            self.acknowledged = max(self.acknowledged, base.number)
            raise self.missing(previous_path, previous_bytes)
        if self._link_at(base.number) != base.link:
            raise violation("E055", segment.path, f"continues from a record {base.number} that is not in the journal")
        taken_back = self.position.number - base.number
        del self._links[(base.number - self._durable.number) * LINK_BYTES :]
        self.position = base
        self.extend(b"", acknowledged=base.number, is_durable=stored.header.is_durable)
        return taken_back

    def extend(self, links: bytes | bytearray, *, acknowledged: int, is_durable: bool) -> None:
        """Add records by their links; the last of them says what was acknowledged by then."""
        self._links += links
        if links:
            self.position = Position(self.position.number + len(links) // LINK_BYTES, bytes(links[-LINK_BYTES:]))
        self.acknowledged = max(self.acknowledged, acknowledged)
        if is_durable:
            self._durable_number = max(self._durable_number, acknowledged)
        durable = min(self._durable_number, self.position.number)
        if durable > self._durable.number:
            link = self._link_at(durable)
            del self._links[: (durable - self._durable.number) * LINK_BYTES]
            self._durable = Position(durable, link)

    def missing(self, path: str, sound_bytes: int) -> FormatError:
        """Return the error for acknowledged records that are not there, after so many sound bytes of a file."""
        expected, found = f"records up to {self.acknowledged}", f"sound up to {self.position.number}, byte {sound_bytes:,} of the file"
        return violation("E054", path, expected=expected, found=found)

    def find_base(self, *, is_durable: bool) -> Position:
        """Return the position from which a new segment continues: what it can rely on, everything after that it repeats.

        A writer that flushes to the disk relies on what is durable, any other on what was acknowledged.
        """
        number = self._durable.number if is_durable else max(self._durable.number, min(self.acknowledged, self.position.number))
        return Position(number, self._link_at(number)) if number else ORIGIN

    def _link_at(self, number: int) -> bytes:
        """Return the link of a record after the durable ones, or of the last durable one; b"" for earlier ones."""
        end = (number - self._durable.number) * LINK_BYTES
        if end <= 0:
            return self._durable.link if end == 0 else b""
        return bytes(self._links[end - LINK_BYTES : end])


class SegmentReader:
    """Reads one segment forward, again and again if it grows, and extends the chain by what it finds.

    Attributes: `offset_bytes`, where the next record would begin; `rest_bytes`, what there is after that point;
    `is_sealed`; `has_flushed`, whether its records say that one of them was acknowledged.
    """

    def __init__(self, segment: Segment, stored: StoredHeader, chain: Chain) -> None:
        self.segment = segment
        self._header = stored.header
        self._chain = chain
        # The first record is tied to the header, not to the record before it in another segment.
        self._link = stored.link
        self.offset_bytes = stored.size_bytes
        self.rest_bytes = 0
        self.is_sealed = False
        self.has_flushed = stored.header.acknowledged > stored.header.base.number

    def read(self, directory: Directory, *, piece_bytes: int = PIECE_BYTES) -> Iterator[list[bytes]]:
        """Yield the payloads of the records that follow, some at a time.

        Raises:
            CorruptError: what follows is a record of this segment, sound by itself, and not the next of the chain (E055).
        """
        file = directory.open(self.segment.name)
        try:
            yield from self._read_file(file, piece_bytes)
        finally:
            file.close()

    def _read_file(self, file: ReadableFile, piece_bytes: int) -> Iterator[list[bytes]]:
        while not self.is_sealed and self.offset_bytes < file.size_bytes:
            data = file.read(self.offset_bytes, piece_bytes)
            found = take_records(data, mark=self.segment.mark, after=Position(self._chain.position.number, self._link))
            self._link = bytes(found.links[-LINK_BYTES:]) or self._link
            self.offset_bytes += found.size_bytes
            self.is_sealed = found.is_sealed
            self.has_flushed = self.has_flushed or found.acknowledged > self._header.base.number
            self._chain.extend(found.links, acknowledged=found.acknowledged, is_durable=self._header.is_durable)
            yield found.payloads
            if not found.needed_bytes:
                break
            piece_bytes = max(piece_bytes, found.needed_bytes - found.size_bytes)
            if self.offset_bytes + found.needed_bytes - found.size_bytes > file.size_bytes:
                break
        self.rest_bytes = file.size_bytes - self.offset_bytes
        if self.rest_bytes:
            self._check_not_out_of_order(file)

    def _check_not_out_of_order(self, file: ReadableFile) -> None:
        data = file.read(self.offset_bytes, RECORD_OVERHEAD_BYTES)
        lone = find_lone_record(file.read(self.offset_bytes, lone_record_size(data)), mark=self.segment.mark)
        if lone is not None:
            expected = f"record {self._chain.position.number + 1}" if not self.is_sealed else "nothing after the seal"
            where = f"{self.segment.path}: at byte {self.offset_bytes}"
            raise violation("E055", where, expected=expected, found=f"a sound record {lone.number} that does not follow")


def is_complete(directory: Directory, segment: Segment) -> bool:
    """Tell whether a segment has a sound header and holds every record that it repeats.

    One that does not was never flushed, and what it takes back is still where it was. A snapshot is always taken for complete,
    because it got its name after it was synced.
    """
    if segment.stored is None:
        return False
    header, chain = segment.stored.header, Chain()
    chain.begin(segment.stored)
    if header.kind != SNAPSHOT and header.through > header.base.number:
        for _ in SegmentReader(segment, segment.stored, chain).read(directory, piece_bytes=_SMALL_PIECE_BYTES):
            if chain.position.number >= header.through:
                return True
        return False
    return True


def find_lone_records(directory: Directory, segment: Segment, *, offset_bytes: int) -> Iterator[LoneRecord]:
    """Yield the records after some point of a segment that are sound by themselves, whatever lies between them.

    They are found by the segment's mark.

    Raises:
        CorruptError: so many marks begin no record that somebody wants to keep us busy (E055).
    """
    file = directory.open(segment.name)
    try:
        allowed_bytes = _MAX_SEARCHED_BYTES + 8 * file.size_bytes
        for candidate in _find_marks(file, segment.mark, offset_bytes):
            size_bytes = lone_record_size(file.read(candidate, RECORD_OVERHEAD_BYTES))
            allowed_bytes -= size_bytes
            if allowed_bytes < 0:
                raise violation("E055", segment.path, "marks of records", found="far more than records")
            lone = find_lone_record(file.read(candidate, size_bytes), mark=segment.mark)
            if lone is not None:
                yield lone
    finally:
        file.close()


def _find_marks(file: ReadableFile, mark: bytes, offset_bytes: int) -> Iterator[int]:
    while offset_bytes < file.size_bytes:
        piece = file.read(offset_bytes, PIECE_BYTES)
        index = piece.find(mark)
        while index >= 0:
            yield offset_bytes + index
            index = piece.find(mark, index + 1)
        if len(piece) < PIECE_BYTES:
            return
        # A mark may lie across the border of two pieces.
        offset_bytes += len(piece) - (MARK_BYTES - 1)
