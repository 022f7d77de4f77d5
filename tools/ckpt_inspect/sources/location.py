"""What a PATH of the command line is: a checkpoint, a run, a journal, or a file from somewhere else."""

from __future__ import annotations

import os
import stat
from enum import Enum

from ckptfmt.disk.urls import is_url
from ckptfmt.errors import CheckpointNotFoundError
from ckptfmt.format.layout import MANIFEST_NAME

PROGRESS_NAME, STUDIES_NAME = "progress", "studies"
_RUN_FILE_NAME = "run.json"
_PROGRESS_MARK = "writers"
_SHOWN_INNER = 5
_ASIDE_PREFIX = "aside-"
_NO_JOURNALS = ("step-", ".", "cache", _ASIDE_PREFIX)
_JOURNAL_DEPTH = 4


class Kind(Enum):
    """What lies under a path."""

    CHECKPOINT = "checkpoint"
    RUN = "run"
    PROGRESS = "progress"
    STUDY = "study"
    JOURNAL = "journal"
    FILE = "file"


class NotReadableHereError(ValueError):
    """A path that is none of the things that the tool can look at. The message tells what it is instead."""


def without_final_slash(path: str) -> str:
    """Return a path as it is shown and extended; completion leaves a slash behind directories."""
    return path.rstrip(os.sep) or path


def kind_of(path: str) -> Kind:
    """Tell what lies under a path. A directory that is neither checkpoint nor run counts as a checkpoint that is not complete.

    Raises:
        CheckpointNotFoundError: there is nothing.
        NotReadableHereError: it is neither a directory nor a regular file.
    """
    if is_url(path):
        return _kind_of_url(path)
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointNotFoundError(f"{path}: no such file or directory", path=path) from None
    except ValueError:
        raise CheckpointNotFoundError(f"{path!r}: no path can hold this", path=path) from None
    if stat.S_ISREG(mode):
        return Kind.FILE
    if not stat.S_ISDIR(mode):
        raise NotReadableHereError(f"{path}: neither a directory nor a regular file\nDevices, pipes and sockets are not read.")
    if os.path.lexists(os.path.join(path, MANIFEST_NAME)):
        return Kind.CHECKPOINT
    has_steps = os.path.lexists(os.path.join(path, _RUN_FILE_NAME)) or bool(step_directories(path))
    if has_steps:
        return Kind.RUN
    work = work_kind(path)
    if work is not None or is_journal(path):
        return work or Kind.JOURNAL
    inner = [name for name in sorted(os.listdir(path)) if os.path.isdir(os.path.join(path, name)) and work_kind(os.path.join(path, name))]
    if inner:
        more = f" and {len(inner) - _SHOWN_INNER:,} more" if len(inner) > _SHOWN_INNER else ""
        names = ", ".join(inner[:_SHOWN_INNER]) + more
        raise NotReadableHereError(f"{path}: holds progress or studies, and is none itself\nGive one of them ({names}), or the run.")
    return Kind.CHECKPOINT


def work_kind(path: str) -> Kind | None:
    """Tell whether a directory holds a progress or studies, None for neither."""
    if os.path.isdir(os.path.join(path, _PROGRESS_MARK)):
        return Kind.PROGRESS
    is_of_run = os.path.basename(os.path.dirname(os.path.abspath(path))) == STUDIES_NAME
    if is_of_run and is_journal(path):
        return Kind.STUDY
    from ckptfmt.disk.local import LocalDisk
    from ckptfmt.run.study_reader import is_study

    return Kind.STUDY if is_study(LocalDisk(), path) else None


def without_segment(path: str) -> str:
    """Return the journal to which a segment file belongs; any other path as it is."""
    from ckptfmt.format.journal_record import parse_segment_name

    is_segment = parse_segment_name(os.path.basename(path)) is not None and os.path.isfile(path)
    return os.path.dirname(path) or os.curdir if is_segment else path


def _kind_of_url(url: str) -> Kind:
    """Tell what lies in an object store."""
    from ckpt_inspect.sources.store_location import names_below
    from ckptfmt.format.journal_record import parse_segment_name

    try:
        names = names_below(url)
    except (ValueError, ImportError) as error:
        raise NotReadableHereError(str(error)) from None
    if MANIFEST_NAME in names:
        return Kind.CHECKPOINT
    if _RUN_FILE_NAME in names or step_directories(url):
        return Kind.RUN
    return Kind.JOURNAL if any(map(parse_segment_name, names)) else Kind.CHECKPOINT


def run_path(path: str) -> str:
    """Return the path of a run as it is shown and extended.

    Raises:
        CheckpointNotFoundError: there is nothing.
        NotReadableHereError: it is something else.
    """
    path = without_final_slash(path)
    kind = kind_of(path)
    if kind is not Kind.RUN:
        if kind is Kind.CHECKPOINT and os.path.isdir(path):
            what = "a checkpoint" if os.path.lexists(os.path.join(path, MANIFEST_NAME)) else "a directory without checkpoints"
        else:
            what = f"a {kind.value}"
        raise NotReadableHereError(f"{path}: expected a run, found {what}\nGive the directory that holds the step-* directories.")
    return path


def is_journal(path: str) -> bool:
    """Tell whether a directory holds segments of a journal."""
    from ckptfmt.format.journal_record import parse_segment_name

    with os.scandir(path) as entries:
        return any(parse_segment_name(entry.name) for entry in entries)


def journal_directories(path: str) -> list[str]:
    """Return the journals in a run by their paths below it, without looking into checkpoints and caches."""
    if is_url(path):
        from ckpt_inspect.sources.store_location import journals_below

        return journals_below(path)
    found = []
    pending = [("", 0)]
    while pending:
        below, depth = pending.pop()
        try:
            with os.scandir(os.path.join(path, below)) as entries:
                inner = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
            if below and is_journal(os.path.join(path, below)):
                found.append(below)
        except OSError:
            continue
        if depth < _JOURNAL_DEPTH:
            pending += [(os.path.join(below, name), depth + 1) for name in inner if not name.startswith(_NO_JOURNALS)]
    return sorted(found)


def work_directories(path: str, name: str) -> list[str]:
    """Return the paths of what lies in `progress/` or `studies/` of a run."""
    try:
        with os.scandir(os.path.join(path, name)) as entries:
            return sorted(entry.path for entry in entries if entry.is_dir(follow_symlinks=False) and work_kind(entry.path))
    except OSError:
        return []


def aside_names(path: str) -> list[str]:
    """Return the names of what was set aside in a run."""
    from ckptfmt.disk.anywhere import AnyDisk

    directory = AnyDisk().open_directory(path)
    try:
        return [name for name in directory.names() if name.startswith(_ASIDE_PREFIX)]
    finally:
        directory.close()


def step_directories(path: str) -> list[tuple[int, str]]:
    """Return (step, path) of the checkpoints of a run in the order of their numbers, incomplete ones among them."""
    # Imported here because most paths are checkpoints, which need nothing of the run floor.
    from ckptfmt.disk.anywhere import AnyDisk
    from ckptfmt.run.steps import StepDirectory

    directory = StepDirectory(AnyDisk(), path)
    return [(step, directory.path_of(step)) for step in directory.numbers()]
