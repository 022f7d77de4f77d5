"""Reading and verifying a journal, while nobody or somebody writes it. Mirror of journal. Spec 16.4."""

from __future__ import annotations

from collections.abc import Iterator

from ckptfmt.checkpoint.verify import Finding
from ckptfmt.disk.protocol import Disk
from ckptfmt.errors import FormatError
from ckptfmt.format.journal_record import parse_segment_name
from ckptfmt.format.layout import VERSION, is_temporary_name
from ckptfmt.run.journal_content import JournalContent, content_of, find_leftovers, warning
from ckptfmt.run.journal_scan import JournalScan, scan_journal
from ckptfmt.run.journal_segments import Segment, open_journal_directory


def read_journal(disk: Disk, path: str) -> JournalContent:
    """Read the journal in a directory; an empty directory is a journal without records.

    Raises:
        CheckpointNotFoundError: there is no directory.
        CorruptError: acknowledged records are missing or disturbed (E050 to E056); the message says how many are sound.
    """
    directory = open_journal_directory(disk, path)
    try:
        return content_of(scan_journal(directory).checked())
    finally:
        directory.close()


def read_sound_part(disk: Disk, path: str) -> tuple[JournalContent, FormatError | None]:
    """Read a journal as far as it is sound, and say what is wrong behind that.

    Raises:
        CheckpointNotFoundError: there is no directory.
    """
    directory = open_journal_directory(disk, path)
    try:
        scan = scan_journal(directory)
    finally:
        directory.close()
    return content_of(scan), scan.problem


def verify_journal(disk: Disk, path: str) -> tuple[Finding, ...]:
    """Return everything that is wrong with a journal (level "error") or worth a word ("warning"). Never raises because of damage."""
    directory = open_journal_directory(disk, path)
    try:
        scan = scan_journal(directory)
        names = directory.names()
    finally:
        directory.close()
    errors = [segment.error for segment in scan.segments if segment.error and segment not in scan.replaced]
    if scan.problem is not None and all(scan.problem is not error for error in errors):
        errors.append(scan.problem)
    findings = [_error(error) for error in errors]
    try:
        for _ in scan.payloads.decode(first_number=scan.chain.base_number + 1, where=path):
            pass
    except FormatError as error:
        findings.append(_error(error))
    findings += find_leftovers(scan)
    findings += _find_news(scan)
    others = [name for name in names if parse_segment_name(name) is None]
    findings += [warning("W002" if is_temporary_name(name) else "W012", f"{path}/{name}") for name in others]
    return tuple(findings)


def _error(error: FormatError) -> Finding:
    message = str(error).partition("\n")[0]
    return Finding(error.rule or "E050", "error", error.path or "", None, error.expected, error.found, message)


def _find_news(scan: JournalScan) -> Iterator[Finding]:
    for segment in scan.segments:
        yield from _news_of(segment)


def _news_of(segment: Segment) -> Iterator[Finding]:
    if segment.stored is None:
        return
    if segment.stored.minor > VERSION[1]:
        yield warning("W003", segment.path, f"{VERSION[0]}.{segment.stored.minor}")
    for member in segment.stored.unknown_members:
        yield warning("W004", segment.path, member)
