"""Putting the journals of processes that ended into one, so that a shared study does not grow by a directory for each. Spec 18.6.

Only in one's turn, when everything was read. The merge is one snapshot in the journal of the process that merges: it is there
as a whole or not at all, and what it replaces is removed only when it is durable. Who reads meanwhile starts over from it.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from ckptfmt.adapters.optuna_image import StudyImage
from ckptfmt.adapters.optuna_journal import whole_records
from ckptfmt.disk.paths import join
from ckptfmt.disk.protocol import Directory, Disk
from ckptfmt.format.journal_record import is_temporary_segment_name, parse_segment_name
from ckptfmt.run.journal import Journal
from ckptfmt.run.study_records import MERGED
from ckptfmt.run.study_writers import Merge, StudyWriters

MERGE_ALONE = 4
MERGE_AMONG_OTHERS = 16


def is_merge_due(ended_count: int, alive_count: int) -> bool:
    """Tell whether so many journals of ended processes are worth a merge, while so many other processes work on the study."""
    return ended_count >= (MERGE_AMONG_OTHERS if alive_count else MERGE_ALONE)


def merge_journals(journal: Journal, image: StudyImage, writers: StudyWriters, *, ended: list[str], owners: dict[int, str]) -> None:
    """Put all that is known into one's own journal, and go on from there.

    `ended` are the journals that will not be read any more; `owners` says whose each running trial is.

    Raises:
        OSError: the disk did not take it, or did not confirm it. Everything is as it was.
    """
    turn = writers.last + 1
    order = {"turn": turn, "numbered": False}
    records = [{**record, **_owner_part(record, owners), **order} for record in whole_records(image)]
    through = {name: number for name, number in writers.taken.items() if name not in ended}
    head: dict[str, Any] = {
        "op": MERGED,
        "ended": ended,
        "through": through,
        "count": len(records),
        "next_study": image.next_study_id,
        "next_trial": image.next_trial_id,
        "turn": turn,
        "numbered": True,
    }
    first_number = journal.last_number + 1
    journal.compact([head, *records])
    writers.adopt(Merge(writers.own, first_number, turn, frozenset(ended), through, len(records)))


def _owner_part(record: Any, owners: dict[int, str]) -> dict[str, str]:
    owner = owners.get(record["trial"]) if record["op"] == "create_trial" else None
    return {} if owner is None else {"writer": owner}


def remove_journals(disk: Disk, path: str, names: list[str]) -> None:
    """Remove journals that a merge holds. What cannot be removed, or was set aside by a salvage, stays and is not read."""
    with suppress(OSError):
        root = disk.open_directory(path)
        try:
            # The name of the merging journal's directory is durable before anything goes.
            root.sync()
        finally:
            root.close()
        for name in names:
            with suppress(OSError):
                _remove_journal(disk, join(path, name))


def _remove_journal(disk: Disk, path: str) -> None:
    directory = disk.open_directory(path)
    try:
        _remove_files(directory)
        is_empty = not directory.names()
    finally:
        directory.close()
    if is_empty:
        disk.remove_directory(path)


def _remove_files(directory: Directory) -> None:
    for name in reversed(directory.names()):
        if parse_segment_name(name) is not None or is_temporary_segment_name(name):
            with suppress(FileNotFoundError):
                directory.unlink(name)
