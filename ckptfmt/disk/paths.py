"""Names, paths and what the messages call them.

A name is one component of a path; only `check_name` decides what that is. Every OSError that leaves this
folder passes through `naming`, because system calls relative to a directory report the bare component, and
calls on a descriptor report nothing.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ckptfmt.disk.protocol import Disk
from ckptfmt.disk.urls import is_url

_FORBIDDEN_CHARACTERS = ("/", "\0", *(("\\", ":") if os.name == "nt" else ()))


def check_name(name: str) -> str:
    """Return `name` if it is a single path component.

    Raises:
        ValueError: it is empty, "." or "..", or holds a separator or NUL.
    """
    if name in ("", ".", "..") or any(character in name for character in _FORBIDDEN_CHARACTERS):
        raise ValueError(f"{name!r}: not a single path component")
    return name


def join(directory_path: str, name: str) -> str:
    """Return the path of a checked name in a directory."""
    return os.path.join(directory_path, check_name(name))


def parent_of(path: str) -> str:
    """Return the directory in which a path's last component lies."""
    return os.path.dirname(path.rstrip(os.sep)) or (os.sep if path.startswith(os.sep) else os.curdir)


def is_within(path: str, other: str) -> bool:
    """Tell whether a path is that of another or lies below it, as far as the texts tell."""
    outer = os.path.abspath(other)
    return os.path.commonpath([os.path.abspath(path), outer]) == outer


@contextmanager
def naming(path: str, target_path: str | None = None) -> Iterator[None]:
    """Let every OSError of the block carry `path` as its file name; number and class stay."""
    try:
        yield
    except OSError as error:
        error.filename = path
        if target_path is not None:
            error.filename2 = target_path
        raise


def make_directories(disk: Disk, path: str, *, durable: bool = True) -> None:
    """Create a directory and its missing parents; those that exist are kept.

    With `durable` each name is on the disk before the next level is made, and so is the name of the deepest level that
    existed before: it is the one that a run which was killed in here may have left behind.

    A store has prefixes that need no making; the disk takes note of the path.

    Raises:
        NotADirectoryError: a component of the path is something else.
    """
    if is_url(path):
        with suppress(FileExistsError):
            disk.make_directory(path)
        return
    path = path.rstrip(os.sep) or path
    parent = parent_of(path)
    is_new = not _exists(disk, path)
    if is_new:
        if parent == path:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        make_directories(disk, parent, durable=durable)
        is_new = _make_if_missing(disk, path)
    if durable and parent != path:
        _sync_parent(disk, parent, is_required=is_new)


def _exists(disk: Disk, path: str) -> bool:
    try:
        disk.open_directory(path).close()
    except FileNotFoundError:
        return False
    return True


def _make_if_missing(disk: Disk, path: str) -> bool:
    try:
        disk.make_directory(path)
    except FileExistsError:
        # Another process was faster.
        disk.open_directory(path).close()
        return False
    return True


def _sync_parent(disk: Disk, parent: str, *, is_required: bool) -> None:
    try:
        directory = disk.open_directory(parent)
    except PermissionError:
        # What exists below a directory that we may not even read was made by somebody else.
        if is_required:
            raise
        return
    try:
        directory.sync()
    finally:
        directory.close()
