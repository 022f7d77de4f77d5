"""Deleting a checkpoint so that no crash leaves half of one: the manifest goes first. Spec 5."""

from __future__ import annotations

import errno
from contextlib import suppress

from ckptfmt.checkpoint.directory import open_checkpoint_directory
from ckptfmt.disk.paths import parent_of
from ckptfmt.disk.protocol import Disk
from ckptfmt.format.layout import MANIFEST_NAME, is_data_name, is_temporary_name


def delete_checkpoint(disk: Disk, path: str) -> None:
    """Delete a checkpoint, or what is left of one. Files that are not of this format stay, and so does their directory."""
    directory = open_checkpoint_directory(disk, path)
    try:
        with suppress(FileNotFoundError):
            directory.unlink(MANIFEST_NAME)
        directory.sync()
        for name in directory.names():
            if is_data_name(name) or is_temporary_name(name):
                with suppress(FileNotFoundError):
                    directory.unlink(name)
    finally:
        directory.close()
    try:
        disk.remove_directory(path)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return
    parent = disk.open_directory(parent_of(path))
    try:
        parent.sync()
    finally:
        parent.close()
