"""What must hold in every state that a crash leaves of a workload: the promises P1 to P3, and that the next writer succeeds.

`CrashCheck.check` raises `Violation`. What a reader sees depends on the manifest and the files that it names, and the next save on
the names that are there and the manifest, so each is done once for equal ones.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from ckptfmt.disk.memory import MemoryDisk
from ckptfmt.disk.recording import Created, MadeDirectory, Marked, Record, RecordingDisk, Renamed, SyncedDirectory, Unlinked
from ckptfmt.errors import CheckpointNotFoundError, IncompleteError
from ckptfmt.format.layout import MANIFEST_NAME
from tests.crash.checkpoint_product import Product
from tests.crash.checkpoint_states import State, encoded, is_same, make_state
from tests.crash.checkpoint_workloads import KILLED, Workload
from tests.crash.crash_states import CrashState, iter_states

NEXT = 9
DONE = "done"

Contents = Mapping[str, bytes | None]


class Violation(AssertionError):
    """A promise does not hold."""


class RecordedDisk(RecordingDisk):
    """A recording whose disk can be told to fail."""

    def __init__(self, inner: MemoryDisk) -> None:
        super().__init__(inner)
        self.inner = inner


class CrashCheck:
    """One workload, done once by one product and recorded, and the check of what a crash leaves of it."""

    def __init__(self, product: Product, workload: Workload) -> None:
        self.product = product
        self.workload = workload
        self.initial = workload.initial(product)
        self.before = MemoryDisk(self.initial).contents()
        self.finished = workload.disk(self.initial)
        disk = RecordedDisk(self.finished)
        workload.job(product, disk)
        disk.record_mark(DONE)
        self.records = disk.records
        self._loaded: dict[tuple[bool, tuple[bytes | None, ...]], State | None] = {}
        self._continued: set[tuple[frozenset[str], bytes | None]] = set()

    def states(self, *, weak: bool, seed: int = 0, limit: int | None = None) -> Iterator[CrashState]:
        """Yield what a crash may leave."""
        return iter_states(self.records, self.initial, weak=weak, seed=seed, limit=limit)

    def states_after_kill(self, *, limit_per_cut: int | None = 3) -> Iterator[CrashState]:
        """Yield what a power cut may leave of the work that follows a kill."""
        limit = None if limit_per_cut is None else limit_per_cut * len(self.records)
        return (state for state in self.states(weak=True, limit=limit) if KILLED in state.acknowledged_marks)

    def states_by_row(self) -> dict[str, list[CrashState]]:
        """Return what a power cut may leave in each row of the specification's crash table."""
        records: list[Record] = []
        row = ""
        for index, record in enumerate(self.records):
            records.append(record)
            if (next_row := row_of(self.records[: index + 1], self.workload.target)) != row:
                row = next_row
                # A mark makes a state that an earlier row has as well one of this row.
                records.append(Marked(row))
        found: dict[str, list[CrashState]] = {}
        for state in iter_states(records, self.initial):
            rows = [mark for mark in state.acknowledged_marks if mark != DONE]
            if rows and row_of(_without_marks(records[: state.cut_index]), self.workload.target) == rows[-1]:
                found.setdefault(rows[-1], []).append(state)
        return found

    def check(self, state: CrashState) -> None:
        """Raise unless every promise holds in this state."""
        contents = state.disk.contents()
        is_acknowledged = DONE in state.acknowledged_marks
        try:
            self._check_others(contents)
            found = self._load(state.disk, contents)
            self._check_found(found, contents, is_acknowledged=is_acknowledged)
            self._check_next_writer(state.disk, contents)
        except Violation as violation:
            raise Violation(f"{self.workload.name}: {state.description}{', acknowledged' * is_acknowledged}: {violation}") from violation

    def _check_others(self, contents: Contents) -> None:
        for path, content in self.before.items():
            if not path.startswith(self.workload.target) and (path not in contents or contents[path] != content):
                raise Violation(f"{path} is not what it was [P3]")

    def _check_found(self, found: State | None, contents: Contents, *, is_acknowledged: bool) -> None:
        if is_acknowledged:
            if not _is_either(found, [self.workload.new]):
                raise Violation(f"found {_name(found)}, not what was acknowledged [P1]")
            if self.workload.new is None and self.workload.target in contents:
                raise Violation("what was deleted is there")
        elif not _is_either(found, [self.workload.old, self.workload.new, *self.workload.attempted]):
            raise Violation(f"found {_name(found)}, neither the old nor the new [P2]")

    def _load(self, disk: MemoryDisk, contents: Contents) -> State | None:
        """Return what a reader sees, and let the verifier confirm it."""
        target = self.workload.target
        key = (target in contents, _named_contents(contents, target))
        if key not in self._loaded:
            self._loaded[key] = load_or_none(self.product, disk, target)
            if self._loaded[key] is not None and not self.product.verify_checkpoint(disk, target).ok:
                raise Violation("it loads, but does not verify")
        return self._loaded[key]

    def _check_next_writer(self, disk: MemoryDisk, contents: Contents) -> None:
        target = self.workload.target
        names = frozenset(posixpath.basename(path) for path in contents if path.startswith(f"{target}/"))
        key = (names, contents.get(f"{target}/{MANIFEST_NAME}"))
        if key in self._continued:
            return
        self._continued.add(key)
        if self.workload.new is None and target in contents:
            check_deleting(self.product, MemoryDisk(disk.tree()), target)
        # The new state again meets its own files as litter; a small one is quicker.
        number, tensor_count = (2, 3) if len(self._continued) % 4 == 0 else (NEXT, 1)
        check_saving(self.product, disk, target, number, tensor_count=tensor_count)
        self._check_others(disk.contents())


def load_or_none(product: Product, disk: Any, path: str) -> State | None:
    """Return the state of a checkpoint, None if there is none; anything else is a violation."""
    try:
        return product.load(disk, path)
    except (CheckpointNotFoundError, IncompleteError):
        return None
    except Exception as error:
        raise Violation(f"a reader sees {type(error).__name__}: {error} [P2]") from error


def check_saving(product: Product, disk: Any, path: str, number: int, *, tensor_count: int = 1) -> None:
    """Raise unless a save into this path succeeds, loads, and leaves nothing but itself."""
    try:
        product.save(disk, path, encoded(number, tensor_count=tensor_count), overwrite=True)
    except Exception as error:
        raise Violation(f"the next save ends with {type(error).__name__}: {error}") from error
    if not is_same(load_or_none(product, disk, path), make_state(number, tensor_count=tensor_count)):
        raise Violation("the next save is not what it saved")
    check_tidy(product, disk, path)


def check_tidy(product: Product, disk: Any, path: str) -> None:
    """Raise if a checkpoint's directory holds a file that its manifest does not name."""
    directory = disk.open_directory(path)
    try:
        named = {MANIFEST_NAME, *(file.name for file in product.read_manifest(directory).files())}
        litter = set(directory.names()) - named
    finally:
        directory.close()
    if litter:
        raise Violation(f"litter: {', '.join(sorted(litter))}")


def check_deleting(product: Product, disk: MemoryDisk, path: str) -> None:
    """Raise unless what a crash left can be deleted."""
    try:
        product.delete_checkpoint(disk, path)
    except Exception as error:
        raise Violation(f"deleting again ends with {type(error).__name__}: {error}") from error
    if path in disk.contents():
        raise Violation("deleting again leaves something")


def row_of(done: list[Record], target: str) -> str:
    """Return the row of the crash table for these operations on a checkpoint."""
    manifest_at = max((index for index, record in enumerate(done) if _touches_manifest(record, target)), default=None)
    last = done[manifest_at] if manifest_at is not None else None
    synced = manifest_at is not None and any(
        isinstance(record, SyncedDirectory) and record.directory == target for record in done[manifest_at:]
    )
    removed = any(isinstance(record, Unlinked) and record.directory == target for record in done[(manifest_at or 0) + 1 :])
    match last:
        case Unlinked():
            return "C9" if synced else "C8"
        case Renamed():
            return ("C7" if removed else "C6") if synced else "C5"
        case Created():
            return "C4"
    created_at = max((index for index, record in enumerate(done) if isinstance(record, Created)), default=None)
    if created_at is not None:
        is_synced = any(isinstance(record, SyncedDirectory) and record.directory == target for record in done[created_at:])
        return "C3" if is_synced else "C2"
    return "C1" if any(isinstance(record, MadeDirectory) for record in done) else ""


def _without_marks(records: list[Record]) -> list[Record]:
    return [record for record in records if not isinstance(record, Marked)]


def _touches_manifest(record: Record, target: str) -> bool:
    match record:
        case Created(directory, name):
            return directory == target and name.startswith(".manifest.")
        case Renamed(directory, _, name) | Unlinked(directory, name):
            return directory == target and name == MANIFEST_NAME
    return False


@lru_cache(1024)
def _names_in(manifest: bytes) -> tuple[str, ...]:
    try:
        document = json.loads(manifest)
        return tuple(file["name"] for file in (document["metadata"], *document["shards"]))
    except (ValueError, KeyError, TypeError):
        return ()


def _named_contents(contents: Contents, target: str) -> tuple[bytes | None, ...]:
    manifest = contents.get(f"{target}/{MANIFEST_NAME}")
    return () if manifest is None else (manifest, *(contents.get(f"{target}/{name}") for name in _names_in(manifest)))


def _is_either(found: State | None, allowed: list[State | None]) -> bool:
    return any(found is expected is None or is_same(found, expected) for expected in allowed)


def _name(found: State | None) -> str:
    return "no checkpoint" if found is None else f"state {found.get('epoch')}"
