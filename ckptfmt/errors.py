"""Every exception of ckptfmt, by who must act on it.

    CheckpointError
    ├── FormatError (ValueError)            the bytes are not what the specification says
    │   ├── CorruptError                    damaged or hostile: use another copy
    │   ├── UnsupportedVersionError         written by something newer: update ckptfmt
    │   └── LimitError                      larger or deeper than the format allows
    ├── IncompleteError                     no manifest: a save is in progress or was interrupted
    ├── FingerprintMismatchError            a sound checkpoint of another experiment
    ├── UnsupportedTypeError (TypeError)    a value that cannot be stored, or not be rebuilt here
    ├── CheckpointExistsError (FileExistsError)
    ├── CheckpointNotFoundError (FileNotFoundError)
    ├── NameNotFoundError (KeyError)        a tensor or section that this checkpoint does not hold
    ├── RunLockedError                      another writer is at work
    ├── NotEnoughSpaceError (OSError, errno ENOSPC)
    ├── DurabilityUnknownError (OSError)    committed and visible, but the disk did not confirm it
    └── StoreUnavailableError (OSError)     the store of a run did not take it; it is on this machine

Any other OSError of the file system passes through unwrapped. A message says
*where: what: expected, found [rule]* and then what to do; the attributes carry the same facts.
All of them survive pickling, so that worker processes can report them.
"""

from __future__ import annotations

import errno
from typing import Any


class CheckpointError(Exception):
    """Base of everything that ckptfmt raises on its own account."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else type(self).__name__

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, dict(self.__dict__))


def _rebuild(cls: type[CheckpointError], args: tuple[Any, ...], facts: dict[str, Any]) -> CheckpointError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(facts)
    if isinstance(error, NotEnoughSpaceError):
        error.errno = errno.ENOSPC
    return error


class FormatError(CheckpointError, ValueError):
    """Bytes that break a rule of the specification.

    Attributes: `rule` (code such as "E031"), `path`, `tensor`, `expected`, `found`.
    """

    def __init__(
        self,
        message: str,
        *,
        rule: str | None = None,
        path: str | None = None,
        tensor: str | None = None,
        expected: Any = None,
        found: Any = None,
    ) -> None:
        super().__init__(message)
        self.rule = rule
        self.path = path
        self.tensor = tensor
        self.expected = expected
        self.found = found


class CorruptError(FormatError):
    """Damaged or hostile bytes."""


class UnsupportedVersionError(FormatError):
    """A major version or a required feature that this library does not know."""


class LimitError(FormatError):
    """Something larger, longer or deeper than the format allows."""


class IncompleteError(CheckpointError):
    """A directory without a manifest. Attribute: `path`."""

    def __init__(self, message: str, *, path: str | None = None) -> None:
        super().__init__(message)
        self.path = path


class FingerprintMismatchError(CheckpointError):
    """A sound checkpoint of another experiment. Attribute: `differences`, records with field, expected, found, severity."""

    def __init__(self, message: str, *, differences: tuple[Any, ...] = ()) -> None:
        super().__init__(message)
        self.differences = differences


class UnsupportedTypeError(CheckpointError, TypeError):
    """A value that cannot be stored, or that cannot be rebuilt here. Attribute: `path`, its place in the state."""

    def __init__(self, message: str, *, path: str = "") -> None:
        super().__init__(message)
        self.path = path


class CheckpointExistsError(CheckpointError, FileExistsError):
    """Something is stored there already. Attribute: `path`."""

    def __init__(self, message: str, *, path: str | None = None) -> None:
        super().__init__(message)
        self.path = path


class CheckpointNotFoundError(CheckpointError, FileNotFoundError):
    """Nothing is stored there. Attribute: `path`."""

    def __init__(self, message: str, *, path: str | None = None) -> None:
        super().__init__(message)
        self.path = path


class NameNotFoundError(CheckpointError, KeyError):
    """A name that this checkpoint does not hold. Attributes: `name`, `path`."""

    def __init__(self, message: str, *, name: str = "", path: str | None = None) -> None:
        super().__init__(message)
        self.name = name
        self.path = path


class RunLockedError(CheckpointError):
    """Another writer is at work. Attributes: `path`, `host`, `pid`, `since_utc` where known."""

    def __init__(
        self,
        message: str,
        *,
        path: str | None = None,
        host: str | None = None,
        pid: int | None = None,
        since_utc: str | None = None,
    ) -> None:
        super().__init__(message)
        self.path = path
        self.host = host
        self.pid = pid
        self.since_utc = since_utc


class NotEnoughSpaceError(CheckpointError, OSError):
    """The disk is too full. Attributes: `path`, `needed_bytes`, `free_bytes`; errno is ENOSPC."""

    def __init__(self, message: str, *, path: str | None = None, needed_bytes: int = 0, free_bytes: int = 0) -> None:
        super().__init__(message)
        self.errno = errno.ENOSPC
        self.path = path
        self.needed_bytes = needed_bytes
        self.free_bytes = free_bytes


class DurabilityUnknownError(CheckpointError, OSError):
    """The new checkpoint is visible, but the disk did not confirm that it survives a power cut. Attribute: `path`."""

    def __init__(self, message: str, *, path: str | None = None) -> None:
        super().__init__(message)
        self.path = path


class StoreUnavailableError(CheckpointError, OSError):
    """The store in which a run lives did not answer. Attributes: `path`, the URL; `local_path`, where what was saved is meanwhile."""

    def __init__(self, message: str, *, path: str | None = None, local_path: str | None = None) -> None:
        super().__init__(message)
        self.path = path
        self.local_path = local_path
