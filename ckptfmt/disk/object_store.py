"""The waist between directories of a store and whoever keeps the objects: the few calls that object stores agree on.

An object appears whole or not at all, under a key, and is replaced as a whole. There is no renaming, no linking, no locking and no
appending. What makes commits safe is the condition of a `write`. Implementations make one attempt each; `patient_store` repeats what
may be repeated. Keys are "bucket/prefix/name".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Protocol


class Condition(Enum):
    """What must be there for a write to take place, beside a version."""

    ANYTHING = "anything"
    NOTHING = "nothing"


Expected = Condition | str
"""A condition, or the version that the object must still have."""


@dataclass(frozen=True, slots=True)
class ObjectStatus:
    """What a store knows of an object. `version` changes with its content."""

    size_bytes: int
    version: str
    modified_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """A range of an object, shorter than asked only at its end, and the object's status if the store told it along."""

    data: bytes
    status: ObjectStatus | None


@dataclass(frozen=True, slots=True)
class Entry:
    """One name below a prefix: an object, or a prefix of longer keys."""

    name: str
    size_bytes: int
    modified_at: datetime | None
    is_prefix: bool


@dataclass(frozen=True, slots=True)
class Listing:
    """Names below a prefix, in no order, and the time by the store's own clock."""

    entries: Sequence[Entry]
    now: datetime


class Upload(Protocol):
    """An object on its way in parts; invisible before `complete`. Parts may be written by several threads."""

    def write_part(self, number: int, data: bytes | bytearray) -> str:
        """Write the part of a number, counted from 1, and return what `complete` wants to know of it."""

    def complete(self, tokens: Sequence[str], expected: Expected) -> None:
        """Make the object appear. Raises as `ObjectStore.write`."""

    def abort(self) -> None:
        """Give the parts up."""


class ObjectStore(Protocol):
    """A store, or what looks like one. Every error is an OSError whose text holds no secret."""

    def status(self, key: str) -> ObjectStatus:
        """Ask for an object's status (FileNotFoundError)."""

    def read(self, key: str, offset_bytes: int, size_bytes: int) -> Piece:
        """Read a range of at least one byte (FileNotFoundError)."""

    def write(self, key: str, data: bytes | bytearray, expected: Expected) -> str:
        """Write an object whole and return its version.

        Raises:
            FileExistsError: there is one, and NOTHING was expected.
            ChangedMeanwhileError: there is none, or one of another version than was expected.
        """

    def begin_upload(self, key: str) -> Upload | None:
        """Begin to write an object in parts; None where the store cannot."""

    def list(self, prefix: str, *, is_deep: bool = False) -> Listing:
        """List what lies below "bucket/prefix", or everything down to the last object; empty where there is nothing."""

    def has_any(self, prefix: str) -> bool:
        """Tell whether there is any object below a prefix."""

    def remove(self, key: str) -> None:
        """Remove an object; nothing happens where there is none."""

    def copy(self, source: str, target: str) -> None:
        """Copy an object within the store (FileNotFoundError)."""

    def abort_uploads(self, prefix: str, *, before: datetime) -> None:
        """Give up what was begun below a prefix before a time and is not complete."""


class ChangedMeanwhileError(OSError):
    """An object is not the one that a conditional write expected."""
