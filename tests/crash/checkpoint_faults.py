"""What must hold when the system fails an operation of a save or a deletion (P8): a typed error that names a path, nothing
acknowledged, the old checkpoint as it was, a retry that works, and no file synced or renamed after its sync has failed.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from ckptfmt.disk.faults import FaultPlan, OperationKind
from ckptfmt.disk.memory import MemoryDisk
from ckptfmt.disk.refusals import DIRECTORY_SYNC_REFUSALS
from ckptfmt.errors import DurabilityUnknownError, NotEnoughSpaceError
from tests.crash.checkpoint_check import Violation, check_tidy, load_or_none
from tests.crash.checkpoint_product import Product
from tests.crash.checkpoint_states import State, is_same
from tests.crash.checkpoint_workloads import Workload

CAPACITY_BYTES = 2**24


@dataclass(frozen=True)
class Fault:
    """The n-th operation of a kind fails, without effect or after it; once, or with all that follow."""

    kind: OperationKind
    errno: int
    nth: int
    is_for_ever: bool = False
    happens: Literal["before", "after"] = "before"

    def __str__(self) -> str:
        often = "for ever from" if self.is_for_ever else "once at"
        return f"{errno.errorcode[self.errno]} {often} {self.kind} {self.nth}, {self.happens} its effect"


class LoggedFaults(FaultPlan):
    """A fault plan that keeps every attempt as (kind, path), and the names of the threads that made one."""

    def __init__(self) -> None:
        super().__init__()
        self.attempts: list[tuple[str, str]] = []
        self.failed_syncs: list[int] = []
        self.threads: set[str] = set()

    @contextmanager
    def operation(self, kind: OperationKind, path: str, target_path: str | None = None) -> Iterator[None]:
        """Count one operation, log it, and let it fail if that is planned."""
        self.attempts.append((kind, path))
        self.threads.add(threading.current_thread().name)
        try:
            with super().operation(kind, path, target_path):
                yield
        except OSError:
            if kind in ("sync", "sync_directory"):
                self.failed_syncs.append(len(self.attempts) - 1)
            raise

    def check_poison(self) -> None:
        """Raise if a file was synced or renamed after its sync had failed."""
        for index in self.failed_syncs:
            path = self.attempts[index][1]
            for kind, later_path in self.attempts[index + 1 :]:
                if later_path == path and kind in ("sync", "rename"):
                    raise Violation(f"{path}: {kind} after a failed sync")


class FaultCheck:
    """One workload, to be done by one product on a disk that fails."""

    def __init__(self, product: Product, workload: Workload) -> None:
        self.product = product
        self.workload = workload
        self.initial = workload.initial(product)
        self.before = MemoryDisk(self.initial).contents()
        disk = self._disk()
        workload.job(product, disk)
        self.counts = disk.faults.calls
        self.threads = disk.faults.threads if isinstance(disk.faults, LoggedFaults) else set()

    def _disk(self) -> MemoryDisk:
        disk = MemoryDisk(self.initial, capacity_bytes=CAPACITY_BYTES)
        disk._store.faults = LoggedFaults()
        self.workload.restrict(disk)
        return disk

    def check(self, fault: Fault) -> None:
        """Do the job with this fault; raise unless every promise holds."""
        try:
            self._check(fault)
        except Violation as violation:
            raise Violation(f"{self.workload.name}, {fault}: {violation}") from violation

    def _check(self, fault: Fault) -> None:
        disk = self._disk()
        faults = disk.faults
        plan = faults.fail if fault.happens == "before" else faults.fail_after
        plan(fault.kind, fault.errno, nth=fault.nth, times=None if fault.is_for_ever else 1)
        error = self.run(disk)
        if isinstance(faults, LoggedFaults):
            faults.check_poison()
            if faults.failed_syncs and error is None and fault.errno not in DIRECTORY_SYNC_REFUSALS:
                raise Violation("acknowledged, though a sync failed")
        faults.clear()
        self.workload.restrict(disk)
        if error is not None:
            _check_error(error, is_save=self.workload.new is not None)
        self.check_outcome(disk, error, is_exact=fault.happens == "before")
        if error is not None and not isinstance(error, DurabilityUnknownError) and fault.happens == "before" and not fault.is_for_ever:
            self.check_undone(disk)
        self.check_retry(disk)

    def check_full(self, free_bytes: int) -> bool:
        """Do the job on a disk with so much space; raise unless every promise holds. Tell whether it was too little."""
        used_bytes = sum(map(len, self.initial.files.values()))
        disk = self.workload.disk(self.initial, capacity_bytes=used_bytes + free_bytes)
        error = self.run(disk)
        self.check_outcome(disk, error, is_exact=True)
        if error is None:
            return False
        if not isinstance(error, NotEnoughSpaceError) or not error.path:
            raise Violation(f"{error!r} is no NotEnoughSpaceError with a path")
        if disk.tree().files != self.initial.files:
            raise Violation(f"{free_bytes} bytes free: the failed save left something")
        self.check_retry(self.workload.disk(disk.tree()))
        return True

    def run(self, disk: MemoryDisk) -> OSError | None:
        """Do the job; return the error that it ends with."""
        try:
            self.workload.job(self.product, disk)
        except OSError as error:
            return error
        except Exception as error:
            raise Violation(f"{type(error).__name__} instead of an error of the system: {error}") from error
        return None

    def check_outcome(self, disk: MemoryDisk, error: OSError | None, *, is_exact: bool) -> None:
        """Raise unless a reader sees what it may after this error, and everything else is as it was."""
        old, new = self.workload.old, self.workload.new
        allowed: list[State | None] = [new] if error is None or isinstance(error, DurabilityUnknownError) else [old]
        if error is not None and (not is_exact or new is None):
            # A failure that is reported after the effect, and a deletion, may leave either.
            allowed = [old, new]
        found = load_or_none(self.product, disk, self.workload.target)
        if not any(found is state is None or is_same(found, state) for state in allowed):
            raise Violation(f"after {error!r} a reader sees {'nothing' if found is None else found.get('epoch')}")
        contents = disk.contents()
        for path, content in self.before.items():
            is_own = path.startswith(self.workload.target)
            if not is_own and (path not in contents or contents[path] != content):
                raise Violation(f"{path} is not what it was")
            if is_own and isinstance(error, DurabilityUnknownError) and not path.endswith("manifest.json") and path not in contents:
                raise Violation(f"{path} was removed, but the new checkpoint is perhaps not durable")

    def check_undone(self, disk: MemoryDisk) -> None:
        """Raise unless a save that failed has removed what it had written, and given back its space."""
        if self.workload.new is None:
            return
        files = {path: content for path, content in disk.contents().items() if content is not None}
        if files != {path: content for path, content in self.before.items() if content is not None}:
            raise Violation("the failed save left something, or took something")
        if free_bytes(disk) != free_bytes(self._disk()):
            raise Violation("the failed save holds space")

    def check_retry(self, disk: MemoryDisk) -> None:
        """Raise unless the same job succeeds when nothing fails any more."""
        contents = disk.contents()
        if self.workload.new is None and self.workload.target not in contents:
            return
        is_visible = f"{self.workload.target}/manifest.json" in contents
        if self.workload.old is None and is_visible:
            # The first save is there already; another one would be refused, and is no retry.
            return
        error = self.run(disk)
        if error is not None:
            raise Violation(f"the retry ends with {error!r}") from error
        found = load_or_none(self.product, disk, self.workload.target)
        if self.workload.new is None:
            if found is not None or self.workload.target in disk.contents():
                raise Violation("the retry leaves something")
            return
        if not is_same(found, self.workload.new):
            raise Violation("the retry is not what it saved")
        check_tidy(self.product, disk, self.workload.target)


def free_bytes(disk: MemoryDisk) -> int:
    """Return the free space of a disk."""
    directory = disk.open_directory("/")
    try:
        return directory.free_bytes()
    finally:
        directory.close()


def _check_error(error: OSError, *, is_save: bool) -> None:
    if not (error.filename or getattr(error, "path", None)):
        raise Violation(f"{error!r} names no path")
    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    if is_save and is_full and not isinstance(error, NotEnoughSpaceError):
        raise Violation(f"{error!r} is no NotEnoughSpaceError")
