"""The file systems of this machine, through descriptors.

A directory is opened once; every name in it is resolved relative to that descriptor and never through a link,
so that nothing that happens to the path in the meantime can redirect a write. New files are created
exclusively, read-only for everybody else, and the umask applies. Which devices refuse direct I/O is learned
by trying and remembered by the disk. Needs a system with directory descriptors (not Windows).
"""

from __future__ import annotations

import errno
import os
import stat

from ckptfmt.disk import lock
from ckptfmt.disk.descriptor import Descriptor
from ckptfmt.disk.local_files import LocalReadableFile, LocalWritableFile
from ckptfmt.disk.paths import join, naming
from ckptfmt.disk.protocol import Directory, LockState, NotARegularFileError
from ckptfmt.disk.refusals import DIRECTORY_SYNC_REFUSALS, LINK_REFUSALS
from ckptfmt.disk.system_calls import reserve, start_direct, sync_to_media
from ckptfmt.disk.urls import is_url

# Below this the page cache absorbs a file faster than the device takes it.
MIN_DIRECT_BYTES = 4 * 2**20

_NEW_FILE_MODE = 0o444

_CLOEXEC = getattr(os, "O_CLOEXEC", 0)
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_OPEN_DIRECTORY = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | _CLOEXEC
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | _NOFOLLOW | _CLOEXEC
# Without O_NONBLOCK, opening a FIFO would wait for a writer.
_OPEN = os.O_RDONLY | _NOFOLLOW | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | _CLOEXEC

# What open reports for a link (Linux, macOS; FreeBSD) and for a socket.
_IRREGULAR = frozenset({errno.ELOOP, errno.EMLINK, errno.ENXIO})


class LocalDisk:
    """The directories of this machine; paths are those of the system."""

    def __init__(self) -> None:
        self._devices_without_direct: set[int] = set()

    def open_directory(self, path: str) -> LocalDirectory:
        """Open an existing directory."""
        _refuse_url(path)
        if os.open not in os.supports_dir_fd:
            raise OSError(errno.ENOTSUP, "this system has no directory descriptors", path)
        return LocalDirectory(Descriptor(os.open(path, _OPEN_DIRECTORY), path), self._devices_without_direct)

    def make_directory(self, path: str) -> None:
        """Create one directory; not durable by itself."""
        _refuse_url(path)
        os.mkdir(path)

    def remove_directory(self, path: str) -> None:
        """Remove one empty directory."""
        os.rmdir(path)

    def real_path(self, path: str) -> str:
        """Return the absolute path with every link followed."""
        with naming(path):
            return os.path.realpath(path, strict=True)


def _refuse_url(path: str) -> None:
    if is_url(path):
        raise OSError(errno.ENOTSUP, "this is a URL, and only a directory of this machine will do here", path)


class LocalDirectory:
    """An open directory of this machine."""

    def __init__(self, descriptor: Descriptor, devices_without_direct: set[int]) -> None:
        self._descriptor = descriptor
        self._devices_without_direct = devices_without_direct
        self._lock: lock.DirectoryLock | None = None

    @property
    def path(self) -> str:
        """The path under which it was opened."""
        return self._descriptor.path

    def names(self) -> list[str]:
        """Names of all entries, sorted."""
        with naming(self.path):
            # A description of its own, because listings through a shared one share their position.
            number = os.open(".", _OPEN_DIRECTORY, dir_fd=self._descriptor.number)
            try:
                return sorted(os.listdir(number))
            finally:
                os.close(number)

    def create(self, name: str, *, size_bytes: int) -> LocalWritableFile:
        """Create a file that must not exist yet, with its space reserved if it is large."""
        path = join(self.path, name)
        with naming(path):
            descriptor = Descriptor(os.open(name, _CREATE, _NEW_FILE_MODE, dir_fd=self._descriptor.number), path)
            try:
                return self._prepare(descriptor, size_bytes)
            except BaseException:
                descriptor.close()
                os.unlink(name, dir_fd=self._descriptor.number)
                raise

    def _prepare(self, descriptor: Descriptor, size_bytes: int) -> LocalWritableFile:
        is_large = size_bytes >= MIN_DIRECT_BYTES
        reserved_bytes = size_bytes if is_large and reserve(descriptor.number, size_bytes) else 0
        device = os.fstat(descriptor.number).st_dev if is_large else 0

        def remember_refusal() -> None:
            self._devices_without_direct.add(device)

        is_direct = False
        if is_large and device not in self._devices_without_direct:
            is_direct = start_direct(descriptor.number)
            if not is_direct:
                remember_refusal()
        return LocalWritableFile(descriptor, reserved_bytes=reserved_bytes, is_direct=is_direct, on_direct_refused=remember_refusal)

    def open(self, name: str) -> LocalReadableFile:
        """Open a regular file; never follows links and never waits."""
        path = join(self.path, name)
        try:
            with naming(path):
                descriptor = Descriptor(os.open(name, _OPEN, dir_fd=self._descriptor.number), path)
        except OSError as error:
            if error.errno in _IRREGULAR:
                raise NotARegularFileError(error.errno, "not a regular file", path) from error
            raise
        try:
            with naming(path):
                status = os.fstat(descriptor.number)
            if not stat.S_ISREG(status.st_mode):
                code = errno.EISDIR if stat.S_ISDIR(status.st_mode) else errno.EINVAL
                raise NotARegularFileError(code, "not a regular file", path)
        except BaseException:
            descriptor.close()
            raise
        is_refused = status.st_dev in self._devices_without_direct
        on_refused = None if is_refused else lambda: self._devices_without_direct.add(status.st_dev)
        return LocalReadableFile(descriptor, status.st_size, status.st_nlink, on_direct_refused=on_refused)

    def rename(self, source: str, target: str) -> None:
        """Rename within this directory, replacing `target` atomically."""
        with naming(join(self.path, source), join(self.path, target)):
            os.replace(source, target, src_dir_fd=self._descriptor.number, dst_dir_fd=self._descriptor.number)

    def link_from(self, other: Directory, source: str, target: str) -> bool:
        """Give a file of `other` the new name `target` here, by a hard link."""
        target_path = join(self.path, target)
        source_path = join(other.path, source)
        if not isinstance(other, LocalDirectory):
            return False
        try:
            with naming(source_path, target_path):
                os.link(
                    source,
                    target,
                    src_dir_fd=other._descriptor.number,
                    dst_dir_fd=self._descriptor.number,
                    follow_symlinks=False,
                )
        except OSError as error:
            if error.errno in LINK_REFUSALS:
                return False
            raise
        return True

    def unlink(self, name: str) -> None:
        """Remove a file's name."""
        with naming(join(self.path, name)):
            os.unlink(name, dir_fd=self._descriptor.number)

    def sync_file(self, name: str) -> None:
        """Make the bytes of a regular file that is here durable."""
        file = self.open(name)
        try:
            file.sync()
        finally:
            file.close()

    def sync(self) -> None:
        """Make the names of this directory durable, where its file system can be asked to."""
        try:
            with naming(self.path):
                sync_to_media(self._descriptor.number)
        except OSError as error:
            if error.errno not in DIRECTORY_SYNC_REFUSALS:
                raise

    def free_bytes(self) -> int:
        """Space that an ordinary user can still write here."""
        with naming(self.path):
            status = os.statvfs(self._descriptor.number)
        return status.f_bavail * status.f_frsize

    def try_lock(self) -> LockState:
        """Try to become the one writer of this directory."""
        if self._lock is not None and self._lock.is_held:
            return LockState.HELD
        with naming(self.path):
            state, self._lock = lock.try_lock(self._descriptor.number, self.path)
        return state

    def close(self) -> None:
        """Close and unlock."""
        if self._lock is not None:
            self._lock.close()
        self._descriptor.close()
