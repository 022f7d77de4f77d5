"""One open file descriptor: closed exactly once, never used after that, missed when it is forgotten."""

from __future__ import annotations

import os
import warnings

from ckptfmt.disk.paths import naming


class Descriptor:
    """Owner of a descriptor of the system. A number is reused after close, so it must not be kept elsewhere."""

    def __init__(self, number: int, path: str) -> None:
        self._number = number
        self.path = path

    @property
    def number(self) -> int:
        """The number to hand to the system (ValueError once closed)."""
        if self._number < 0:
            raise ValueError(f"{self.path}: already closed")
        return self._number

    def close(self) -> None:
        """Close once; the first call raises what the system reports, and is never repeated."""
        number, self._number = self._number, -1
        if number >= 0:
            with naming(self.path):
                os.close(number)

    def __del__(self) -> None:
        if self._number >= 0:
            self.close()
            warnings.warn(f"{self.path}: was not closed", ResourceWarning, stacklevel=2, source=self)
