"""Stores through fsspec: any protocol that it knows, and what opens them. Imported when a URL is used for the first time.

Of what fsspec offers only calls on whole objects are used: never its streams, which publish a part when they are closed after an
error, never its caches of listings, and never its transactions. A condition other than "nothing is there" is checked before the write;
that is atomic in the store of this process's memory, and nearly so elsewhere. Spec 5.2.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ckptfmt.disk.object_store import ChangedMeanwhileError, Condition, Entry, Expected, Listing, ObjectStatus, Piece, Upload

# For the store that lives in this process, whose writers are its threads.
_CONDITIONAL_WRITES = threading.Lock()
_TIME_MEMBERS = ("LastModified", "updated", "last_modified", "mtime", "created")


class FsspecStore:
    """A store of which nothing is known but fsspec's interface."""

    def __init__(self, file_system: Any) -> None:
        self._fs = file_system

    def status(self, key: str) -> ObjectStatus:
        """Ask for an object's status."""
        info = self._info(key)
        return ObjectStatus(int(info["size"]), f"{info['size']}-{_time_of(info)}", _time_of(info))

    def _info(self, key: str) -> Mapping[str, Any]:
        self._fs.invalidate_cache()
        info: Mapping[str, Any] = self._fs.info(self._path(key))
        if info.get("type") == "directory":
            raise FileNotFoundError(key)
        return info

    def _path(self, key: str) -> str:
        return str(self._fs._strip_protocol(key))

    def read(self, key: str, offset_bytes: int, size_bytes: int) -> Piece:
        """Read a range; with one that begins at the start comes the status, and if it is the whole object, its version."""
        if offset_bytes:
            return Piece(self._cat(key, offset_bytes, size_bytes), None)
        info = self._info(key)
        data = self._cat(key, 0, size_bytes) if info["size"] else b""
        version = _version_of(data) if len(data) == info["size"] else f"{info['size']}-{_time_of(info)}"
        return Piece(data, ObjectStatus(int(info["size"]), version, _time_of(info)))

    def _cat(self, key: str, offset_bytes: int, size_bytes: int) -> bytes:
        return bytes(self._fs.cat_file(self._path(key), start=offset_bytes, end=offset_bytes + size_bytes))

    def write(self, key: str, data: bytes | bytearray, expected: Expected) -> str:
        """Write an object whole."""
        with _CONDITIONAL_WRITES:
            if expected is Condition.NOTHING:
                self._fs.pipe_file(self._path(key), bytes(data), mode="create")
            else:
                if isinstance(expected, str) and self._version(key) != expected:
                    raise ChangedMeanwhileError(key)
                self._fs.pipe_file(self._path(key), bytes(data))
        return _version_of(data)

    def _version(self, key: str) -> str | None:
        try:
            return _version_of(bytes(self._fs.cat_file(self._path(key))))
        except FileNotFoundError:
            return None

    def begin_upload(self, key: str) -> Upload | None:
        """Return None: an object is written in one call, which fsspec cuts into parts where it can."""
        return None

    def list(self, prefix: str, *, is_deep: bool = False) -> Listing:
        """List what lies below a prefix."""
        self._fs.invalidate_cache()
        path = self._path(prefix)
        try:
            found = self._fs.find(path, detail=True).values() if is_deep else self._fs.ls(path, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            found = []
        below = path.rstrip("/") + "/"
        entries = [
            Entry(info["name"].rstrip("/")[len(below) :], int(info.get("size") or 0), _time_of(info), info.get("type") == "directory")
            for info in found
            # Of an object itself, ls lists that.
            if info["name"].startswith(below)
        ]
        return Listing(entries, datetime.now(UTC))

    def has_any(self, prefix: str) -> bool:
        """Tell whether there is any object below a prefix."""
        return bool(self.list(prefix).entries)

    def remove(self, key: str) -> None:
        """Remove an object."""
        try:
            self._fs.rm_file(self._path(key))
        except FileNotFoundError:
            return

    def copy(self, source: str, target: str) -> None:
        """Copy an object within the store."""
        self._info(source)
        self._fs.cp_file(self._path(source), self._path(target))

    def abort_uploads(self, prefix: str, *, before: datetime) -> None:
        """Do nothing: what fsspec begins it ends."""


def _version_of(data: bytes | bytearray) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _time_of(info: Mapping[str, Any]) -> datetime | None:
    """Return when an object was made; stores tell it in different ways, some not at all."""
    for name in _TIME_MEMBERS:
        value = info.get(name)
        if isinstance(value, str):
            try:
                value = datetime.fromisoformat(value)
            except ValueError:
                continue
        if isinstance(value, int | float):
            value = datetime.fromtimestamp(value, UTC)
        if isinstance(value, datetime):
            return value if value.tzinfo else value.replace(tzinfo=UTC)
    return None
