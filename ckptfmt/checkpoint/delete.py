"""Deleting a checkpoint so that no crash leaves half of one: the manifest goes first. Spec 5."""

from __future__ import annotations

import errno
from contextlib import suppress

from ckptfmt.checkpoint.directory import open_checkpoint_directory
from ckptfmt.checkpoint.store_staging import delete_from_store
from ckptfmt.disk.paths import parent_of
from ckptfmt.disk.protocol import Directory, Disk, LockState
from ckptfmt.disk.remote import RemoteDirectory
from ckptfmt.disk.urls import is_url
from ckptfmt.errors import RunLockedError
from ckptfmt.format.layout import MANIFEST_NAME, is_data_name, is_temporary_name


def delete_checkpoint(disk: Disk, path: str) -> None:
    """Delete a checkpoint, or what is left of one. Files that are not of this format stay, and so does their directory.

    Raises:
        CheckpointNotFoundError: there is nothing under this path.
        RunLockedError: somebody is saving into it, and would commit a manifest whose files are gone.
    """
    directory = open_checkpoint_directory(disk, path)
    try:
        if directory.try_lock() is LockState.BUSY:
            raise RunLockedError(
                f"{path}: another process or thread is saving into this checkpoint\nDelete it when that is done.", path=path
            )
        if isinstance(directory, RemoteDirectory):
            delete_from_store(directory)
        else:
            _remove_files(directory)
        try:
            disk.remove_directory(path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            return
    finally:
        directory.close()
    if is_url(path):
        return
    parent = disk.open_directory(parent_of(path))
    try:
        parent.sync()
    finally:
        parent.close()


def _remove_files(directory: Directory) -> None:
    with suppress(FileNotFoundError):
        directory.unlink(MANIFEST_NAME)
    directory.sync()
    for name in directory.names():
        if is_data_name(name) or is_temporary_name(name):
            with suppress(FileNotFoundError):
                directory.unlink(name)
