"""Object stores as a disk: a directory is a prefix, and exists where an object lies below it, or where this process has made it.

What a file system has and a store has not is left out or takes its place: renaming copies, in an order that leaves one whole at any
moment; there are no locks; nothing needs a sync but a new file, which appears by it. A commit that is safe here asks for
`write_if`. Spec 5.2.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from typing import Any

from ckptfmt.disk.guarded_store import Guard, GuardedStore
from ckptfmt.disk.object_store import Condition, Expected, Listing, ObjectStore, Piece
from ckptfmt.disk.paths import check_name, join
from ckptfmt.disk.patient_store import PatientStore
from ckptfmt.disk.protocol import Directory, LockState
from ckptfmt.disk.remote_files import START_BYTES, RemoteReadableFile, RemoteWritableFile
from ckptfmt.disk.store_errors import PASSED_ON, as_os_error
from ckptfmt.disk.urls import split_url

# Copied last and removed first, because what lies beside it is nothing without it.
_LAST_NAMES = ("manifest.json", "run.json")
_NO_LIMIT_BYTES = 2**62
_S3_PROTOCOLS = ("s3", "s3a")


class RemoteDisk:
    """Every store that fsspec knows, by URL. A store is opened at the first use of its protocol, by each process for itself."""

    def __init__(self, open_store: Callable[[str], ObjectStore] | None = None) -> None:
        self._open_store = open_store or _open_store
        self._stores: dict[tuple[int, str], PatientStore] = {}
        self._made: set[str] = set()
        self._lock = threading.Lock()

    def guarded(self, guard: Guard) -> RemoteDisk:
        """Return a disk of the same stores that asks before it changes an object."""
        disk = RemoteDisk(lambda protocol: GuardedStore(self._store(protocol).single, guard))
        disk._made = self._made
        return disk

    def open_directory(self, path: str) -> RemoteDirectory:
        """Open a prefix below which there is an object, or that was made here."""
        directory = self._directory(path)
        if directory.key in self._made:
            return directory
        try:
            is_there = directory.store.has_any(directory.key)
        except PermissionError:
            # Who may read objects need not be allowed to list them.
            is_there = True
        if not is_there:
            raise FileNotFoundError(errno.ENOENT, "no object lies below this prefix", path)
        return directory

    def _directory(self, path: str) -> RemoteDirectory:
        protocol, key = split_url(path)
        return RemoteDirectory(self._store(protocol), key, path.rstrip("/"))

    def make_directory(self, path: str) -> None:
        """Take note of a prefix. Nothing is made in the store."""
        _, key = split_url(path)
        if key in self._made:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        self._made.add(key)

    def remove_directory(self, path: str) -> None:
        """Forget a prefix below which nothing is left."""
        directory = self._directory(path)
        if directory.store.has_any(directory.key):
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), path)
        self._made.discard(directory.key)

    def real_path(self, path: str) -> str:
        """Return the URL: there are no links."""
        self.open_directory(path).close()
        return path

    def _store(self, protocol: str) -> PatientStore:
        identity = (os.getpid(), protocol)
        with self._lock:
            if identity not in self._stores:
                try:
                    store = self._open_store(protocol)
                except (*PASSED_ON, ValueError):
                    raise
                except Exception as error:  # noqa: BLE001 - a profile that is not there, as whatever the library raises
                    raise as_os_error(error, f"{protocol}://", tries=1) from None
                self._stores[identity] = PatientStore(store, protocol)
            return self._stores[identity]


class RemoteDirectory:
    """A prefix of a store."""

    def __init__(self, store: ObjectStore, key: str, path: str) -> None:
        self.store = store
        self.key = key
        self._path = path
        self._seen: dict[str, int] = {}

    @property
    def path(self) -> str:
        """The URL under which it was opened."""
        return self._path

    def _key_of(self, name: str) -> str:
        return f"{self.key}/{check_name(name)}"

    def names(self) -> list[str]:
        """Names of all entries, sorted."""
        return sorted({entry.name for entry in self.listing().entries})

    def listing(self) -> Listing:
        """All entries with their sizes and times, and the time by the store's clock."""
        return self.store.list(self.key)

    def create(self, name: str, *, size_bytes: int, can_replace: bool = False) -> RemoteWritableFile:
        """Begin an object, which appears when it is synced; only then it is noticed that the name is taken."""
        expected = Condition.ANYTHING if can_replace else Condition.NOTHING
        return RemoteWritableFile(self.store, self._key_of(name), join(self._path, name), expected, size_bytes=size_bytes)

    def open(self, name: str) -> RemoteReadableFile:
        """Open an object."""
        piece = self.read_start(name, START_BYTES)
        return RemoteReadableFile(self.store, self._key_of(name), join(self._path, name), status=piece.status, start=piece.data)

    def open_unread(self, name: str) -> RemoteReadableFile:
        """Open an object of which only the status is asked for now."""
        status = self.store.status(self._key_of(name))
        return RemoteReadableFile(self.store, self._key_of(name), join(self._path, name), status=status)

    def open_declared(self, name: str, size_bytes: int) -> RemoteReadableFile:
        """Open an object that should be there in this size, without asking; its reads find out (FileNotFoundError, SizeDiffersError)."""
        return RemoteReadableFile(self.store, self._key_of(name), join(self._path, name), status=None, declared_bytes=size_bytes)

    def read_start(self, name: str, size_bytes: int) -> Piece:
        """Read the first bytes of an object, and its status, in one request."""
        piece = self.store.read(self._key_of(name), 0, size_bytes)
        self._seen[name] = len(piece.data) if piece.status is None else piece.status.size_bytes
        return piece

    def last_seen_bytes(self, name: str) -> int:
        """Return the size of an object when its start was read, 0 if it never was."""
        return self._seen.get(name, 0)

    def write_if(self, name: str, data: bytes, expected: Expected) -> str:
        """Write a small object whole, under a condition, and return its version.

        Raises:
            FileExistsError, ChangedMeanwhileError: the condition was not met. After another error nobody knows.
        """
        return self.store.write(self._key_of(name), data, expected)

    def rename(self, source: str, target: str) -> None:
        """Copy an object, or everything below a prefix, and remove the old one. Not atomic: for a while there are two."""
        source_key, target_key = self._key_of(source), self._key_of(target)
        below = sorted((entry.name for entry in self.store.list(source_key, is_deep=True).entries), key=_is_last)
        for name in below or [""]:
            self.store.copy(*(f"{key}/{name}" if name else key for key in (source_key, target_key)))
        for name in reversed(below or [""]):
            self.store.remove(f"{source_key}/{name}" if name else source_key)

    def link_from(self, other: Directory, source: str, target: str) -> bool:
        """Copy an object within the store, without moving its bytes here; False where `other` is of another store."""
        if not isinstance(other, RemoteDirectory) or other.store is not self.store:
            return False
        self.store.copy(other._key_of(source), self._key_of(target))
        return True

    def unlink(self, name: str) -> None:
        """Remove an object; nothing happens where there is none."""
        self.store.remove(self._key_of(name))

    def sync_file(self, name: str) -> None:
        """Check that an object is there; one that is there is durable."""
        self.store.status(self._key_of(name))

    def sync(self) -> None:
        """Do nothing: what a store has confirmed is durable."""

    def free_bytes(self) -> int:
        """Return a number that no save reaches."""
        return _NO_LIMIT_BYTES

    def try_lock(self) -> LockState:
        """Say that there are no locks."""
        return LockState.UNSUPPORTED

    def close(self) -> None:
        """Do nothing: there is nothing to give back."""


def _is_last(name: str) -> bool:
    return name.rpartition("/")[2] in _LAST_NAMES


def _open_store(protocol: str) -> ObjectStore:
    try:
        import fsspec

        options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
        if protocol in _S3_PROTOCOLS:
            from ckptfmt.disk.s3_store import CLIENT_OPTIONS, S3Store

            configured = fsspec.config.conf.get(protocol, {}).get("config_kwargs", {})
            return S3Store(fsspec.filesystem(protocol, config_kwargs=CLIENT_OPTIONS | configured, **options))
        from ckptfmt.disk.fsspec_store import FsspecStore

        return FsspecStore(fsspec.filesystem(protocol, **options))
    except ImportError as error:
        extra = "ckptfmt[s3]" if protocol in _S3_PROTOCOLS else "fsspec"
        raise ImportError(
            f"{protocol}:// cannot be opened: {error}\npip install '{extra}', and what fsspec needs for {protocol}"
        ) from error
