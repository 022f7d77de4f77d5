"""The checks that tell a changed product from the right one: each raises `Violation` if a promise does not hold.

A killer is given the edits that make the product, and makes it with them, or with more of its own.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from ckptfmt.disk.memory import MemoryDisk
from ckptfmt.disk.memory_store import Tree
from ckptfmt.errors import RunLockedError
from ckptfmt.format.layout import temporary_name
from tests.crash.checkpoint_check import CrashCheck, Violation, load_or_none
from tests.crash.checkpoint_damage import DamageCheck
from tests.crash.checkpoint_faults import Fault, FaultCheck
from tests.crash.checkpoint_product import Edit, Product, load_product
from tests.crash.checkpoint_states import encoded, is_same, make_state
from tests.crash.checkpoint_workloads import (
    NEW,
    OLD,
    OTHER,
    OTHERS,
    TARGET,
    another_save,
    count_operations,
    killed_at,
    unsynced_bases,
    workloads,
)

Killer = Callable[[tuple[Edit, ...]], None]

# Every file takes several blocks, so that the second thread writes, syncs and renames it.
THREADED = Edit("ckptfmt.checkpoint.block_stream", "BLOCK_BYTES = 8 * 2**20", "BLOCK_BYTES = 128")
# Without the look at the free space, so that the disk becomes full in the middle.
UNWARNED = Edit("ckptfmt.checkpoint.staging", "SLACK_BYTES = 2**20", "SLACK_BYTES = -(2**40)")


def crash(name: str, *, weak: bool = True) -> Killer:
    """Check what a crash leaves of one workload."""
    return partial(_crash, name, weak)


def _crash(name: str, weak: bool, edits: tuple[Edit, ...]) -> None:
    check = CrashCheck(load_product(*edits), (workloads(2) | unsynced_bases(2))[name])
    for state in check.states(weak=weak):
        check.check(state)


def crash_after_kill(name: str) -> Killer:
    """Check what a crash leaves of a workload that follows the kill of a save into the same path."""
    return partial(_crash_after_kill, name)


def _crash_after_kill(name: str, edits: tuple[Edit, ...]) -> None:
    product = load_product(*edits)
    workload = workloads(1)[name]
    attempt = replace(another_save(workload.target), prepare=workload.prepare)
    for operation in range(1, count_operations(product, attempt) + 1):
        check = CrashCheck(product, killed_at(workload, attempt, operation))
        for state in check.states_after_kill():
            check.check(state)


def fault(name: str, *, happens: str = "before", extra: tuple[Edit, ...] = (), kind: str = "any") -> Killer:
    """Let every operation of one workload fail."""
    return partial(_fault, name, happens, extra, kind)


def _fault(name: str, happens: Any, extra: tuple[Edit, ...], kind: Any, edits: tuple[Edit, ...]) -> None:
    check = FaultCheck(load_product(*edits, *extra), workloads(2)[name])
    for nth in range(1, check.counts[kind] + 1):
        for is_for_ever in (False, True):
            check.check(Fault(kind, errno.EIO, nth, is_for_ever=is_for_ever, happens=happens))


def filling(name: str) -> Killer:
    """Let the disk become full at any byte of one workload."""
    return partial(_filling, name)


def _filling(name: str, edits: tuple[Edit, ...]) -> None:
    check = FaultCheck(load_product(*edits, UNWARNED), workloads(1)[name])
    free_bytes = 0
    while check.check_full(free_bytes):
        free_bytes += 64


def damage(edits: tuple[Edit, ...]) -> None:
    """Change every byte of a checkpoint, and its files."""
    check = DamageCheck(load_product(*edits))
    for found in (*check.others(), *check.flips(every_bit=False), *check.flips(every_bit=True, only="metadata")):
        check.check(found)


def locked(edits: tuple[Edit, ...]) -> None:
    """Save and delete where another writer is at work."""
    product, disk = load_product(*edits), MemoryDisk()
    product.save(disk, "/step", encoded(OLD))
    other = disk.open_directory("/step")
    other.try_lock()
    for work in (lambda: product.save(disk, "/step", encoded(NEW), overwrite=True), lambda: product.delete_checkpoint(disk, "/step")):
        before = disk.contents()
        with suppress(RunLockedError):
            work()
            raise Violation("two writers in one directory")
        if disk.contents() != before:
            raise Violation("a writer that was refused has changed something")


class _RacingDisk(MemoryDisk):
    """Another writer makes and locks each directory just before this one does."""

    def make_directory(self, path: str) -> None:
        super().make_directory(path)
        self.other = self.open_directory(path)
        self.other.try_lock()
        super().make_directory(path)


def race(edits: tuple[Edit, ...]) -> None:
    """Begin a first save at the same time as another writer."""
    disk = _RacingDisk()
    with suppress(RunLockedError):
        load_product(*edits).save(disk, "/step", encoded(NEW))
        raise Violation("two writers in one directory")
    if "/step" not in disk.contents():
        raise Violation("the directory of the other writer was removed")


def without_locks(edits: tuple[Edit, ...]) -> None:
    """Save where there are no locks, so that unknown files may be another writer's."""
    product, disk = load_product(*edits), MemoryDisk()
    product.save(disk, "/step", encoded(OLD))
    directory = disk.open_directory("/step")
    theirs = [temporary_name("model-00001", "0" * 32), "model-00001-00000000.safetensors"]
    for name in theirs:
        directory.create(name, size_bytes=0).close()
    disk.faults.fail("lock", errno.ENOLCK, times=None)
    product.save(disk, "/step", encoded(NEW), overwrite=True)
    if not set(theirs) <= set(directory.names()):
        raise Violation("another writer's files were removed")


def damaged_manifest(edits: tuple[Edit, ...]) -> None:
    """Overwrite a checkpoint whose manifest cannot be read, and fail before the commit."""
    product, disk = load_product(*edits), MemoryDisk()
    product.save(disk, "/step", encoded(OLD))
    disk = _with_content(disk, "/step", "manifest.json", b"{}")
    before = disk.contents()
    disk.faults.fail("sync", errno.EIO)
    with suppress(OSError):
        product.save(disk, "/step", encoded(NEW), overwrite=True)
    if disk.contents() != before:
        raise Violation("files of a checkpoint that could be repaired are gone")
    product.save(disk, "/step", encoded(NEW), overwrite=True)
    if not is_same(load_or_none(product, disk, "/step"), make_state(NEW)):
        raise Violation("a damaged checkpoint cannot be overwritten")


def short_base(path: str) -> Killer:
    """Save with a base of which one shard is cut off or missing."""
    return partial(_short_base, path)


def _short_base(path: str, edits: tuple[Edit, ...]) -> None:
    product = load_product(*edits)
    number = OLD if path == TARGET else OTHERS
    tree = workloads(3)["overwrite"].initial(product)
    names = MemoryDisk(tree).open_directory(path).names()
    for name in [name for name in names if name.endswith(".safetensors")]:
        for content in (b"", None):
            disk = _with_content(MemoryDisk(tree), path, name, content)
            product.save(disk, TARGET, encoded(number), base=path, overwrite=True)
            if not is_same(load_or_none(product, disk, TARGET), make_state(number)):
                raise Violation(f"an acknowledged save rests on a damaged {name}")


def _with_content(disk: MemoryDisk, path: str, name: str, content: bytes | None) -> MemoryDisk:
    directory = disk.open_directory(path)
    directory.unlink(name)
    if content is not None:
        file = directory.create(name, size_bytes=len(content))
        file.write(content)
        file.close()
    directory.close()
    tree = disk.tree()
    return MemoryDisk(Tree(tree.directories, tree.files))


def all_killers() -> dict[str, Killer]:
    """Return every killer by a name, for the product as it is; what follows a kill has a test of its own."""
    found: dict[str, Killer] = {f"crash: {name}": crash(name) for name in workloads(1)}
    found |= {f"fault: {name}": fault(name) for name in ("overwrite", "overwrite with the same state", "save with a base")}
    found |= {f"fault after its effect: {name}": fault(name, happens="after") for name in ("overwrite", "first save")}
    found |= {f"fault of the second thread: {kind}": fault("overwrite", extra=(THREADED,), kind=kind) for kind in ("write", "sync")}
    found |= {f"full disk: {name}": filling(name) for name in ("overwrite", "save with a base, copied")}
    found |= {f"short base: {path}": short_base(path) for path in (TARGET, OTHER)}
    single: list[Killer] = [damage, locked, race, without_locks, damaged_manifest]
    return found | {killer.__name__: killer for killer in single}  # type: ignore[attr-defined]


__all__ = ["Killer", "Product", "all_killers"]
