"""Pieces of work on checkpoints that a crash or a fault may cut short, with what may be found after that.

Each is a job on a disk that was prepared; the same jobs are killed, cut from power, failed by the system and denied space. Jobs go
through a `Product`, so that a mutant does them as well.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from ckptfmt.disk.memory import MemoryDisk
from ckptfmt.disk.memory_store import Tree
from tests.crash.checkpoint_product import Product
from tests.crash.checkpoint_states import State, encoded, make_state
from tests.crash.checkpoint_together import save_together

TARGET = "/runs/exp/step"
OTHER = "/runs/exp/other"
OLD, NEW, OTHERS, ATTEMPT = 1, 2, 3, 4
KILLED = "killed"
COMPRESSIBLE = 64

Job = Callable[[Product, Any], None]


@dataclass(frozen=True)
class Workload:
    """One job on one checkpoint. `old` is there before, `new` when the job has returned; None: no checkpoint.

    Each of `attempted` may be found as well until then: what an earlier attempt, which was killed, came to.
    """

    name: str
    prepare: Job
    job: Job
    old: State | None
    new: State | None
    attempted: tuple[State | None, ...] = ()
    has_links: bool = True
    target: str = TARGET

    def initial(self, product: Product) -> Tree:
        """Return the disk before the job."""
        disk = MemoryDisk()
        for path in ("/runs", "/runs/exp"):
            disk.make_directory(path)
        self.prepare(product, disk)
        return disk.tree()

    def disk(self, tree: Tree, *, capacity_bytes: int | None = None) -> MemoryDisk:
        """Return a disk for the job, on which links work or do not."""
        disk = MemoryDisk(tree, capacity_bytes=capacity_bytes)
        self.restrict(disk)
        return disk

    def restrict(self, disk: MemoryDisk) -> None:
        """Let links be refused where this workload wants that."""
        if not self.has_links:
            disk.faults.fail("link", errno.EXDEV, times=None)


def workloads(tensor_count: int) -> dict[str, Workload]:
    """Return every workload, with states of so many tensors in their larger section."""
    size = {"tensor_count": tensor_count}
    old, new = make_state(OLD, **size), make_state(NEW, **size)
    # Of this one every second tensor is in the other checkpoint, or in the old one.
    partly_others, partly_old = make_state(NEW, shared=OTHERS, **size), make_state(NEW, shared=OLD, **size)

    def save(number: int, path: str = TARGET, *, shared: int | None = None, tiled: int = 1, **options: Any) -> Job:
        state = encoded(number, shared=shared, tiled=tiled, **size)
        return lambda product, disk: product.save(disk, path, state, **options)

    def together(number: int, path: str = TARGET, *, shared: int | None = None, **options: Any) -> Job:
        state = encoded(number, shared=shared, **size)
        # Larger shards than one process writes: there are twice as many files otherwise.
        return lambda product, disk: save_together(product, disk, path, state, max_shard_size_bytes=250, **options)

    def both(*jobs: Job) -> Job:
        def run(product: Product, disk: Any) -> None:
            for job in jobs:
                job(product, disk)

        return run

    def delete(product: Product, disk: Any) -> None:
        product.delete_checkpoint(disk, TARGET)

    tiled = make_state(OLD, tiled=COMPRESSIBLE, **size)
    save_tiled = save(OLD, tiled=COMPRESSIBLE)

    def compress(product: Product, disk: Any) -> None:
        product.compress_checkpoint(disk, TARGET, level=3)

    def decompress(product: Product, disk: Any) -> None:
        product.decompress_checkpoint(disk, TARGET)

    # Every second tensor of this is that of the other checkpoint, which is compressed: a difference of nothing.
    near = make_state(NEW, shared=OTHERS, tiled=COMPRESSIBLE, **size)
    beside_near = both(
        save(OTHERS, OTHER, tiled=COMPRESSIBLE),
        lambda product, disk: product.compress_checkpoint(disk, OTHER, level=3),
        save(NEW, shared=OTHERS, tiled=COMPRESSIBLE),
    )

    def compress_with_base(product: Product, disk: Any) -> None:
        product.compress_checkpoint(disk, TARGET, level=3, base=OTHER)

    other = save(OTHERS, OTHER)
    overwrite = save(NEW, overwrite=True)
    with_base = save(NEW, shared=OTHERS, base=OTHER)
    made = [
        Workload("first save", other, save(NEW), None, new),
        Workload(
            "first save below missing directories", other, save(NEW, "/new/er/step", overwrite=True), None, new, target="/new/er/step"
        ),
        Workload("overwrite", both(save(OLD), other), overwrite, old, new),
        Workload("overwrite with the same state", both(save(OLD), other), save(OLD, overwrite=True), old, old),
        Workload("save with a base", other, with_base, None, partly_others),
        Workload("save with a base, copied", other, with_base, None, partly_others, has_links=False),
        Workload(
            "overwrite with a base",
            both(save(OLD), other),
            save(NEW, shared=OTHERS, base=OTHER, overwrite=True),
            old,
            partly_others,
        ),
        Workload(
            "overwrite with itself as base", both(save(OLD), other), save(NEW, shared=OLD, base=TARGET, overwrite=True), old, partly_old
        ),
        Workload("compress", both(save_tiled, other), compress, tiled, tiled),
        Workload("decompress", both(save_tiled, compress, other), decompress, tiled, tiled),
        Workload("first save by two processes", other, together(NEW), None, new),
        Workload("overwrite by two processes", both(save(OLD), other), together(NEW, overwrite=True), old, new),
        Workload(
            "save by two processes with a base",
            together(OTHERS, OTHER),
            together(NEW, shared=OTHERS, base=OTHER),
            None,
            partly_others,
        ),
        Workload("compress with a base", beside_near, compress_with_base, near, near),
        Workload("compress with a base, not linked", beside_near, compress_with_base, near, near, has_links=False),
        Workload("decompress with a base", both(beside_near, compress_with_base), decompress, near, near),
        Workload("delete", both(save(OLD), other), delete, old, None),
        Workload("delete what shares files", both(other, save(OTHERS, base=OTHER)), delete, make_state(OTHERS, **size), None),
    ]
    return {workload.name: workload for workload in made}


def unsynced_bases(tensor_count: int) -> dict[str, Workload]:
    """Return the saving of a checkpoint and, with it as the base, of another one, of which only the second is made durable."""
    first = encoded(OTHERS, tensor_count=tensor_count)
    second = encoded(NEW, tensor_count=tensor_count, shared=OTHERS)

    def save(product: Product, disk: Any) -> None:
        product.save(disk, OTHER, first, durable=False)
        product.save(disk, TARGET, second, base=OTHER)

    def together(product: Product, disk: Any) -> None:
        for path, state, options in ((OTHER, first, {"durable": False}), (TARGET, second, {"base": OTHER})):
            save_together(product, disk, path, state, max_shard_size_bytes=10_000, **options)

    new = make_state(NEW, tensor_count=tensor_count, shared=OTHERS)
    jobs = {"save": save, "save by two processes": together}
    names = {name: f"{name} with a base that was not synced" for name in jobs}
    return {names[name]: Workload(names[name], lambda product, disk: None, job, None, new) for name, job in jobs.items()}


def killed_at(workload: Workload, attempt: Workload, operation: int) -> Workload:
    """Return a workload that begins after another one was killed at its n-th operation, without a power cut.

    Nothing that the attempt did is durable of itself; that is why both are one job. The mark `KILLED` stands between them.
    """

    def run(product: Product, disk: Any) -> None:
        # A disk that fails from some operation on is what a killed process leaves: nothing more happens.
        disk.inner.faults.fail("any", errno.EIO, nth=operation, times=None)
        with suppress(OSError):
            attempt.job(product, disk)
        disk.record_mark(KILLED)
        disk.inner.faults.clear()
        workload.restrict(disk.inner)
        workload.job(product, disk)

    name = f"{workload.name}, after a kill at operation {operation} of {attempt.name}"
    return replace(workload, name=name, job=run, attempted=(attempt.new,))


def count_operations(product: Product, workload: Workload) -> int:
    """Return at how many operations a job can be killed."""
    disk = workload.disk(workload.initial(product))
    workload.job(product, disk)
    return disk.faults.calls["any"]


def another_save(target: str) -> Workload:
    """Return the saving of a state that no other workload saves."""

    def run(product: Product, disk: Any) -> None:
        product.save(disk, target, encoded(ATTEMPT, tensor_count=1), overwrite=True)

    return Workload("another save", lambda product, disk: None, run, None, make_state(ATTEMPT, tensor_count=1), target=target)
