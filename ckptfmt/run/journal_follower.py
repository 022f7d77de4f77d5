"""Following a journal while somebody writes it: each poll reads only what is new. Spec 16.4.

The follower keeps its place in the chain. When a new segment continues from there it goes on in it; when that is not possible, after a
compaction or a power cut of the writer's machine, it reads the journal from its beginning and says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ckptfmt.disk.protocol import Disk
from ckptfmt.errors import FormatError
from ckptfmt.run.journal_chain import Chain, SegmentReader, find_lone_records, is_complete
from ckptfmt.run.journal_payloads import PayloadStore
from ckptfmt.run.journal_scan import scan_journal
from ckptfmt.run.journal_segments import find_segments, open_journal_directory, segment_names


@dataclass(frozen=True, slots=True)
class JournalUpdate:
    """Number and value of the records that are new. If `is_restarted`, they take the place of all that were given out before."""

    records: list[tuple[int, Any]]
    is_restarted: bool


@dataclass(frozen=True, slots=True)
class _Given:
    """What was given out so far: up to which record, after which base, and the last of them."""

    base_number: int
    number: int
    last_payload: bytes


class _CannotContinueError(Exception):
    """The journal does not go on where the follower stands, as far as the follower can see."""


class JournalFollower:
    """Reads a journal as it grows. Use as a context manager."""

    def __init__(self, disk: Disk, path: str) -> None:
        self._directory = open_journal_directory(disk, path)
        self._path = path
        self._names: set[str] = set()
        self._chain = Chain()
        self._reader: SegmentReader | None = None
        self._searched_bytes = 0
        self._given = _Given(0, 0, b"")

    def __enter__(self) -> JournalFollower:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop following."""
        self._directory.close()

    def poll(self) -> JournalUpdate:
        """Return what was appended since the last call; at the first call everything.

        Raises:
            CorruptError: as `read_journal`.
        """
        given = self._given
        payloads, is_restarted = self.poll_payloads()
        store = PayloadStore()
        store.add(payloads)
        try:
            records = list(store.decode(first_number=self.last_number - len(payloads) + 1, where=self._path))
        except FormatError:
            # Not given out, so the next call has to come here again.
            self._given, self._reader = given, None
            raise
        return JournalUpdate(records, is_restarted)

    @property
    def base_number(self) -> int:
        """The number before the first record of the journal."""
        return self._chain.base_number

    @property
    def last_number(self) -> int:
        """The number of the last record that was given out."""
        return self._given.number

    def poll_payloads(self) -> tuple[list[bytes], bool]:
        """Do as `poll`, and return the records as they are encoded, and whether they take the place of all before."""
        try:
            payloads, is_restarted = self._continue(), False
        except (_CannotContinueError, FormatError, FileNotFoundError):
            payloads, is_restarted = self._read_again()
        last_payload = payloads[-1] if payloads else self._given.last_payload
        self._given = _Given(self._chain.base_number, self._chain.position.number, last_payload)
        return payloads, is_restarted

    def _continue(self) -> list[bytes]:
        reader, names = self._reader, set(segment_names(self._directory))
        if reader is None or not self._names <= names:
            raise _CannotContinueError
        payloads = self._read(reader, self._given.number)
        for segment in find_segments(self._directory, sorted(names - self._names)):
            if segment.error or segment.number <= reader.segment.number:
                raise _CannotContinueError
            if segment.stored is None or not is_complete(self._directory, segment):
                # Its writer is just making it, or was killed then. It is looked at again.
                continue
            reached_number = self._chain.position.number
            if segment.stored.header.begins_chain or segment.stored.header.through < reached_number:
                raise _CannotContinueError
            self._chain.enter(segment, segment.stored, previous_path=reader.segment.path, previous_bytes=reader.offset_bytes)
            self._reader = reader = SegmentReader(segment, segment.stored, self._chain)
            self._names.add(segment.name)
            self._searched_bytes = 0
            payloads += self._read(reader, reached_number)
        return payloads

    def _read(self, reader: SegmentReader, reached_number: int) -> list[bytes]:
        """Read what a segment has gained, and return of that what comes after `reached_number`."""
        repeated_count = max(0, reached_number - self._chain.position.number)
        payloads = [payload for piece in reader.read(self._directory) for payload in piece]
        if reader.rest_bytes and reader.rest_bytes != self._searched_bytes:
            witnesses = find_lone_records(self._directory, reader.segment, offset_bytes=reader.offset_bytes)
            if any(record.acknowledged > self._chain.position.number for record in witnesses):
                raise _CannotContinueError
        self._searched_bytes = reader.rest_bytes
        return payloads[repeated_count:]

    def _read_again(self) -> tuple[list[bytes], bool]:
        self._reader = None
        scan = scan_journal(self._directory).checked()
        self._chain = scan.chain
        self._reader = scan.readers[-1] if scan.readers else None
        self._names = {reader.segment.name for reader in scan.readers}
        self._searched_bytes = self._reader.rest_bytes if self._reader else 0
        payloads = list(scan.payloads)
        given_count = self._given.number - scan.chain.base_number
        is_continued = self._given.base_number == scan.chain.base_number and given_count <= len(payloads)
        if is_continued and (given_count == 0 or payloads[given_count - 1] == self._given.last_payload):
            return payloads[given_count:], False
        return payloads, True
