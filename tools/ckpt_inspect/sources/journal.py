"""A journal: how many records it has, the last of them, and what a killed writer left at its end."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ckptfmt.disk.anywhere import AnyDisk
from ckptfmt.errors import FormatError
from ckptfmt.format.journal_record import parse_segment_name
from ckptfmt.run.journal_reader import read_journal, verify_journal


@dataclass(frozen=True, slots=True)
class Journal:
    """A journal described. `last` are (number, value) of its last records; `damage` says why it cannot be read, None where it can."""

    path: str
    segment_count: int
    size_bytes: int
    first_number: int
    record_count: int
    torn_bytes: int
    last: Sequence[tuple[int, Any]]
    remarks: Sequence[str]
    damage: str | None


def read_journal_at(path: str, *, last_count: int) -> Journal:
    """Read a journal, and keep its last records."""
    sizes = [entry.stat(follow_symlinks=False).st_size for entry in os.scandir(path) if parse_segment_name(entry.name)]
    try:
        content = read_journal(AnyDisk(), path)
        last = deque(content.iter_records(), maxlen=last_count)
    except FormatError as error:
        return Journal(path, len(sizes), sum(sizes), 0, 0, 0, (), (), str(error))
    remarks = [finding.message for finding in verify_journal(AnyDisk(), path)]
    return Journal(path, len(sizes), sum(sizes), content.first_number, content.sound_count, content.torn_bytes, tuple(last), remarks, None)
