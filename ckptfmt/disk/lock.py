"""The one writer of a directory, by flock on the directory itself: no lock file that anybody could leave or delete.

The lock belongs to an open file description of its own. It ends when that is closed, by whatever ends the
process. A forked child inherits the description and would keep the lock of a killed parent alive, so children
close theirs first. Between hosts of a network file system the lock may not exclude anybody: it is politeness,
safety comes from unique names, exclusive creation and digests.
"""

from __future__ import annotations

import os
import sys
from weakref import WeakSet

from ckptfmt.disk.descriptor import Descriptor
from ckptfmt.disk.protocol import LockState
from ckptfmt.disk.refusals import LOCK_REFUSALS

if sys.platform != "win32":
    import fcntl


class DirectoryLock:
    """A lock that is held from the making of the object until `close`."""

    def __init__(self, descriptor: Descriptor) -> None:
        self._descriptor = descriptor
        _held.add(self)

    @property
    def is_held(self) -> bool:
        """Whether this process still holds it; a forked child does not."""
        return self in _held

    def close(self) -> None:
        """Unlock. Closing twice is harmless."""
        if self.is_held:
            _held.discard(self)
            # Explicitly, because a child that was forked by native code may still share the description.
            fcntl.flock(self._descriptor.number, fcntl.LOCK_UN)
            self._descriptor.close()

    def drop_inherited(self) -> None:
        """Forget the lock in a forked child; the parent still holds it."""
        self._descriptor.close()


def try_lock(directory_number: int, path: str) -> tuple[LockState, DirectoryLock | None]:
    """Try to lock an open directory without waiting."""
    if sys.platform == "win32":
        return LockState.UNSUPPORTED, None
    descriptor = Descriptor(os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory_number), path)
    try:
        fcntl.flock(descriptor.number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        descriptor.close()
        if isinstance(error, BlockingIOError):
            return LockState.BUSY, None
        if error.errno in LOCK_REFUSALS:
            return LockState.UNSUPPORTED, None
        raise
    return LockState.HELD, DirectoryLock(descriptor)


def _drop_inherited_locks() -> None:
    for lock in tuple(_held):
        lock.drop_inherited()
    _held.clear()


_held: WeakSet[DirectoryLock] = WeakSet()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_drop_inherited_locks)
