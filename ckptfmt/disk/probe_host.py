"""What only the system's own calls show of a file system of this machine: what it is, and what the local disk would fall back from.

The trials of `probe` come first; these go on in the same scratch directory. Everything here is about Linux where it says so, and an
answer that a system does not give is UNKNOWN.
"""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from ckptfmt.disk.local import LocalDisk
from ckptfmt.disk.probe import Answer, Trial, attempt, probe, reason_of
from ckptfmt.disk.protocol import Directory, LockState
from ckptfmt.disk.refusals import DIRECTORY_SYNC_REFUSALS
from ckptfmt.disk.system_calls import start_direct, sync_to_media

if sys.platform != "win32":
    import fcntl

MOUNT_LIST = "/proc/self/mountinfo"
NETWORK_TYPES = frozenset("nfs nfs4 cifs smb3 smbfs 9p afs ceph lustre glusterfs beegfs gpfs orangefs ncpfs virtiofs".split())
MEMORY_TYPES = frozenset({"tmpfs", "ramfs"})
_UNSAFE_OPTIONS = frozenset({"nobarrier", "barrier=0"})
# From linux/fs.h: make one file a clone of another, sharing its blocks.
_FICLONE = 0x40049409
_CHILD_SECONDS = 20
_TRY_LOCK = "import fcntl, os, sys; fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)"


@dataclass(frozen=True, slots=True)
class Mount:
    """The file system that a directory lies on, as the system lists it."""

    point: str
    kind: str
    options: frozenset[str]


def probe_host(path: str, mount_list: str = MOUNT_LIST) -> list[Trial]:
    """Try out a directory of this machine.

    Raises:
        OSError: there is no such directory.
    """

    def more(directory: Directory) -> Iterator[Trial]:
        yield from _try_host(directory)

    return [*describe_mount(find_mount(path, mount_list)), *probe(LocalDisk(), path, more)]


def find_mount(path: str, mount_list: str = MOUNT_LIST) -> Mount | None:
    """Return the mount of a directory; None where the system has no such list."""
    real = os.path.realpath(path)
    found = None
    try:
        with open(mount_list, encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                mount = _parse_mount(line)
                # Of two mounts on one place, the later one is seen.
                if mount and _is_below(real, mount.point) and (found is None or len(mount.point) >= len(found.point)):
                    found = mount
    except OSError:
        return None
    return found


def _parse_mount(line: str) -> Mount | None:
    """Read one line of mountinfo. https://www.kernel.org/doc/html/latest/filesystems/proc.html"""
    head, _, tail = line.partition(" - ")
    fields, rest = head.split(), tail.split()
    if len(fields) < 6 or len(rest) < 2:
        return None
    point = fields[4].replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
    return Mount(point, rest[0], frozenset([*fields[5].split(","), *(rest[2].split(",") if len(rest) > 2 else ())]))


def _is_below(path: str, point: str) -> bool:
    return path == point or path.startswith(point.rstrip("/") + "/")


def describe_mount(mount: Mount | None) -> Iterator[Trial]:
    """Judge a file system by its type and by how it is mounted."""
    if mount is None:
        yield Trial("file_system", Answer.UNKNOWN, "this system does not tell")
        return
    if mount.kind in MEMORY_TYPES:
        answer, what = Answer.FAILED, "is memory"
    elif mount.kind in NETWORK_TYPES or mount.kind.startswith("fuse"):
        answer, what = Answer.DIFFERENT, "is served by another program" if mount.kind.startswith("fuse") else "is on a network"
    elif mount.kind == "overlay":
        answer, what = Answer.DIFFERENT, "is a layer of a container"
    else:
        answer, what = Answer.WORKS, ""
    yield Trial("file_system", answer, f"{mount.kind} {what}".rstrip(), mount.kind)
    unsafe = sorted(_UNSAFE_OPTIONS & mount.options)
    if unsafe:
        yield Trial("write_barriers", Answer.FAILED, f"mounted with {', '.join(unsafe)}")


def _try_host(directory: Directory) -> Iterator[Trial]:
    number = os.open(directory.path, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    try:
        yield attempt("directory_sync", lambda: _try_directory_sync(number))
        yield attempt("lock", lambda: _try_lock_elsewhere(directory))
        yield _try_direct(number)
        yield _try_clone(number)
        yield attempt("free_inodes", lambda: _try_free_inodes(number))
    finally:
        os.close(number)


def _try_directory_sync(number: int) -> Trial | None:
    """Ask for it by name: the local disk passes over a refusal, because it could do nothing about it."""
    try:
        sync_to_media(number)
    except OSError as error:
        if error.errno in DIRECTORY_SYNC_REFUSALS:
            return Trial("directory_sync", Answer.FAILED, f"refused: {reason_of(error)}")
        raise
    return None


def _try_lock_elsewhere(directory: Directory) -> Trial | None:
    name = "lock"
    if sys.platform == "win32" or directory.try_lock() is not LockState.HELD:
        return Trial(name, Answer.DIFFERENT, "there are no locks")
    command = [sys.executable, "-I", "-S", "-c", _TRY_LOCK, directory.path]
    try:
        child = subprocess.run(command, capture_output=True, timeout=_CHILD_SECONDS, check=False)
    except (OSError, subprocess.SubprocessError):
        return Trial(name, Answer.UNKNOWN, "no second process could be started")
    if child.returncode == 0:
        return Trial(name, Answer.DIFFERENT, "a second process got the lock as well")
    if b"BlockingIOError" not in child.stderr:
        return Trial(name, Answer.UNKNOWN, "the second process failed for another reason")
    return None


def _try_direct(directory_number: int) -> Trial:
    size_bytes = 1 << 16
    number = os.open("direct", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=directory_number)
    try:
        if not start_direct(number):
            return Trial("direct_io", Answer.DIFFERENT, "refused")
        # Anonymous memory begins at a page, as direct I/O wants it.
        with mmap.mmap(-1, size_bytes) as memory:
            written_bytes = os.write(number, memory)
        return Trial("direct_io", Answer.WORKS if written_bytes == size_bytes else Answer.DIFFERENT)
    except OSError as error:
        return Trial("direct_io", Answer.DIFFERENT, reason_of(error))
    finally:
        os.close(number)


def _try_clone(directory_number: int) -> Trial:
    if sys.platform != "linux":
        return Trial("reflink", Answer.UNKNOWN, "not tried on this system")
    source = os.open("written", os.O_RDONLY, dir_fd=directory_number)
    try:
        target = os.open("cloned", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=directory_number)
        try:
            fcntl.ioctl(target, _FICLONE, source)
        finally:
            os.close(target)
    except OSError as error:
        return Trial("reflink", Answer.DIFFERENT, reason_of(error))
    finally:
        os.close(source)
    return Trial("reflink", Answer.WORKS)


def _try_free_inodes(number: int) -> Trial:
    status = os.statvfs(number)
    if not status.f_files:
        # It makes them as they are needed.
        return Trial("free_inodes", Answer.WORKS, "without a limit")
    return Trial("free_inodes", Answer.WORKS if status.f_favail else Answer.FAILED, "", status.f_favail)
