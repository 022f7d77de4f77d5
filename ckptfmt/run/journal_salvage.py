"""Going on, on purpose, with a damaged journal: its sound prefix becomes a new generation, and nothing is deleted. Spec 16.6."""

from __future__ import annotations

import secrets
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ckptfmt.disk.protocol import Directory, Disk
from ckptfmt.errors import FormatError, UnsupportedVersionError
from ckptfmt.format.journal_record import MAX_RECORD_BYTES, LoneRecord, set_aside_name
from ckptfmt.format.packed import unpack
from ckptfmt.run.journal_chain import find_lone_records
from ckptfmt.run.journal_scan import JournalScan, scan_journal
from ckptfmt.run.journal_segments import open_journal_directory
from ckptfmt.run.journal_snapshot import write_snapshot


@dataclass(frozen=True, slots=True)
class SalvageReport:
    """What became of a damaged journal.

    `set_aside` are the names under which the damaged files are kept; `others` number and value of records that are sound by themselves
    but not in the prefix: behind the damage, or of a second writer. Append those that you want again.
    """

    kept_count: int
    set_aside: tuple[str, ...]
    others: tuple[tuple[int, Any], ...]


def salvage(disk: Disk, path: str) -> SalvageReport:
    """Make a damaged journal usable again with the records before the damage. A sound journal stays as it is.

    Nobody else may write to it meanwhile. A crash at any point leaves the damaged journal or the new one.

    Raises:
        UnsupportedVersionError: it is not damaged but newer than this library.
    """
    directory = open_journal_directory(disk, path)
    try:
        scan = scan_journal(directory)
        if scan.problem is None:
            return SalvageReport(scan.chain.record_count, (), ())
        if isinstance(scan.problem, UnsupportedVersionError):
            raise scan.problem
        return _salvage(directory, scan)
    finally:
        directory.close()


def _salvage(directory: Directory, scan: JournalScan) -> SalvageReport:
    payloads = list(scan.payloads)
    others = _find_others(directory, scan, payloads)
    highest = max([scan.chain.acknowledged, scan.chain.position.number, *(record.number for record in others)])
    set_aside = _set_aside(directory, scan)
    sizes = {segment.name: segment.size_bytes for segment in scan.segments}
    # Numbers are not used again: whoever followed the journal may have seen the lost ones.
    write_snapshot(directory, payloads, number=scan.highest_number + 1, base_number=highest, seen=sizes)
    directory.sync()
    for segment in scan.segments:
        directory.unlink(segment.name)
    return SalvageReport(len(payloads), set_aside, tuple(_decode(others)))


def _find_others(directory: Directory, scan: JournalScan, payloads: list[bytes]) -> list[LoneRecord]:
    """Return the records that are sound by themselves and not kept, each once."""
    kept = set(enumerate(payloads, scan.chain.base_number + 1))
    others: dict[tuple[int, bytes], LoneRecord] = {}
    for segment in scan.segments:
        for record in find_lone_records(directory, segment, offset_bytes=0) if segment.size_bytes else ():
            key = (record.number, record.payload)
            # Lower numbers are those that a snapshot has replaced.
            if record.payload and record.number > scan.chain.base_number and key not in kept:
                others[key] = record
    return sorted(others.values())


def _decode(records: list[LoneRecord]) -> list[tuple[int, Any]]:
    decoded = []
    for record in records:
        with suppress(FormatError):
            decoded.append((record.number, unpack(record.payload, where="record")))
    return decoded


def _set_aside(directory: Directory, scan: JournalScan) -> tuple[str, ...]:
    """Give every segment a second name, durably, or copy it where links do not work."""
    nonce = secrets.token_hex(4)
    made: list[str] = []
    try:
        for segment in scan.segments:
            name = set_aside_name(segment.name, nonce)
            if not directory.link_from(directory, segment.name, name):
                made.append(name)
                _copy(directory, segment.name, name)
            else:
                made.append(name)
        directory.sync()
    except BaseException:
        for name in made:
            with suppress(OSError):
                directory.unlink(name)
        raise
    return tuple(made)


def _copy(directory: Directory, source: str, target: str) -> None:
    reading = directory.open(source)
    try:
        writing = directory.create(target, size_bytes=reading.size_bytes)
        try:
            for offset_bytes in range(0, reading.size_bytes, MAX_RECORD_BYTES):
                writing.write(reading.read(offset_bytes, MAX_RECORD_BYTES))
            writing.sync()
        finally:
            writing.close()
    finally:
        reading.close()
