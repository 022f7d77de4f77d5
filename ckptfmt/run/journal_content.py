"""What is known of a sound journal after it was read: its records, and what is worth a word. Spec 16.4."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ckptfmt.checkpoint.verify import Finding
from ckptfmt.format.rules import TITLES
from ckptfmt.run.journal_payloads import PayloadStore
from ckptfmt.run.journal_scan import JournalScan


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

    def iter_payloads(self) -> Iterator[bytes]:
        """Yield each record as it is encoded, in order."""
        return iter(self._payloads)


def content_of(scan: JournalScan) -> JournalContent:
    """Return what a sound scan found."""
    findings = tuple(find_leftovers(scan))
    torn_bytes = sum(size_bytes for _, size_bytes in scan.torn)
    return JournalContent(scan.path, scan.chain.base_number + 1, scan.chain.record_count, torn_bytes, findings, scan.payloads)


def find_leftovers(scan: JournalScan) -> Iterator[Finding]:
    """Yield a warning for everything that is there and not part of the journal."""
    for segment, size_bytes in scan.torn:
        if segment.error is None:
            yield warning("W010", segment.path, f"{size_bytes} bytes")
    for segment in scan.replaced:
        yield warning("W011", segment.path)


def warning(rule: str, path: str, found: Any = None) -> Finding:
    """Return a finding that leaves the journal readable."""
    message = f"{path}: {TITLES[rule]}" + ("" if found is None else f": {found}") + f" [{rule}]"
    return Finding(rule, "warning", path, None, None, found, message)
