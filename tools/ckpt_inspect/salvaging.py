"""Salvaging the damaged journals under a path: what is sound is shown, somebody agrees, and the library does it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ckpt_inspect.cleaning import Answer
from ckpt_inspect.output.exit_status import FINE, FOUND_SOMETHING
from ckpt_inspect.output.screen import Screen
from ckpt_inspect.output.table import GAP
from ckpt_inspect.output.units import count_text
from ckpt_inspect.output.visible import visible
from ckpt_inspect.sources.location import (
    Kind,
    NotReadableHereError,
    is_journal,
    journal_directories,
    kind_of,
    without_segment,
    work_kind,
)
from ckpt_inspect.sources.run_writer import find_writer, is_locked
from ckpt_inspect.views.findings import wrapped
from ckptfmt.disk.local import LocalDisk
from ckptfmt.errors import RunLockedError
from ckptfmt.run.journal import Journal
from ckptfmt.run.journal_salvage import salvage
from ckptfmt.run.journal_scan import scan_journal
from ckptfmt.run.journal_segments import open_journal_directory

_DISK = LocalDisk()
_LEVELS_TO_RUN = 4


@dataclass(slots=True)
class _Damaged:
    """A damaged journal: what is wrong, how much is sound, and what has become of it."""

    path: str
    problem: str
    sound_count: int
    set_aside: tuple[str, ...] = ()
    added_count: int = 0
    left_count: int = 0
    is_done: bool = False


def salvage_journals(path: str, answer: Answer, screen: Screen) -> int:
    """Show what is damaged under a path and how much of it is sound; salvage it if that is agreed to."""
    path = without_segment(path)
    found = [damaged for journal in _journals_under(path) if (damaged := _find_damage(journal)) is not None]
    if found and answer is Answer.ASK and (screen.is_json or not sys.stdin.isatty()):
        advice = "Give -y to salvage, or -n to see what would be kept."
        raise NotReadableHereError(f"{path}: nothing was changed: there is nobody to ask\n{advice}")
    if answer is not Answer.ONLY_SHOW:
        for one in found:
            _check_nobody_writes(one.path)
    if not screen.is_json:
        screen.write_lines(_plan_lines(path, found, screen))
    if found and (answer is Answer.YES or (answer is Answer.ASK and _agrees(len(found)))):
        for one in found:
            _salvage(one)
        if not screen.is_json:
            screen.write_lines(line for one in found for line in wrapped(_done_line(one), screen.layout_width))
    if screen.is_json:
        screen.write_document({"kind": "salvage", "path": path, "journals": [_document(one) for one in found]})
    return FINE if all(one.is_done for one in found) else FOUND_SOMETHING


def _journals_under(path: str) -> list[str]:
    if kind_of(path) in (Kind.CHECKPOINT, Kind.FILE):
        advice = "A checkpoint has nothing to salvage: use another one."
        raise NotReadableHereError(f"{path}: expected a journal, a progress, a study or a run\n{advice}")
    below = [os.path.join(path, name) for name in journal_directories(path)]
    return ([path] if is_journal(path) else []) + below


def _find_damage(path: str) -> _Damaged | None:
    directory = open_journal_directory(_DISK, path)
    try:
        scan = scan_journal(directory)
    finally:
        directory.close()
    return None if scan.problem is None else _Damaged(path, str(scan.problem).partition("\n")[0], scan.chain.record_count)


def _check_nobody_writes(path: str) -> None:
    """Refuse while the process is at work that this journal belongs to, or the run in which it lies."""
    directory = os.path.abspath(path)
    for _ in range(_LEVELS_TO_RUN):
        writer = find_writer(directory)
        if writer is not None or is_locked(directory):
            who = "a process" if writer is None else f"process {writer.pid} on {writer.host}"
            raise RunLockedError(f"{directory}: {who} is writing here\nNothing was changed. Wait for it or stop it.", path=directory)
        directory = os.path.dirname(directory)


def _agrees(count: int) -> bool:
    sys.stderr.write(f"Go on with the sound records of {count_text(count, 'journal')}? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _salvage(damaged: _Damaged) -> None:
    report = salvage(_DISK, damaged.path)
    damaged.set_aside, damaged.is_done = report.set_aside, True
    # The records of a progress mean the same in any order; those of a study or a history do not.
    if work_kind(os.path.dirname(os.path.dirname(os.path.abspath(damaged.path)))) is Kind.PROGRESS:
        damaged.added_count = _append(damaged.path, [value for _, value in report.others])
    damaged.left_count = len(report.others) - damaged.added_count


def _append(path: str, values: Sequence[Any]) -> int:
    with Journal.open_for_append(_DISK, path) as journal:
        for value in values:
            journal.append(value)
    return len(values)


def _plan_lines(path: str, found: Sequence[_Damaged], screen: Screen) -> list[str]:
    if not found:
        return [f"{visible(path)}: nothing is damaged"]
    lines = []
    for one in found:
        lines.append(screen.style.bold(visible(one.path)))
        lines += [GAP + line for line in wrapped(visible(one.problem.removeprefix(one.path + "/")), screen.layout_width - len(GAP))]
        lines += [f"{GAP}{count_text(one.sound_count, 'record')} before the damage are sound", ""]
    return lines


def _done_line(one: _Damaged) -> str:
    text = f"{visible(one.path)}: goes on with {count_text(one.sound_count + one.added_count, 'record')}"
    text += f", {one.added_count:,} of them from behind the damage" if one.added_count else ""
    text += f"; {count_text(one.left_count, 'record')} behind the damage stayed out" if one.left_count else ""
    return f"{text}; {count_text(len(one.set_aside), 'damaged file')} kept as set-aside-*"


def _document(one: _Damaged) -> dict[str, Any]:
    return {
        "path": one.path,
        "problem": one.problem,
        "sound_count": one.sound_count,
        "salvaged": one.is_done,
        "set_aside": list(one.set_aside),
        "added_count": one.added_count,
        "left_count": one.left_count,
    }
