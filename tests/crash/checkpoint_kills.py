"""Kills on a real file system: a process of its own, without torch, that forks a child for each system call of a job.

    python -m tests.crash.checkpoint_kills MODE DIRECTORY NAME

    kill          SIGKILL at every call
    kill-writes   SIGKILL in the middle of every write
    limit         files may not grow past every size
    prepare, job, check    the three steps of one job, for a tracer that kills the second

Prints one JSON document. A kill does not lose what the system holds, so here, but for `job`, nothing is really synced.
"""

from __future__ import annotations

import fcntl
import json
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from errno import EFBIG
from functools import partial
from pathlib import Path
from typing import Any

from ckptfmt.disk.local import LocalDirectory, LocalDisk
from tests.crash.checkpoint_check import Violation, check_saving, check_tidy, load_or_none
from tests.crash.checkpoint_product import load_product
from tests.crash.checkpoint_states import is_same
from tests.crash.checkpoint_workloads import Workload, workloads

CALLS = ("open", "write", "fsync", "replace", "unlink", "mkdir", "rmdir", "link", "close", "statvfs", "fstat", "listdir")
PRODUCT = load_product()
REFUSED, WRONG = 3, 4
MAX_CHILDREN = 1_000


class RootedDisk(LocalDisk):
    """A directory of this machine as a disk of its own: its paths begin there."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root = str(root)

    def open_directory(self, path: str) -> LocalDirectory:
        """Open an existing directory."""
        return super().open_directory(self.root + path)

    def make_directory(self, path: str) -> None:
        """Create one directory."""
        super().make_directory(self.root + path)

    def remove_directory(self, path: str) -> None:
        """Remove one empty directory."""
        super().remove_directory(self.root + path)

    def contents(self) -> dict[str, bytes]:
        """Return the content of every file."""
        return {str(path): path.read_bytes() for path in sorted(Path(self.root).rglob("*")) if path.is_file()}


def prepare(workload: Workload, root: Path) -> RootedDisk:
    """Make the disk that a job begins with."""
    disk = RootedDisk(root)
    for path in ("", "/runs", "/runs/exp"):
        disk.make_directory(path)
    workload.prepare(PRODUCT, disk)
    return disk


def check(workload: Workload, disk: RootedDisk, before: dict[str, bytes], *, is_done: bool) -> None:
    """Raise unless the old or the new checkpoint is there, the others are as they were, and a save leaves nothing but itself."""
    found = load_or_none(PRODUCT, disk, workload.target)
    allowed = [workload.new] if is_done else [workload.old, workload.new]
    if not any(found is state is None or is_same(found, state) for state in allowed):
        raise Violation(f"found {found}")
    check_saving(PRODUCT, disk, workload.target, 9)
    after = disk.contents()
    changed = [path for path in before if workload.target not in path and after.get(path) != before[path]]
    if changed:
        raise Violation(f"changed: {changed}")


def sweep(name: str, root: Path, child_of: Callable[[int], Callable[[], Any]]) -> dict[str, Any]:
    """Run a job in one child after another, each cut short later than the one before, until one is not; check after each."""
    workload = workloads(1)[name]
    pristine = prepare(workload, root / "pristine")
    failures: list[str] = []
    for count in range(MAX_CHILDREN):
        work = root / "work"
        # Hard links do, because no file is ever changed.
        shutil.copytree(pristine.root, work, copy_function=os.link)
        disk = RootedDisk(work)
        before = disk.contents()
        status = in_child(partial(workload.job, PRODUCT, disk), child_of(count))
        try:
            if status not in (0, -signal.SIGKILL, REFUSED):
                raise Violation(f"the child ended with {status}")
            if status == REFUSED and disk.contents() != before:
                raise Violation("the failed save left something")
            check(workload, disk, before, is_done=status == 0)
        except Violation as violation:
            failures.append(f"{name}, {count}: {violation}")
        shutil.rmtree(work)
        if status == 0:
            shutil.rmtree(pristine.root)
            return {"count": count, "failures": failures}
    return {"count": MAX_CHILDREN, "failures": [f"{name}: the job was never finished"]}


def in_child(job: Callable[[], Any], prepare_child: Callable[[], Any]) -> int:
    """Do a job in a forked child; return its exit status, or the negative number of the signal that ended it."""
    pid = os.fork()
    if pid == 0:
        status = WRONG
        try:
            prepare_child()
            job()
            status = 0
        except OSError as error:
            status = REFUSED if error.errno == EFBIG and error.filename else WRONG
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kill_at(number: int, *, calls: tuple[str, ...] = CALLS, is_halved: bool = False) -> Callable[[], None]:
    """Return what makes a process kill itself at the n-th of these calls, from 0; `is_halved`: in the middle of a write."""

    def patch() -> None:
        made = 0

        def counted(real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **options: Any) -> Any:
                nonlocal made
                if made == number:
                    if is_halved:
                        real(arguments[0], arguments[1][: len(arguments[1]) // 2])
                    os.kill(os.getpid(), signal.SIGKILL)
                made += 1
                return real(*arguments, **options)

            return call

        for name in calls:
            real = getattr(os, name)
            setattr(os, name, counted(real))
            if real in os.supports_dir_fd:
                os.supports_dir_fd.add(getattr(os, name))
        fcntl.flock = fcntl.flock if is_halved else counted(fcntl.flock)

    return patch


def limit_to(count: int) -> Callable[[], None]:
    """Return what lets the files of a process grow to so many times 32 bytes and no further."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (count * 32, count * 32))


def main(mode: str, root: Path, name: str) -> Any:
    """Do what the command line says."""
    if mode != "job":
        os.fsync = lambda number: None
    if mode == "kill":
        return sweep(name, root, kill_at)
    if mode == "kill-writes":
        return sweep(name, root, partial(kill_at, calls=("write",), is_halved=True))
    if mode == "limit":
        return sweep(name, root, limit_to)
    workload = workloads(1)[name]
    disk = RootedDisk(root)
    if mode == "prepare":
        prepare(workload, root)
    elif mode == "job":
        workload.job(PRODUCT, disk)
    elif mode == "check":
        check(workload, disk, {}, is_done=False)
        check_tidy(PRODUCT, disk, workload.target)
    return {}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])))
