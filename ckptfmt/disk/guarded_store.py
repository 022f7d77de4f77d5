"""A store whose changes are asked about first: each attempt at one, also a repeated one, is made only if the guard does not object.

What cannot be seen by anybody, such as parts of an upload, needs no permission.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from ckptfmt.disk.object_store import Expected, Listing, ObjectStatus, ObjectStore, Piece, Upload

Guard = Callable[[], None]
"""Raises whatever says why nothing may be changed now."""


class GuardedStore:
    """An object store in front of another."""

    def __init__(self, store: ObjectStore, guard: Guard) -> None:
        self._store = store
        self._guard = guard

    def status(self, key: str) -> ObjectStatus:
        """Ask for an object's status."""
        return self._store.status(key)

    def read(self, key: str, offset_bytes: int, size_bytes: int) -> Piece:
        """Read a range."""
        return self._store.read(key, offset_bytes, size_bytes)

    def write(self, key: str, data: bytes | bytearray, expected: Expected) -> str:
        """Write an object whole, if it is allowed."""
        self._guard()
        return self._store.write(key, data, expected)

    def begin_upload(self, key: str) -> Upload | None:
        """Begin to write an object in parts."""
        upload = self._store.begin_upload(key)
        return None if upload is None else _GuardedUpload(upload, self._guard)

    def list(self, prefix: str, *, is_deep: bool = False) -> Listing:
        """List what lies below a prefix."""
        return self._store.list(prefix, is_deep=is_deep)

    def has_any(self, prefix: str) -> bool:
        """Tell whether there is any object below a prefix."""
        return self._store.has_any(prefix)

    def remove(self, key: str) -> None:
        """Remove an object, if it is allowed."""
        self._guard()
        self._store.remove(key)

    def copy(self, source: str, target: str) -> None:
        """Copy an object within the store, if it is allowed."""
        self._guard()
        self._store.copy(source, target)

    def abort_uploads(self, prefix: str, *, before: datetime) -> None:
        """Give up what was begun before a time."""
        self._store.abort_uploads(prefix, before=before)


class _GuardedUpload:
    """An upload whose end is asked about."""

    def __init__(self, upload: Upload, guard: Guard) -> None:
        self._upload = upload
        self._guard = guard

    def write_part(self, number: int, data: bytes | bytearray) -> str:
        """Write a part."""
        return self._upload.write_part(number, data)

    def complete(self, tokens: Sequence[str], expected: Expected) -> None:
        """Make the object appear, if it is allowed."""
        self._guard()
        self._upload.complete(tokens, expected)

    def abort(self) -> None:
        """Give the parts up."""
        self._upload.abort()
