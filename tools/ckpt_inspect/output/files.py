"""Writing a file that was asked for: it appears whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import BinaryIO


def replace_file(path: str, pieces: Iterable[bytes | memoryview]) -> None:
    """Write a file beside its place, make it durable, and put it there."""
    with writing_file(path) as file:
        for piece in pieces:
            file.write(piece)
            # A tensor must be gone before the next one is made.
            del piece


@contextmanager
def writing_file(path: str) -> Iterator[BinaryIO]:
    """Give a file to write to; it is durable and in its place when the block ends, and gone when that fails."""
    temporary = os.path.join(os.path.dirname(path), f".{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        if os.path.lexists(temporary):
            os.unlink(temporary)
        raise
