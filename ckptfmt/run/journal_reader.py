"""Reading and verifying a journal, while nobody or somebody writes it. Mirror of journal. Spec 16.4."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ckptfmt.checkpoint.verify import Finding
from ckptfmt.disk.protocol import Disk
from ckptfmt.errors import FormatError
from ckptfmt.format.layout import VERSION, is_temporary_name
from ckptfmt.format.rules import TITLES
from ckptfmt.run.journal_payloads import PayloadStore
from ckptfmt.run.journal_scan import JournalScan, scan_journal
from ckptfmt.run.journal_segments import Segment, open_journal_directory


@dataclass(frozen=True, slots=True)
class JournalContent:
    """The records of a journal at one moment.

    `first_number` is the number of the first record and rises with each compaction; `torn_bytes` counts what writers left that were
    killed, and what no acknowledged record was in; `findings` says where.
    """

    path: str
    first_number: int
    sound_count: int
    torn_bytes: int
    findings: tuple[Finding, ...]
    _payloads: PayloadStore

    def iter_records(self) -> Iterator[tuple[int, Any]]:
        """Yield number and value of each record, in order; decoded on the way, so that only the bytes are in memory.

        Raises:
            CorruptError: a record holds what is not in packed form (E024).
        """
        return self._payloads.decode(first_number=self.first_number, where=self.path)


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


def content_of(scan: JournalScan) -> JournalContent:
    """Return what a sound scan found."""
    findings = tuple(_find_leftovers(scan))
    torn_bytes = sum(size_bytes for _, size_bytes in scan.torn)
    return JournalContent(scan.path, scan.chain.base_number + 1, scan.chain.record_count, torn_bytes, findings, scan.payloads)


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
    findings += _find_leftovers(scan)
    findings += _find_news(scan)
    known = {segment.name for segment in scan.segments}
    findings += [_warning("W002" if is_temporary_name(name) else "W012", f"{path}/{name}") for name in names if name not in known]
    return tuple(findings)


def _error(error: FormatError) -> Finding:
    message = str(error).partition("\n")[0]
    return Finding(error.rule or "E050", "error", error.path or "", None, error.expected, error.found, message)


def _warning(rule: str, path: str, found: Any = None) -> Finding:
    message = f"{path}: {TITLES[rule]}" + ("" if found is None else f": {found}") + f" [{rule}]"
    return Finding(rule, "warning", path, None, None, found, message)


def _find_leftovers(scan: JournalScan) -> Iterator[Finding]:
    for segment, size_bytes in scan.torn:
        if segment.error is None:
            yield _warning("W010", segment.path, f"{size_bytes} bytes")
    for segment in scan.replaced:
        yield _warning("W011", segment.path)


def _find_news(scan: JournalScan) -> Iterator[Finding]:
    for segment in scan.segments:
        yield from _news_of(segment)


def _news_of(segment: Segment) -> Iterator[Finding]:
    if segment.stored is None:
        return
    if segment.stored.minor > VERSION[1]:
        yield _warning("W003", segment.path, f"{VERSION[0]}.{segment.stored.minor}")
    for member in segment.stored.unknown_members:
        yield _warning("W004", segment.path, member)
