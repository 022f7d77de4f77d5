"""A mounted drive: everything below one path of another disk has no hard links, no locks and no rename onto a name that exists."""

from __future__ import annotations

import errno
from typing import Any

from ckptfmt.disk.protocol import Disk, LockState


class Drive:
    """A disk of which one part is such a drive, that is away when it is told to be. `created` lists what was created there."""

    def __init__(self, disk: Disk, path: str) -> None:
        self._disk = disk
        self._path = path
        self.is_away = False
        self.errno = errno.EIO
        self.created: list[str] = []

    def check(self, path: str) -> bool:
        """Tell whether a path is on the drive; raise if that is away."""
        if not path.startswith(self._path):
            return False
        if self.is_away:
            raise OSError(self.errno, "the drive is away", path)
        return True

    def open_directory(self, path: str) -> Any:
        directory = self._disk.open_directory(path)
        try:
            return _DriveDirectory(self, directory) if self.check(path) else directory
        except OSError:
            directory.close()
            raise

    def make_directory(self, path: str) -> None:
        self.check(path)
        self._disk.make_directory(path)

    def remove_directory(self, path: str) -> None:
        self.check(path)
        self._disk.remove_directory(path)

    def real_path(self, path: str) -> str:
        return self._disk.real_path(path)


class _DriveDirectory:
    def __init__(self, drive: Drive, inner: Any) -> None:
        self._drive = drive
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        self._drive.check(self._inner.path)
        return getattr(self._inner, name)

    def create(self, name: str, *, size_bytes: int) -> Any:
        self._drive.check(self._inner.path)
        self._drive.created.append(f"{self._inner.path}/{name}")
        return self._inner.create(name, size_bytes=size_bytes)

    def rename(self, source: str, target: str) -> None:
        if target in self._inner.names():
            raise FileExistsError(errno.EEXIST, "this drive does not replace", target)
        self._inner.rename(source, target)

    def link_from(self, other: Any, source: str, target: str) -> bool:
        return False

    def try_lock(self) -> LockState:
        return LockState.UNSUPPORTED

    def close(self) -> None:
        self._inner.close()
