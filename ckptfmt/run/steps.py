"""The checkpoints of a run by their step: names, listing, setting aside.

Order is that of the numbers in the names, never that of times. Setting aside renames; nothing here deletes.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from ckptfmt.checkpoint.directory import describe_directory, open_checkpoint_directory, open_named_file, read_manifest
from ckptfmt.checkpoint.info import CheckpointInfo
from ckptfmt.checkpoint.verify import find_damage
from ckptfmt.disk.paths import join
from ckptfmt.disk.protocol import Directory, Disk, FileStatus
from ckptfmt.errors import CheckpointError, CheckpointNotFoundError, CorruptError, IncompleteError
from ckptfmt.format.layout import MANIFEST_NAME, MAX_INTEGER
from ckptfmt.format.manifest import Manifest
from ckptfmt.run.retention import StoredStep
from ckptfmt.run.run_file import RUN_FILE_NAME

ASIDE_PREFIX = "aside-"
CACHE_NAME = "cache"
_ATTEMPTS = 100
_STEP_PREFIX = "step-"
_STEP_DIGITS = range(8, 20)
_KEPT_SHARDS = 64


def step_name(step: int) -> str:
    """Return the directory name of a step."""
    return f"{_STEP_PREFIX}{step:08d}"


def _is_step_name(name: str) -> bool:
    digits = name[len(_STEP_PREFIX) :]
    is_number = name.startswith(_STEP_PREFIX) and len(digits) in _STEP_DIGITS and digits.isascii() and digits.isdigit()
    return is_number and (len(digits) == _STEP_DIGITS[0] or digits[0] != "0")


def check_step(step: object) -> int:
    """Return a step if it is one.

    Raises:
        ValueError: it is not an integer from 0 to 2^63 - 1.
    """
    if type(step) is not int or not 0 <= step < MAX_INTEGER:
        raise ValueError(f"step={step!r}: expected an integer of at least 0")
    return step


@dataclass(frozen=True, slots=True)
class StepEntry:
    """A committed checkpoint of a run, or a damaged one (`manifest` is None, `error` says why).

    Of very many shards the manifest is kept without them (`is_shortened`), because a run may have ten thousand steps.
    """

    step: int
    path: str
    manifest: Manifest | None
    error: CheckpointError | None = None
    is_shortened: bool = False

    @classmethod
    def of(cls, step: int, path: str, manifest: Manifest) -> StepEntry:
        """Return the entry of a sound manifest."""
        if len(manifest.shards) <= _KEPT_SHARDS:
            return cls(step, path, manifest)
        return cls(step, path, replace(manifest, shards=()), is_shortened=True)

    def stored(self) -> StoredStep:
        """Return it as retention sees it."""
        if self.manifest is None:
            return StoredStep(self.step, datetime.fromtimestamp(0, UTC), {}, is_sound=False)
        created = datetime.fromisoformat(self.manifest.created_at_utc)
        return StoredStep(self.step, created, self.manifest.metrics, is_sound=self.error is None)


@dataclass(frozen=True, slots=True)
class _Known:
    """An entry as it was read from a manifest file of this status, and the same after its files were looked for."""

    entry: StepEntry
    status: FileStatus | None
    checked: StepEntry | None = None


class StepDirectory:
    """The step-* directories of one run."""

    def __init__(self, disk: Disk, path: str) -> None:
        self.disk = disk
        self.path = path
        self._known: dict[int, _Known] = {}
        self._mutex = threading.Lock()

    def path_of(self, step: int) -> str:
        """Return the path of a step's checkpoint."""
        return join(self.path, step_name(step))

    def exists(self) -> bool:
        """Tell whether the run has a directory."""
        try:
            self.disk.open_directory(self.path).close()
        except FileNotFoundError:
            return False
        return True

    def _names(self) -> list[str]:
        directory = self.disk.open_directory(self.path)
        try:
            return directory.names()
        finally:
            directory.close()

    def numbers(self) -> list[int]:
        """Return the steps of which there is a directory, in ascending order; not all of them need be committed."""
        steps = (int(name[len(_STEP_PREFIX) :]) for name in self._names() if _is_step_name(name))
        return sorted(steps)

    def entries(self, only: Iterable[int] | None = None) -> list[StepEntry]:
        """Return every step with a manifest, or those of `only`, damaged ones included, in ascending order.

        A writer may be at work. It deletes a step only after it has committed a newer one; if that one is not in the list of names,
        the list is too old and is made again.
        """
        found: list[StepEntry | None] = []
        if only is not None:
            return [entry for entry in map(self.entry_of, only) if entry is not None]
        for _ in range(_ATTEMPTS):
            numbers = self.numbers()
            found = [self.entry_of(step) for step in numbers]
            if None not in found or not self._has_later(numbers):
                break
        return [entry for entry in found if entry is not None]

    def _has_later(self, numbers: list[int]) -> bool:
        return max(self.numbers(), default=-1) > max(numbers, default=-1)

    def newest_first(self) -> Iterator[StepEntry]:
        """Yield every step with a manifest as `entries` does, the newest first, reading no more than is asked for."""
        tried: set[int] = set()
        for _ in range(_ATTEMPTS):
            numbers = self.numbers() if self.exists() else []
            for step in [step for step in reversed(numbers) if step not in tried]:
                entry = self.entry_of(step)
                if entry is not None:
                    tried.add(step)
                    yield entry
                elif self._has_later(numbers):
                    break
            else:
                return

    def known_entries(self, *, are_checked: bool = False) -> list[StepEntry]:
        """Return every step with a manifest, in ascending order, looking only at those that this object has not seen before.

        For the one writer, who knows what it has written: what others do to a known checkpoint goes unnoticed here, but for its removal.
        With `are_checked` those that lacked a file when they were first seen are marked as damaged.
        """
        with self._mutex:
            numbers = self.numbers()
            self._known = {step: self._known[step] for step in numbers if step in self._known}
            found = [self._known.get(step) or self._look(step) for step in numbers]
            if not are_checked:
                return [known.entry for known in found if known is not None]
            return [self._check_once(known) for known in found if known is not None]

    def remembered(self) -> list[StepEntry]:
        """Return what this object has seen and not forgotten, without looking."""
        with self._mutex:
            return [known.entry for _, known in sorted(self._known.items())]

    def find_known(self, step: int) -> StepEntry | None:
        """Return one step as `known_entries` does, None where there is no manifest."""
        with self._mutex:
            known = self._known.get(step) or self._look(step)
        return None if known is None else known.entry

    def _check_once(self, known: _Known) -> StepEntry:
        if known.checked is None:
            error = self.find_damage(known.entry)
            if error is not None:
                # Its files are others where somebody has compressed it since it was seen.
                known = self._look(known.entry.step) or known
                error = self.find_damage(known.entry)
            known = replace(known, checked=replace(known.entry, error=error))
            if known.entry.step in self._known:
                self._known[known.entry.step] = known
        return known.checked or known.entry

    def forget(self, *steps: int) -> None:
        """Look at these again, or at everything: this process has changed them, or doubts what it knows."""
        with self._mutex:
            for step in steps or tuple(self._known):
                self._known.pop(step, None)

    def entry_of(self, step: int) -> StepEntry | None:
        """Return a step as it is now, None where there is no manifest."""
        with self._mutex:
            known = self._look(step)
        return None if known is None else known.entry

    def _look(self, step: int) -> _Known | None:
        """Read a step's manifest, or take it from memory if its file is the one that was read."""
        path = self.path_of(step)
        try:
            directory = open_checkpoint_directory(self.disk, path)
        except CheckpointError:
            return None
        try:
            status = _manifest_status(directory)
            known = self._known.get(step)
            if known is not None and status is not None and status == known.status:
                return known
            self._known[step] = known = _Known(StepEntry.of(step, path, read_manifest(directory)), status)
            return known
        except IncompleteError:
            return None
        except CheckpointError as error:
            return _Known(StepEntry(step, path, None, error), None)
        finally:
            directory.close()

    def is_committed(self, step: int) -> bool:
        """Tell whether there is a sound manifest of a step."""
        entry = self.entry_of(step)
        return entry is not None and entry.manifest is not None

    def committed(self) -> list[StepEntry]:
        """Return the steps whose manifest is sound, in ascending order."""
        return [entry for entry in self.entries() if entry.manifest is not None]

    def checked_entries(self) -> list[StepEntry]:
        """Return every step with a manifest, those that lack a file marked as damaged."""
        return [replace(entry, error=self.find_damage(entry)) for entry in self.entries()]

    def find_damage(self, entry: StepEntry, *, is_full: bool = False) -> CheckpointError | None:
        """Check that every file of a checkpoint is there in its full size; with `is_full` also its content."""
        if entry.manifest is None:
            return entry.error
        try:
            directory = open_checkpoint_directory(self.disk, entry.path)
        except CheckpointError as error:
            return error
        try:
            manifest = read_manifest(directory) if entry.is_shortened else entry.manifest
            for file in manifest.files():
                open_named_file(directory, file).close()
            finding = find_damage(directory, manifest) if is_full else None
        except CheckpointError as error:
            return error
        finally:
            directory.close()
        return None if finding is None else CorruptError(finding.message, rule=finding.rule, path=finding.path, tensor=finding.tensor)

    def info(self, step: int) -> CheckpointInfo:
        """Return what is known of a step's checkpoint."""
        directory = open_checkpoint_directory(self.disk, self.path_of(step))
        try:
            return describe_directory(directory, read_manifest(directory))
        finally:
            directory.close()

    def unique_bytes(self, step: int) -> int:
        """Return what deleting a step would free; 0 for one whose manifest cannot be read."""
        try:
            return self.info(step).unique_bytes
        except CheckpointError:
            return 0

    def set_aside(self, names: Iterable[str], *, reason: str, now: datetime) -> list[str]:
        """Give entries of the run a dated name under which nothing looks for them, in the given order; return the new names.

        `aside-20261121T030900.123456Z-<reason>-<old name>`: renaming one back brings it back.
        """
        names = list(names)
        if not names:
            return []
        directory = self.disk.open_directory(self.path)
        try:
            renamed = []
            for name in names:
                target = f"{ASIDE_PREFIX}{now:%Y%m%dT%H%M%S.%fZ}-{reason}-{name}"
                directory.rename(name, target)
                renamed.append(target)
            directory.sync()
            return renamed
        finally:
            self.forget()
            directory.close()

    def set_later_steps_aside(self, last: int, *, reason: str, now: datetime) -> list[str]:
        """Set aside every checkpoint after `last`, the newest first, so that a kill in between leaves a run that ended earlier.

        What an interrupted save left has no manifest: it is no checkpoint, and the next save of that step removes it.
        """
        later = [step_name(entry.step) for entry in self.entries([step for step in reversed(self.numbers()) if step > last])]
        return self.set_aside(later, reason=reason, now=now)

    def set_everything_aside(self, *, reason: str, now: datetime) -> list[str]:
        """Set aside whatever belongs to the experiment so far: all but caches, and what was set aside before.

        Each group is durable before the next: the history goes before its checkpoints, so that it is never taken for that of the next
        experiment, and the identity goes last, because while one checkpoint is left, it says whose.
        """
        names = [name for name in self._names() if not name.startswith((".", ASIDE_PREFIX)) and name != CACHE_NAME]
        is_step = {name: _is_step_name(name) for name in names}
        others = [name for name in names if not is_step[name] and name != RUN_FILE_NAME]
        groups = (others, [name for name in names if is_step[name]], [name for name in names if name == RUN_FILE_NAME])
        return [renamed for group in groups for renamed in self.set_aside(group, reason=reason, now=now)]


def _manifest_status(directory: Directory) -> FileStatus | None:
    try:
        file = directory.open(MANIFEST_NAME)
    except OSError:
        # What is wrong is said by reading it.
        return None
    try:
        return file.status()
    finally:
        file.close()


def find_entries(disk: Disk, path: str) -> list[StepEntry]:
    """Return the checkpoint at a path, or the checkpoints of the run at it, newest first.

    Raises:
        CheckpointNotFoundError: there is neither.
    """
    directory = open_checkpoint_directory(disk, path)
    entries = StepDirectory(disk, path).entries()[::-1]
    if entries:
        directory.close()
        return entries
    try:
        manifest = read_manifest(directory)
    except IncompleteError:
        raise CheckpointNotFoundError(f"{path}: neither a checkpoint nor a run with checkpoints", path=path) from None
    finally:
        directory.close()
    return [StepEntry(manifest.step or 0, path, manifest)]
