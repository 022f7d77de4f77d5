"""The memory of a file that failed.

After a failed write nobody knows how much arrived; after a failed fsync the kernel marks the lost pages clean
and a second fsync reports success. So the first failure is final: it is kept, and repeated without asking the
system again.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from ckptfmt.disk.paths import naming


class Poison:
    """Whether a file may still be written or synced."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._errno: int | None = None

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Run one write or sync: refuse it after an earlier failure, remember a new one, name the file."""
        if self._errno is not None:
            raise OSError(self._errno, f"an earlier write or sync failed ({os.strerror(self._errno)}); write a new file", self._path)
        try:
            with naming(self._path):
                yield
        except OSError as error:
            self._errno = error.errno or errno.EIO
            raise
        except BaseException:
            # An interrupt between two system calls leaves half of the data.
            self._errno = errno.EIO
            raise
