"""Appending to a journal: records that survive once they are flushed. Mirror of journal_reader. Spec 16.5.

Each session writes a segment of its own and nobody ever writes to an old one, so what a killed session left cannot hurt. A new segment
begins by repeating the records of which nobody knows that they are durable. The same happens within a session after a failed write or
sync: the segment is given up and the next one repeats what is pending. The caller holds a lock; if two write all the same, both names
and sizes of the files tell, and one of them fails before it acknowledges anything.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from ckptfmt.checkpoint.staging import is_full, not_enough_space
from ckptfmt.disk.paths import make_directories
from ckptfmt.disk.protocol import Directory, Disk, WritableFile
from ckptfmt.errors import DurabilityUnknownError, NotEnoughSpaceError, RunLockedError
from ckptfmt.format.journal_header import FIRST, NEXT, SNAPSHOT, encode_header
from ckptfmt.format.journal_record import ORIGIN, Position, encode_record, encode_value, is_temporary_segment_name
from ckptfmt.run.journal_content import JournalContent, content_of
from ckptfmt.run.journal_scan import JournalScan, scan_journal
from ckptfmt.run.journal_segments import segment_names
from ckptfmt.run.journal_snapshot import Snapshot, new_header, write_snapshot


@dataclass(slots=True)
class _OpenSegment:
    """The segment of this session. `size_bytes` counts what was given to the file, whether it arrived or not."""

    name: str
    mark: bytes
    file: WritableFile
    position: Position
    size_bytes: int = 0
    has_flushed: bool = False

    def write(self, data: bytes | bytearray) -> None:
        self.size_bytes += len(data)
        self.file.write(data)


class Journal:
    """A journal that is open for appending. Its methods may be called from several threads, but not from a forked child.

    Attribute: `content`, the records found at opening; None after `release_records`, `compact` and `close`.
    """

    def __init__(
        self, directory: Directory, scan: JournalScan, *, durable: bool, flush_every: int | None, flush_after_seconds: float | None
    ) -> None:
        self.content: JournalContent | None = content_of(scan)
        self._directory = directory
        self._is_durable = durable
        self._flush_every = flush_every
        self._flush_after_seconds = flush_after_seconds
        self._lock = threading.RLock()
        self._process = os.getpid()
        self._failure: RunLockedError | None = None
        self._is_closed = False
        self._segment: _OpenSegment | None = None
        # The position up to which records are acknowledged, and the payloads of those after it.
        self._base = scan.chain.find_base(is_durable=durable)
        self._pending = scan.payloads.last(scan.chain.position.number - self._base.number)
        self._appended_at: float | None = None
        self._highest_number = scan.highest_number
        # Every segment with the size at which this session has read or left it, and those that the next one must list.
        self._sizes = {segment.name: segment.size_bytes for segment in scan.segments}
        self._unlisted = scan.unlisted
        # Segments that this session left or replaced: they may be there or not.
        self._left: set[str] = set()
        is_replaced = scan.root is not None and scan.root.kind == SNAPSHOT
        self._replaced = [segment.name for segment in scan.replaced] if is_replaced else []
        self._left.update(self._replaced)

    @classmethod
    def open_for_append(
        cls,
        disk: Disk,
        path: str,
        *,
        durable: bool = True,
        flush_every: int | None = None,
        flush_after_seconds: float | None = None,
    ) -> Journal:
        """Open a journal, made if it is missing; nothing is written before the first append.

        With `flush_every` an append flushes when that many records are pending, with `flush_after_seconds` when the
        oldest was appended so long ago; both at an append only. Without `durable` a flush protects against a kill,
        not against a power cut.

        Raises:
            CorruptError: acknowledged records are missing or disturbed; see `salvage`.
        """
        make_directories(disk, path, durable=durable)
        directory = disk.open_directory(path)
        try:
            scan = scan_journal(directory).checked()
            return cls(directory, scan, durable=durable, flush_every=flush_every, flush_after_seconds=flush_after_seconds)
        except BaseException:
            directory.close()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def last_number(self) -> int:
        """The number of the last record; 0 in a journal that never had one."""
        return self._base.number + len(self._pending)

    @property
    def segment_count(self) -> int:
        """How many files of the journal this session knows."""
        return len(self._sizes) + (self._segment is not None)

    def iter_records(self) -> Iterator[tuple[int, Any]]:
        """Yield number and value of the records that were found at opening."""
        if self.content is None:
            raise ValueError(f"{self._directory.path}: the records found at opening are gone; use read_journal")
        return self.content.iter_records()

    def release_records(self) -> None:
        """Give back the memory of the records that were found at opening."""
        self.content = None

    def append(self, value: Any, *, flush: bool = False) -> int:
        """Append a record and return its number. It is acknowledged, and survives, once a flush after it has returned.

        If this raises, the value was not appended, and appending goes on with the next call. Earlier records stay.

        Raises:
            UnsupportedTypeError: the value is not made of None, bool, int, float, str, bytes, list, dict with str keys.
            LimitError: it takes more than 16 MiB.
            NotEnoughSpaceError, OSError: the disk did not take it.
            RunLockedError: somebody else writes to this journal.
        """
        payload = encode_value(value)
        with self._lock:
            self._check_usable()
            segment = self._segment or self._begin()
            pending_count = len(self._pending)
            with self._giving_up(len(payload)):
                try:
                    self._pending.append(payload)
                    record, position = encode_record(payload, mark=segment.mark, after=segment.position, acknowledged=self._base.number)
                    segment.write(record)
                    segment.position = position
                    if flush or self._is_flush_due():
                        self._commit(segment)
                except BaseException:
                    del self._pending[pending_count:]
                    raise
            return position.number

    def flush(self) -> None:
        """Acknowledge every record so far: when this returns, they survive a power cut. If it raises, it may be called again."""
        with self._lock:
            self._check_usable()
            if not self._pending:
                return
            segment = self._segment or self._begin()
            if self._pending:
                with self._giving_up(0):
                    self._commit(segment)

    def append_segment(self, payloads: list[bytes]) -> None:
        """Append records, given as payloads, in a segment of their own that is flushed, sealed and closed: one small whole file.

        For places where what was written once is not written to again, such as drives that upload a file when it is closed.
        If this raises, nothing was appended.
        """
        with self._lock:
            self._check_usable()
            pending_count = len(self._pending)
            self._pending += payloads
            try:
                segment = self._begin()
            except BaseException:
                del self._pending[pending_count:]
                raise
            self._seal()
            self._segment = None
            self._unlisted[segment.name] = self._sizes[segment.name] = segment.size_bytes
            segment.file.close()

    def compact(self, values: Iterable[Any]) -> None:
        """Put `values` in the place of all records, whole or not at all, and remove the old segments.

        Raises:
            DurabilityUnknownError: the new records are there, but the disk did not confirm it. Nothing was removed.
        """
        self.replace([encode_value(value) for value in values])

    def replace(self, payloads: list[bytes], *, base_number: int | None = None) -> None:
        """Do as `compact` with payloads; the first has the number after `base_number`, by default after the last one that was used."""
        with self._lock:
            self._check_usable()
            sizes = self._sizes | ({self._segment.name: self._segment.size_bytes} if self._segment else {})
            self._highest_number += 1
            base = self.last_number if base_number is None else base_number
            with self._naming_a_full_disk(sum(map(len, payloads))):
                snapshot = write_snapshot(
                    self._directory, payloads, number=self._highest_number, base_number=base, seen=self._unlisted | sizes
                )
            self._adopt(snapshot, sizes)
            try:
                self._directory.sync()
            except OSError as error:
                raise DurabilityUnknownError(
                    f"{self._directory.path}: the compacted journal is in place, but the disk did not confirm it: {error.strerror}\n"
                    "It may be lost in a power cut, and the records of before come back. Nothing was removed.",
                    path=self._directory.path,
                ) from error
            try:
                self._check_alone(sizes)
            except RunLockedError:
                with suppress(OSError):
                    self._directory.unlink(snapshot.name)
                raise
            self._remove_replaced()

    def close(self) -> None:
        """Flush, seal the segment and close. Closing twice is harmless; in a forked child only the files are closed.

        The journal is closed even if this raises; then what was appended since the last flush is not acknowledged.
        """
        with self._lock:
            if self._is_closed:
                return
            try:
                if self._process == os.getpid() and self._failure is None:
                    if self._appended_at is not None:
                        self.flush()
                    self._seal()
            finally:
                self._is_closed = True
                self.content = None
                segment, self._segment = self._segment, None
                try:
                    if segment is not None:
                        segment.file.close()
                finally:
                    self._directory.close()

    def _check_usable(self) -> None:
        if self._is_closed:
            raise ValueError(f"{self._directory.path}: the journal is closed")
        if self._process != os.getpid():
            raise ValueError(f"{self._directory.path}: the journal was opened in another process; open it again in this one")
        if self._failure is not None:
            raise self._failure

    def _is_flush_due(self) -> bool:
        now = time.monotonic()
        if self._appended_at is None:
            self._appended_at = now
        is_full = self._flush_every is not None and len(self._pending) >= self._flush_every
        return is_full or (self._flush_after_seconds is not None and now - self._appended_at >= self._flush_after_seconds)

    def _begin(self) -> _OpenSegment:
        """Create a segment, repeat in it what is pending, and acknowledge that."""
        self._remove_temporary()
        self._highest_number += 1
        through = self._base.number + len(self._pending)
        kind = NEXT if self._base.number else FIRST
        header = new_header(kind, self._highest_number, self._base, through=through, is_durable=self._is_durable, seen=self._unlisted)
        data, link = encode_header(header)
        pieces, position = [data], Position(self._base.number, link)
        for payload in self._pending:
            record, position = encode_record(payload, mark=header.mark, after=position, acknowledged=self._base.number)
            pieces.append(record)
        data = b"".join(pieces)
        with self._giving_up(len(data)):
            # A creation that is reported as failed may have taken place.
            self._left.add(header.name)
            file = self._directory.create(header.name, size_bytes=len(data))
            self._segment = segment = _OpenSegment(header.name, header.mark, file, position)
            # Our name is visible now. Another writer writes first and looks at the names then, so one of us sees the other.
            self._check_alone(self._unlisted)
            segment.write(data)
            if self._pending:
                self._commit(segment)
        return segment

    def _commit(self, segment: _OpenSegment) -> None:
        """Make a segment durable, and acknowledge its records."""
        if self._is_durable:
            segment.file.sync()
            if not segment.has_flushed:
                self._directory.sync()
        self._check_alone({})
        segment.has_flushed = True
        # Together, with no call between, so that no interrupt comes between.
        self._base, self._pending, self._appended_at = segment.position, [], None
        self._unlisted = {segment.name: segment.size_bytes}
        self._remove_replaced()

    @contextmanager
    def _giving_up(self, needed_bytes: int) -> Iterator[None]:
        """Leave the segment if the block fails; the next one lists it, at the largest size that it may have."""
        try:
            with self._naming_a_full_disk(needed_bytes):
                yield
        except BaseException:
            segment, self._segment = self._segment, None
            if segment is not None:
                self._unlisted[segment.name] = self._sizes[segment.name] = segment.size_bytes
                with suppress(OSError):
                    segment.file.close()
                if not segment.has_flushed:
                    with suppress(OSError):
                        self._directory.unlink(segment.name)
            raise

    @contextmanager
    def _naming_a_full_disk(self, needed_bytes: int) -> Iterator[None]:
        try:
            yield
        except NotEnoughSpaceError:
            raise
        except OSError as error:
            if not is_full(error):
                raise
            raise not_enough_space(self._directory.path, needed_bytes, 0) from error

    def _seal(self) -> None:
        """Say at the end of the segment that everything in it was acknowledged. Only a witness: if it is lost, nothing else is."""
        segment = self._segment
        if segment is not None and segment.has_flushed and not self._pending:
            seal, _ = encode_record(b"", mark=segment.mark, after=segment.position, acknowledged=segment.position.number)
            with suppress(OSError):
                segment.write(seal)

    def _adopt(self, snapshot: Snapshot, replaced: dict[str, int]) -> None:
        """Go on from a snapshot that has its name."""
        segment = self._segment
        # Where there never was a record, the next segment begins the journal.
        base = snapshot.position if snapshot.position.number else ORIGIN
        names = list(replaced)
        self._left.update(names)
        sizes, unlisted = replaced | {snapshot.name: snapshot.size_bytes}, {snapshot.name: snapshot.size_bytes}
        # Together, with no call between, so that no interrupt comes between.
        self._segment, self._base, self._pending, self._appended_at = None, base, [], None
        self._sizes, self._unlisted, self._replaced, self.content = sizes, unlisted, names, None
        if segment is not None:
            with suppress(OSError):
                segment.file.close()

    def _remove_replaced(self) -> None:
        """Remove what a snapshot has replaced, once its name is durable. A failure is left to the next session."""
        if not self._replaced:
            return
        with suppress(OSError):
            self._directory.sync()
            while self._replaced:
                with suppress(FileNotFoundError):
                    self._directory.unlink(self._replaced[-1])
                self._replaced.pop()

    def _remove_temporary(self) -> None:
        """Remove what a killed compaction left. If the other writer lives after all, its compaction fails and nothing is lost."""
        for name in self._directory.names():
            if is_temporary_segment_name(name):
                with suppress(OSError):
                    self._directory.unlink(name)

    def _check_alone(self, sizes: dict[str, int]) -> None:
        """Refuse to go on if somebody else has made or removed a segment, or one of `sizes` has grown."""
        known = set(self._sizes) | ({self._segment.name} if self._segment else set())
        names = set(segment_names(self._directory))
        strangers = (names ^ known) - self._left
        if not strangers:
            strangers = {name for name in names & set(sizes) if self._size_of(name) > sizes[name]}
        if strangers:
            path = self._directory.path
            self._failure = RunLockedError(
                f"{path}: another process is writing to this journal ({min(strangers)})\n"
                "What was not flushed before is not acknowledged. Make sure that there is one writer, and open the journal again.",
                path=path,
            )
            raise self._failure

    def _size_of(self, name: str) -> int:
        file = self._directory.open(name)
        try:
            return file.size_bytes
        finally:
            file.close()
