"""Results that are computed once: a checkpoint under the name of what it was computed from.

`cache/<name>-<digest>/` is keyed by the digest of the inputs, so another input is another directory, and what is there is
never out of date. Two processes that need the same result at once compute it once: the second one waits for the first.
A damaged cache is computed again.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import PurePath
from typing import Any

from ckptfmt.checkpoint.reader import OpenCheckpoint
from ckptfmt.checkpoint.saving import check_options
from ckptfmt.checkpoint.writer import write_checkpoint
from ckptfmt.disk.paths import join, make_directories
from ckptfmt.disk.protocol import Disk, LockState
from ckptfmt.errors import CheckpointNotFoundError, FormatError, IncompleteError
from ckptfmt.run.fingerprint import Fingerprint
from ckptfmt.run.notices import warn
from ckptfmt.run.steps import CACHE_NAME
from ckptfmt.state.tree import encode_state

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_KEY_DIGITS = 16
_POLL_SECONDS = 0.05


def cached(disk: Disk, run_path: str, name: str, compute: Callable[[], Any], inputs: Any) -> Any:
    """Return the stored result of `compute` for these inputs, or compute and store it."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"name={name!r}: expected up to 64 of a-z, 0-9, '.', '_', '-', beginning with a letter or digit")
    cache = join(run_path, CACHE_NAME)
    path = join(cache, f"{name}-{_key(inputs)}")
    found, value = _find(disk, path)
    if found:
        return value
    make_directories(disk, cache)
    with _Turn(disk, join(cache, f".{name}-{_key(inputs)}.lock")):
        found, value = _find(disk, path)
        if found:
            return value
        result = compute()
        write_checkpoint(disk, path, encode_state(result), check_options(overwrite=True))
    return _load(disk, path)


def _key(inputs: Any) -> str:
    """Return the digest of inputs: plain data, arrays and tensors by value, paths by the content of their files."""
    if not isinstance(inputs, Fingerprint):
        files: dict[str, PurePath] = {}
        plain = _without_paths(inputs, "inputs", files)
        inputs = Fingerprint(config={"inputs": plain}, data=files or None, code=False, environment=False)
    digest: str = inputs.digest
    return digest.rpartition(":")[2][:_KEY_DIGITS]


def _without_paths(value: Any, place: str, files: dict[str, PurePath]) -> Any:
    """Return inputs with a mark in the place of each path, and note the paths by their places."""
    if isinstance(value, PurePath):
        files[place] = value
        return f"file {place}"
    if type(value) is dict:
        return {key: _without_paths(member, f"{place}.{key!r}", files) for key, member in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_without_paths(member, f"{place}.{index}", files) for index, member in enumerate(value))
    if type(value) in (set, frozenset) and any(isinstance(member, PurePath) for member in value):
        return _without_paths(sorted(value, key=str), place, files)
    return value


def _find(disk: Disk, path: str) -> tuple[bool, Any]:
    try:
        return True, _load(disk, path)
    except (CheckpointNotFoundError, IncompleteError):
        return False, None
    except FormatError as error:
        warn(f"{path}: this cache is damaged and is computed again: {error}")
        return False, None


def _load(disk: Disk, path: str) -> Any:
    with OpenCheckpoint(disk, path) as checkpoint:
        return checkpoint.load()


class _Turn:
    """Waits until no other process computes the same thing. The lock is an empty directory's, and ends with its process."""

    def __init__(self, disk: Disk, path: str) -> None:
        make_directories(disk, path, durable=False)
        self._directory = disk.open_directory(path)

    def __enter__(self) -> None:
        while self._directory.try_lock() is LockState.BUSY:
            time.sleep(_POLL_SECONDS)

    def __exit__(self, *_: object) -> None:
        self._directory.close()
