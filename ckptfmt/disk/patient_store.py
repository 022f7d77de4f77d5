"""A store that is asked again: what fails for the moment is repeated, with pauses that double, until patience ends.

A call whose answer was lost may have taken effect, also one that a library below has repeated. So a conditional write that is refused is
looked at: if what lies there is what was written, it was this write.
"""

from __future__ import annotations

import errno
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from ckptfmt.disk.object_store import ChangedMeanwhileError, Expected, Listing, ObjectStatus, ObjectStore, Piece, Upload
from ckptfmt.disk.store_errors import PASSED_ON, as_os_error, is_passing
from ckptfmt.errors import CheckpointError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Patience:
    """How often a call is made and how long the pauses are; none begins after `total_seconds`."""

    attempts: int = 8
    first_seconds: float = 0.2
    longest_seconds: float = 8.0
    total_seconds: float = 90.0


PATIENCE = Patience()


class PatientStore:
    """An object store whose calls are repeated. Every error names the URL of the object. Attribute: `single`, which makes one attempt."""

    def __init__(self, store: ObjectStore, protocol: str) -> None:
        self.single = store
        self._protocol = protocol

    def status(self, key: str) -> ObjectStatus:
        """Ask for an object's status."""
        return self._repeated(key, lambda: self.single.status(key))

    def read(self, key: str, offset_bytes: int, size_bytes: int) -> Piece:
        """Read a range; one that ends too early for the object's size counts as cut off on the way."""

        def read() -> Piece:
            piece = self.single.read(key, offset_bytes, size_bytes)
            if piece.status is not None:
                expected_bytes = max(0, min(size_bytes, piece.status.size_bytes - offset_bytes))
                if len(piece.data) != expected_bytes:
                    raise OSError(errno.EIO, f"an answer was cut off: expected {expected_bytes} bytes, found {len(piece.data)}")
            return piece

        return self._repeated(key, read)

    def write(self, key: str, data: bytes | bytearray, expected: Expected) -> str:
        """Write an object whole, under a condition. What is refused because the same bytes are there has taken effect."""

        def write() -> str:
            try:
                return self.single.write(key, data, expected)
            except (FileExistsError, ChangedMeanwhileError):
                # Also of a first try: aiohttp sends a PUT again by itself when a connection that it kept is reset.
                version = self._find_version_of(key, data)
                if version is None:
                    raise
                return version

        return self._repeated(key, write)

    def _find_version_of(self, key: str, data: bytes | bytearray) -> str | None:
        try:
            piece = self.read(key, 0, len(data) + 1)
        except FileNotFoundError:
            return None
        return piece.status.version if piece.status is not None and piece.data == data else None

    def begin_upload(self, key: str) -> Upload | None:
        """Begin to write an object in parts."""
        upload = self._repeated(key, lambda: self.single.begin_upload(key))
        return None if upload is None else _PatientUpload(self, upload, key)

    def list(self, prefix: str, *, is_deep: bool = False) -> Listing:
        """List what lies below a prefix."""
        return self._repeated(prefix, lambda: self.single.list(prefix, is_deep=is_deep))

    def has_any(self, prefix: str) -> bool:
        """Tell whether there is any object below a prefix."""
        return self._repeated(prefix, lambda: self.single.has_any(prefix))

    def remove(self, key: str) -> None:
        """Remove an object."""
        self._repeated(key, lambda: self.single.remove(key))

    def copy(self, source: str, target: str) -> None:
        """Copy an object within the store."""
        self._repeated(source, lambda: self.single.copy(source, target))

    def abort_uploads(self, prefix: str, *, before: datetime) -> None:
        """Give up what was begun before a time."""
        self._repeated(prefix, lambda: self.single.abort_uploads(prefix, before=before))

    def _repeated(self, key: str, call: Callable[[], T], find_own: Callable[[], T | None] | None = None) -> T:
        """Make a call until it succeeds or will not; `find_own` finds what an unclear call of this kind has done."""
        tries, began = 0, time.monotonic()
        while True:
            try:
                return call()
            except (*PASSED_ON, CheckpointError):
                # A guard that objects is not the store.
                raise
            except Exception as error:  # noqa: BLE001 - the libraries of stores raise what they like; it becomes an OSError
                is_refused = isinstance(error, FileExistsError | FileNotFoundError | ChangedMeanwhileError)
                if tries and is_refused and find_own is not None and (own := find_own()) is not None:
                    return own
                tries += 1
                is_over = tries >= PATIENCE.attempts or time.monotonic() - began > PATIENCE.total_seconds
                if is_over or not is_passing(error):
                    # Not chained: the original text may hold what must not be shown.
                    raise as_os_error(error, f"{self._protocol}://{key}", tries=tries) from None
            longest_seconds = min(PATIENCE.first_seconds * 2 ** (tries - 1), PATIENCE.longest_seconds)
            # Of random length, so that many clients do not come back all at once.
            time.sleep(longest_seconds * random.uniform(0.5, 1.0))


class _PatientUpload:
    """Parts that are sent again."""

    def __init__(self, store: PatientStore, upload: Upload, key: str) -> None:
        self._store = store
        self._upload = upload
        self._key = key
        self._sizes: dict[int, int] = {}

    def write_part(self, number: int, data: bytes | bytearray) -> str:
        """Write a part."""
        self._sizes[number] = len(data)
        return self._store._repeated(self._key, lambda: self._upload.write_part(number, data))

    def complete(self, tokens: Sequence[str], expected: Expected) -> None:
        """Make the object appear."""

        def find_own() -> bool | None:
            try:
                return self._store.status(self._key).size_bytes == sum(self._sizes.values()) or None
            except FileNotFoundError:
                return None

        def complete() -> bool:
            self._upload.complete(tokens, expected)
            return True

        self._store._repeated(self._key, complete, find_own)

    def abort(self) -> None:
        """Give the parts up."""
        self._store._repeated(self._key, self._upload.abort)
