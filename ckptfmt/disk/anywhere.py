"""The disk that programs use: paths of this machine and URLs of stores, each where it belongs."""

from __future__ import annotations

from ckptfmt.disk.guarded_store import Guard
from ckptfmt.disk.local import LocalDisk
from ckptfmt.disk.protocol import Directory, Disk
from ckptfmt.disk.remote import RemoteDisk
from ckptfmt.disk.urls import is_url


class AnyDisk:
    """Hands every path on to the disk that knows it."""

    def __init__(self, remote: RemoteDisk | None = None) -> None:
        self._local = LocalDisk()
        self._remote = remote or RemoteDisk()

    def guarded(self, guard: Guard) -> AnyDisk:
        """Return a disk that asks before it changes an object of a store."""
        return AnyDisk(self._remote.guarded(guard))

    def _disk_of(self, path: str) -> Disk:
        return self._remote if is_url(path) else self._local

    def open_directory(self, path: str) -> Directory:
        """Open an existing directory."""
        return self._disk_of(path).open_directory(path)

    def make_directory(self, path: str) -> None:
        """Create one directory."""
        self._disk_of(path).make_directory(path)

    def remove_directory(self, path: str) -> None:
        """Remove one empty directory."""
        self._disk_of(path).remove_directory(path)

    def real_path(self, path: str) -> str:
        """Return the absolute path with every link followed, or the URL."""
        return self._disk_of(path).real_path(path)
