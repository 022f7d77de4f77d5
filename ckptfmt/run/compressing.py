"""Compressing the checkpoints of a run that are rarely read any more, from the oldest on, and undoing that.

Each is compressed by itself, as differences from the one before it, under the lock of its own directory: a run may be written, read and
cleaned up meanwhile, and a kill leaves checkpoints that are compressed and others that are not. Doing it again goes on with those.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Protocol

from ckptfmt.checkpoint.directory import open_checkpoint_directory, open_named_file, read_manifest
from ckptfmt.checkpoint.encoding import EncodingReport, OnBytes, PathLike, check_level, compress_checkpoint, decompress_checkpoint
from ckptfmt.checkpoint.estimating import estimate_checkpoint
from ckptfmt.checkpoint.staging import SLACK_BYTES, not_enough_space
from ckptfmt.disk.local import LocalDisk
from ckptfmt.disk.protocol import Disk
from ckptfmt.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    FormatError,
    IncompleteError,
    NotEnoughSpaceError,
    RunLockedError,
)
from ckptfmt.run.deleted_bases import steps_on_deleted_bases
from ckptfmt.run.retention import parse_duration
from ckptfmt.run.steps import StepDirectory, StepEntry

_DISK = LocalDisk()
BEING_WRITTEN = "being written"
DELETED = "deleted meanwhile"
DEFAULT_LEVEL = 3


@dataclass(frozen=True, slots=True)
class StepEncoding:
    """What became of one checkpoint of a run.

    `before_bytes` and `after_bytes` are what it adds to the steps before it: files that an older one has too count for that one. `reason`
    says why nothing was changed, and is empty otherwise.
    """

    step: int
    path: str
    before_bytes: int
    after_bytes: int
    is_changed: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class RunEncodingReport:
    """What compressing or decompressing did to a run, or would do: its checkpoints by step; of `older_than` and `keep_last` too."""

    path: str
    steps: tuple[StepEncoding, ...]
    dry_run: bool = False

    @property
    def before_bytes(self) -> int:
        """Size of all checkpoints before; files that several share count once."""
        return sum(step.before_bytes for step in self.steps)

    @property
    def after_bytes(self) -> int:
        """Size of all checkpoints now, counted as before."""
        return sum(step.after_bytes for step in self.steps)


OnStep = Callable[[StepEncoding], None]


class _Work(Protocol):
    def __call__(self, disk: Disk, path: str, *, base: str | None = None) -> EncodingReport:
        """Compress one checkpoint."""


def compress_run(
    path: PathLike,
    *,
    level: int = DEFAULT_LEVEL,
    keep_last: int = 1,
    older_than: str | float | timedelta | None = None,
    dry_run: bool = False,
    on_step: OnStep | None = None,
    on_bytes: OnBytes | None = None,
) -> RunEncodingReport:
    """Compress the checkpoints of a run in place, without loss, each as differences from the one before it.

    The newest `keep_last` stay as they are, because a writer may build on them; `older_than`, such as "7d", leaves out younger ones. What
    is compressed already stays, so this can be repeated and interrupted; but where much of the run is only the files of deleted ones, on
    which others stand as differences, these are compressed anew. Every checkpoint stays whole by itself: any can be deleted or copied. What
    is damaged, or being written, is left alone, and the report says so. `dry_run` estimates by samples. `on_step` is told what became of
    each checkpoint, `on_bytes` how many bytes of tensors were encoded since the last call.

    Raises:
        CheckpointNotFoundError: there is no run.
        NotEnoughSpaceError: a checkpoint does not fit beside its compressed self; nothing of it was changed.
    """
    check_level(level)
    if type(keep_last) is not int or keep_last < 0:
        raise ValueError(f"keep_last={keep_last!r}: expected an integer of at least 0")
    rules = _Rules(keep_last, parse_duration(older_than, "older_than"))
    work = partial(compress_checkpoint, level=level, on_bytes=on_bytes or _ignore)
    return _compress(_DISK, os.fspath(path), rules, work, dry_run=dry_run, on_step=on_step or _ignore)


def decompress_run(path: PathLike, *, on_step: OnStep | None = None, on_bytes: OnBytes | None = None) -> RunEncodingReport:
    """Give all checkpoints of a run their shards back, byte for byte as they were before; `on_step` and `on_bytes` are told as above.

    Raises:
        As of `compress_run`.
    """
    return decompress_run_on(_DISK, os.fspath(path), on_step=on_step or _ignore, on_bytes=on_bytes or _ignore)


def compress_run_on(disk: Disk, path: str, *, level: int = 3, keep_last: int = 1) -> RunEncodingReport:
    """Compress a run on any disk."""
    return _compress(disk, path, _Rules(keep_last, None), partial(compress_checkpoint, level=level), dry_run=False, on_step=_ignore)


def decompress_run_on(disk: Disk, path: str, *, on_step: OnStep = lambda _: None, on_bytes: OnBytes = lambda _: None) -> RunEncodingReport:
    """Decompress a run on any disk, the newest checkpoint first."""
    entries = _entries(disk, path)
    sizes = _Sizes()
    before = {entry.step: sizes.of(disk, entry.path) for entry in entries}
    found = {result.step: result for result in _decompressed(disk, entries, before, on_step, on_bytes)}
    sizes = _Sizes()
    return RunEncodingReport(path, tuple(replace(found[entry.step], after_bytes=sizes.of(disk, entry.path)) for entry in entries))


@dataclass(frozen=True, slots=True)
class Order:
    """What of a run is to be compressed: steps, each with its base or None, in this order. So much of the disk stays free for others.

    Of what became of them, sizes are what no other checkpoint shares.
    """

    path: str
    steps: tuple[tuple[int, int | None], ...]
    reserve_bytes: int


def compress_in_order(disk: Disk, order: Order) -> Iterator[StepEncoding]:
    """Compress some checkpoints of a run, and give what became of each when it is done.

    Raises:
        NotEnoughSpaceError: nothing of the step was changed.
    """
    steps = StepDirectory(disk, order.path)
    work = partial(compress_checkpoint, level=DEFAULT_LEVEL)
    for step, base in order.steps:
        path = steps.path_of(step)
        _check_space(disk, path, order.reserve_bytes)
        before_bytes = steps.unique_bytes(step)
        result = StepEncoding(step, path, before_bytes, before_bytes, is_changed=False)
        result = _compressed(disk, path, None if base is None else steps.path_of(base), work, result)
        yield replace(result, after_bytes=steps.unique_bytes(step)) if result.is_changed else result


def _check_space(disk: Disk, path: str, reserve_bytes: int) -> None:
    """Refuse to take what somebody else needs while both versions of a checkpoint lie side by side."""
    try:
        with closing(open_checkpoint_directory(disk, path)) as directory:
            free_bytes = directory.free_bytes()
            needed_bytes = sum(entry.size_bytes for entry in read_manifest(directory).files())
    except CheckpointError:
        # Compressing it says what is wrong.
        return
    needed_bytes += reserve_bytes + SLACK_BYTES
    if free_bytes < needed_bytes:
        raise not_enough_space(path, needed_bytes, free_bytes)


@dataclass(frozen=True, slots=True)
class _Rules:
    keep_last: int
    older_than: timedelta | None

    def reason_against(self, entries: Sequence[StepEntry], index: int, now: datetime) -> str:
        """Return why a checkpoint stays as it is; nothing where none of the rules says so."""
        if index >= len(entries) - self.keep_last:
            return f"last {self.keep_last}"
        if entries[index].manifest is None:
            return "damaged"
        if self.older_than is not None and now - entries[index].stored().created_at < self.older_than:
            return "too young"
        return ""


def _ignore(_: StepEncoding | int) -> None:
    """Tell nobody."""


def _entries(disk: Disk, path: str) -> list[StepEntry]:
    try:
        return StepDirectory(disk, path).entries()
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointNotFoundError(f"{path}: no such run\nThere is nothing under this path.", path=path) from None


def _compress(disk: Disk, path: str, rules: _Rules, work: _Work, *, dry_run: bool, on_step: OnStep) -> RunEncodingReport:
    entries = _entries(disk, path)
    before, after = _Sizes(), _Sizes()
    now = datetime.now(UTC)
    results: list[StepEncoding] = []
    base: str | None = None
    on_deleted = steps_on_deleted_bases(entries)
    for index, entry in enumerate(entries):
        before_bytes = before.of(disk, entry.path)
        reason = rules.reason_against(entries, index, now)
        result = StepEncoding(entry.step, entry.path, before_bytes, before_bytes, is_changed=False, reason=reason)
        if not reason and dry_run:
            result = _estimated(disk, entry, base, result)
        elif not reason:
            result = _compressed(disk, entry.path, base, work, result, is_new_start=entry.step in on_deleted)
        if not dry_run:
            result = replace(result, after_bytes=after.of(disk, entry.path))
        # On what is damaged nothing is built; what comes after it is a difference from what came before.
        base = base if result.reason else entry.path
        results.append(result)
        on_step(result)
    return RunEncodingReport(path, tuple(results), dry_run)


def _compressed(disk: Disk, path: str, base: str | None, work: _Work, result: StepEncoding, *, is_new_start: bool = False) -> StepEncoding:
    """Compress one checkpoint; where its base is not what it was, without that. With `is_new_start` it is decompressed before."""
    try:
        if is_new_start:
            decompress_checkpoint(disk, path)
        try:
            report = work(disk, path, base=base)
        except (FormatError, CheckpointNotFoundError, IncompleteError):
            if base is None:
                raise
            report = work(disk, path)
    except NotEnoughSpaceError:
        raise
    except CheckpointError as error:
        return replace(result, reason=_reason_of(error))
    return replace(result, is_changed=report.is_changed)


def _reason_of(error: CheckpointError) -> str:
    if isinstance(error, RunLockedError):
        return BEING_WRITTEN
    if isinstance(error, (CheckpointNotFoundError, IncompleteError)):
        return DELETED
    return f"damaged: {str(error).partition(chr(10))[0]}"


def _estimated(disk: Disk, entry: StepEntry, base: str | None, result: StepEncoding) -> StepEncoding:
    try:
        saved_bytes = estimate_checkpoint(disk, entry.path, base)
    except CheckpointError as error:
        return replace(result, reason=_reason_of(error))
    return replace(result, after_bytes=max(0, result.before_bytes - saved_bytes), is_changed=saved_bytes > 0)


def _decompressed(
    disk: Disk, entries: Sequence[StepEntry], before: Mapping[int, int], on_step: OnStep, on_bytes: OnBytes
) -> Iterator[StepEncoding]:
    for entry in reversed(entries):
        result = StepEncoding(entry.step, entry.path, before[entry.step], before[entry.step], is_changed=False)
        try:
            report = decompress_checkpoint(disk, entry.path, on_bytes=on_bytes)
            if report.is_changed:
                added_bytes = report.unique_after_bytes - report.unique_before_bytes
                result = replace(result, after_bytes=before[entry.step] + added_bytes, is_changed=True)
        except NotEnoughSpaceError:
            raise
        except CheckpointError as error:
            result = replace(result, reason=_reason_of(error))
        on_step(result)
        yield result


class _Sizes:
    """What each checkpoint adds to those before it: of files with several names, those that no earlier one has."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def of(self, disk: Disk, path: str) -> int:
        """Count a checkpoint; nothing where it is gone or cannot be read."""
        added_bytes = 0
        try:
            with closing(open_checkpoint_directory(disk, path)) as directory:
                for entry in read_manifest(directory).files():
                    with closing(open_named_file(directory, entry)) as file:
                        if file.link_count == 1 or entry.digest not in self._known:
                            added_bytes += entry.size_bytes
                    self._known.add(entry.digest)
        except CheckpointError:
            return added_bytes
        return added_bytes
