"""Writing a file that was asked for: it appears whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable


def replace_file(path: str, pieces: Iterable[bytes | memoryview]) -> None:
    """Write a file beside its place, make it durable, and put it there."""
    temporary = os.path.join(os.path.dirname(path), f".{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        if os.path.lexists(temporary):
            os.unlink(temporary)
        raise
