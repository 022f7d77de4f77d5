"""Reading a whole journal: the sound records, and whether they are all that was acknowledged. Spec 16.4.

Nothing is judged by the bytes that are lost, only by what others say of them: a later record or segment that says they were acknowledged
makes the loss an error; without such a witness they are the torn tail of a writer that was killed. Reader, writer, verifier and salvage
share this.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from itertools import pairwise

from ckptfmt.disk.protocol import Directory
from ckptfmt.errors import FormatError
from ckptfmt.format.journal_header import SNAPSHOT, SegmentHeader
from ckptfmt.format.rules import violation
from ckptfmt.run.journal_chain import Chain, SegmentReader, find_lone_records, is_complete
from ckptfmt.run.journal_payloads import PayloadStore
from ckptfmt.run.journal_segments import Segment, find_segments, segment_names

_ATTEMPTS = 10


@dataclass(slots=True)
class JournalScan:
    """A journal as it was found.

    `problem` is what makes it unreadable; chain and payloads then hold the sound prefix. `torn` are segments whose end is dropped,
    with the number of bytes; `replaced` those that an entered one replaces; `unlisted` names and sizes of the
    segments that the next one must list as seen.
    """

    path: str
    segments: list[Segment] = field(default_factory=list)
    chain: Chain = field(default_factory=Chain)
    payloads: PayloadStore = field(default_factory=PayloadStore)
    problem: FormatError | None = None
    torn: list[tuple[Segment, int]] = field(default_factory=list)
    replaced: list[Segment] = field(default_factory=list)
    unlisted: dict[str, int] = field(default_factory=dict)
    readers: list[SegmentReader] = field(default_factory=list)

    @property
    def root(self) -> SegmentHeader | None:
        """The header of the segment with which the chain begins."""
        stored = self.readers[0].segment.stored if self.readers else None
        return stored.header if stored else None

    @property
    def highest_number(self) -> int:
        """The highest number of a segment; 0 if there is none."""
        return max((segment.number for segment in self.segments), default=0)

    def checked(self) -> JournalScan:
        """Return the scan if the journal is sound, and raise its problem otherwise, with what can be done about it."""
        if self.problem is None:
            return self
        found = self.problem
        count = self.chain.record_count
        advice = f"{count:,} records before the damage are sound. To go on with them, and keep the damaged files:"
        advice += f" ckpt-inspect salvage {self.path}"
        raise type(found)(
            str(found) if "\n" in str(found) else f"{found}\n{advice}",
            rule=found.rule,
            path=found.path,
            expected=found.expected,
            found=found.found,
        )


def scan_journal(directory: Directory) -> JournalScan:
    """Read a journal from beginning to end; writers may be at work meanwhile.

    If segments come or go while it is read, or it seems damaged, it is read again: a compaction may have come between, and a
    network file system may show a file before its contents.
    """
    has_problem = False
    for _ in range(_ATTEMPTS):
        names = segment_names(directory)
        try:
            scan = _scan(directory, names)
        except FileNotFoundError:
            continue
        if segment_names(directory) == names:
            if scan.problem is None or has_problem:
                return scan
            has_problem = True
    raise OSError(errno.EAGAIN, "the segments of the journal change faster than they can be read", directory.path)


def _scan(directory: Directory, names: list[str]) -> JournalScan:
    scan = JournalScan(directory.path, find_segments(directory, names))
    try:
        sound = [segment for segment in scan.segments if is_complete(directory, segment)]
        root_number = max((segment.number for segment in sound if segment.stored and segment.stored.header.begins_chain), default=0)
        scan.replaced = [segment for segment in scan.segments if segment.number < root_number]
        sound = [segment for segment in sound if segment.number >= root_number]
        _check_headers(scan)
        _read_chain(directory, scan, sound)
        _check_acknowledged(directory, scan)
        _check_one_writer(scan, sound)
    except FormatError as problem:
        scan.problem = problem
    scan.unlisted = _find_unlisted(scan)
    return scan


def _check_headers(scan: JournalScan) -> None:
    for segment in scan.segments[len(scan.replaced) :]:
        if segment.error is not None:
            raise segment.error


def _read_chain(directory: Directory, scan: JournalScan, sound: list[Segment]) -> None:
    for one, other in pairwise(sound):
        if one.number == other.number:
            raise violation("E056", other.path, expected=f"one segment of number {one.number}", found=f"also {one.name}")
    previous_path, previous_bytes = directory.path, 0
    for segment in scan.segments[len(scan.replaced) :]:
        stored = segment.stored
        if stored is None or segment not in sound:
            scan.torn.append((segment, segment.size_bytes))
            previous_bytes = 0
        else:
            if stored.header.begins_chain:
                scan.chain.begin(stored)
            else:
                taken_back = scan.chain.enter(segment, stored, previous_path=previous_path, previous_bytes=previous_bytes)
                scan.payloads.remove_last(taken_back)
            reader = SegmentReader(segment, stored, scan.chain)
            scan.readers.append(reader)
            for payloads in reader.read(directory):
                scan.payloads.add(payloads)
            if reader.rest_bytes:
                scan.torn.append((segment, reader.rest_bytes))
            previous_bytes = reader.offset_bytes
        previous_path = segment.path


def _check_acknowledged(directory: Directory, scan: JournalScan) -> None:
    """Look for witnesses of lost records where no later segment has judged the loss: at the end, and in segments that nobody saw."""
    chain = scan.chain
    listed = _listings(scan)
    last = scan.readers[-1] if scan.readers else None
    for segment, size_bytes in scan.torn:
        if segment.name not in listed or (last is not None and segment is last.segment):
            witnesses = find_lone_records(directory, segment, offset_bytes=segment.size_bytes - size_bytes)
            chain.acknowledged = max([chain.acknowledged, *(record.acknowledged for record in witnesses)])
            if chain.acknowledged > chain.position.number:
                raise chain.missing(segment.path, segment.size_bytes - size_bytes)
    if last is not None and chain.acknowledged > chain.position.number:
        raise chain.missing(last.segment.path, last.offset_bytes)


def _check_one_writer(scan: JournalScan, sound: list[Segment]) -> None:
    """Each segment but the newest was seen by a later one, and has not grown since."""
    listed = _listings(scan)
    for segment in scan.segments:
        if segment.size_bytes > listed.get(segment.name, segment.size_bytes):
            expected, found = f"{listed[segment.name]} bytes, as a later segment saw it", segment.size_bytes
            raise violation("E056", segment.path, expected=expected, found=found)
    unseen = [segment for segment in sound if segment.name not in listed]
    if len(unseen) > 1:
        raise violation("E056", unseen[0].path, expected="each segment seen by a later one", found=f"not seen by {unseen[-1].name}")


def _listings(scan: JournalScan) -> dict[str, int]:
    """Return each segment that a later one has seen, with the size that the last of them saw."""
    listed: dict[str, int] = {}
    for segment in scan.segments:
        if segment.stored is not None:
            listed.update(segment.stored.header.seen)
    return listed


def _find_unlisted(scan: JournalScan) -> dict[str, int]:
    """Return what the next segment must list: all that is not listed by a header which certainly survives a power cut."""
    unlisted = {segment.name: segment.size_bytes for segment in scan.segments}
    certain: set[str] = set()
    flushed = {reader.segment.name for reader in scan.readers if reader.has_flushed}
    for segment in scan.segments:
        if segment.stored is not None:
            seen = segment.stored.header.seen
            is_certain = segment.name in flushed or segment.stored.header.kind == SNAPSHOT
            certain.update(name for name, _ in seen if is_certain)
            unlisted = dict(seen) | unlisted
    return {name: unlisted[name] for name in unlisted if name not in certain}
