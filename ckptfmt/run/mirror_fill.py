"""Filling an empty run from its mirror, so that no kill on the way leaves a part that looks like the whole.

A file says that the filling is under way, from before the first change until after the last; a run that has it is filled on. The
identity comes first, then journals, each at once, then checkpoints, the newest first.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing, suppress
from dataclasses import dataclass

from ckptfmt.disk.paths import make_directories
from ckptfmt.disk.protocol import Disk
from ckptfmt.errors import CheckpointError
from ckptfmt.run.journal import Journal
from ckptfmt.run.journal_reader import read_sound_part
from ckptfmt.run.mirror_copy import MIN_GENERATIONS, copy_checkpoint, copy_run_file, is_copied
from ckptfmt.run.mirror_journals import Names, find_journals, path_below, unit_path, units_of
from ckptfmt.run.notices import warn
from ckptfmt.run.retention import Policy, rank_by_metric
from ckptfmt.run.steps import StepDirectory, StepEntry

FILLING_NAME = ".filling"


@dataclass(frozen=True, slots=True)
class Brought:
    """What a run was filled with."""

    steps: tuple[int, ...]
    journals: tuple[str, ...]

    def __str__(self) -> str:
        steps = f"steps {', '.join(map(str, self.steps))}" if self.steps else ""
        return ", ".join(filter(None, (steps, *self.journals))) or "nothing"


def is_to_be_filled(disk: Disk, path: str) -> bool:
    """Tell whether a run is empty: no checkpoint, no study, no progress; or was being filled when its program ended."""
    if is_being_filled(disk, path):
        return True
    steps = StepDirectory(disk, path)
    return not (steps.exists() and steps.entries()) and all(names[0] == "history" for names in find_journals(disk, path))


def is_being_filled(disk: Disk, path: str) -> bool:
    """Tell whether the filling of a run was begun and not ended."""
    try:
        with closing(disk.open_directory(path)) as directory:
            return FILLING_NAME in directory.names()
    except FileNotFoundError:
        return False


def end_filling(disk: Disk, path: str) -> None:
    """Take note that the run is as whole as it is to be."""
    with closing(disk.open_directory(path)) as directory, suppress(FileNotFoundError):
        directory.unlink(FILLING_NAME)


def fill(disk: Disk, mirror_path: str, run_path: str, policy: Policy) -> Brought:
    """Bring journals, the newest sound checkpoints and the best from a mirror into an empty run; what is damaged there is left out, with a
    warning.
    """
    make_directories(disk, run_path)
    with closing(disk.open_directory(run_path)) as directory, suppress(FileExistsError):
        # Its name is on the disk before anything that matters: whoever makes a directory here syncs this one.
        directory.create(FILLING_NAME, size_bytes=0).close()
    copy_run_file(disk, mirror_path, run_path)
    journals = find_journals(disk, mirror_path)
    for names in journals:
        _bring_journal(disk, mirror_path, run_path, names)
    mirror, run = StepDirectory(disk, mirror_path), StepDirectory(disk, run_path)
    brought = _bring_first(mirror.newest_first(), run, MIN_GENERATIONS)
    if policy.monitor is not None and policy.mode is not None:
        by_step = {entry.step: entry for entry in mirror.committed()}
        ranked = rank_by_metric([entry.stored() for entry in by_step.values()], policy.monitor, policy.mode)
        brought |= _bring_first((by_step[stored.step] for stored in ranked), run, policy.keep_best or 1)
    end_filling(disk, run_path)
    shown = dict.fromkeys(" ".join(names[:2]) for names in journals if names[0] != "history")
    return Brought(tuple(sorted(brought)), tuple(shown))


def _bring_first(entries: Iterable[StepEntry], run: StepDirectory, count: int) -> set[int]:
    """Bring the first sound ones; return their steps."""
    brought: set[int] = set()
    for entry in entries:
        if entry.manifest is None:
            warn(f"{entry.path}: the mirror's copy is passed over: {entry.error}")
        elif _bring_checkpoint(run.disk, entry.path, run.path_of(entry.step)):
            brought.add(entry.step)
        if len(brought) == count:
            break
    return brought


def _bring_checkpoint(disk: Disk, source_path: str, target_path: str) -> bool:
    try:
        if not is_copied(disk, source_path, target_path):
            copy_checkpoint(disk, source_path, target_path)
    except CheckpointError as error:
        warn(f"{source_path}: the mirror's copy is passed over: {error}")
        return False
    return True


def _bring_journal(disk: Disk, mirror_path: str, run_path: str, names: Names) -> None:
    content, problem = read_sound_part(disk, path_below(mirror_path, names))
    if problem is not None:
        warn(f"{problem}\nThe run goes on with the {content.sound_count:,} records before the damage.")
    target = path_below(run_path, names)
    make_directories(disk, target)
    with Journal.open_for_append(disk, target) as journal:
        # One that is there was written as a whole by a filling that was killed later.
        if not journal.last_number:
            payloads = [payload for payload in content.iter_payloads() if _bring_units(disk, mirror_path, run_path, names, payload)]
            journal.replace(payloads, base_number=content.first_number - 1)


def _bring_units(disk: Disk, mirror_path: str, run_path: str, names: Names, payload: bytes) -> bool:
    """Bring the checkpoints that a record names; tell whether all are there. A unit of which one is missing is done again."""
    for link in units_of(payload, names):
        if not _bring_checkpoint(disk, unit_path(mirror_path, names, link), unit_path(run_path, names, link)):
            return False
    return True
