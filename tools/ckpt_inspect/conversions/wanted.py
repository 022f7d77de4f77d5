"""What a conversion is asked for, and what all of them share."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ckpt_inspect.output.progress import ByteProgress
from ckpt_inspect.output.visible import visible
from ckptfmt.errors import CheckpointExistsError


@dataclass(frozen=True, slots=True)
class Conversion:
    """What is asked for; options that were not given are None or False."""

    source: str
    target: str
    to: str | None = None
    steps: str | None = None
    metric: str | None = None
    mode: str | None = None
    section: str | None = None
    max_shard_size: str | None = None
    objects_as_data: bool = False
    study: str | None = None
    from_pickle: bool = False
    overwrite: bool = False


Written = tuple[list[str], str]
"""Paths that were written or found equal, and what is to be said about them."""


def refuse_existing(path: str, *, overwrite: bool) -> None:
    """Refuse to write over what is there.

    Raises:
        CheckpointExistsError: something is there, and overwriting was not asked for.
    """
    if os.path.lexists(path) and not overwrite:
        raise CheckpointExistsError(f"{path}: exists already\nGive another name, or --overwrite.", path=path)


def shown_names(names: Sequence[str], limit: int = 5) -> str:
    """Return the first names, and how many more there are."""
    return ", ".join(map(visible, names[:limit])) + (f" and {len(names) - limit:,} more" if len(names) > limit else "")


def counted(pieces: Iterable[bytes | memoryview], progress: ByteProgress) -> Iterator[bytes | memoryview]:
    """Yield the pieces, and count them when they are written."""
    for piece in pieces:
        size_bytes = len(piece)
        yield piece
        # It must be gone before the next one is made.
        del piece
        progress.advance(size_bytes)
