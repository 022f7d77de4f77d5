"""Where a run is: its directory, the store that it lives in or is copied to, and what of it is read where."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from ckptfmt.disk.anywhere import AnyDisk
from ckptfmt.disk.cache_directory import cache_directory
from ckptfmt.disk.paths import join
from ckptfmt.disk.protocol import Disk
from ckptfmt.disk.urls import is_url, location
from ckptfmt.format.digest import digest_of
from ckptfmt.run.mirror import Mirror
from ckptfmt.run.retention import Policy
from ckptfmt.run.steps import StepDirectory
from ckptfmt.run.store_home import StoreHome

PathLike = str | os.PathLike[str]

_NAME_CHARACTERS = 40
_DIGEST_CHARACTERS = 16


@dataclass(frozen=True, slots=True)
class Places:
    """The places of one run. `local` are the steps in its directory, `steps` all that it has."""

    local: StepDirectory
    steps: StepDirectory
    mirror: Mirror | None
    home: StoreHome | None


def find_places(
    disk: Disk, path: str, policy: Policy, mirror: PathLike | None, local_directory: PathLike | None, compress_older_than: object
) -> Places:
    """Return the places of the run at a path or URL. Nothing is read or made.

    Raises:
        ValueError: arguments that do not go together.
    """
    if not is_url(path):
        if local_directory is not None:
            raise ValueError(f"local_directory={os.fspath(local_directory)!r}: only a run in a store has one beside its URL")
        local = StepDirectory(disk, path)
        return Places(local, local, None if mirror is None else Mirror(disk, local, location(mirror), policy), None)
    if mirror is not None:
        raise ValueError(f"mirror={os.fspath(mirror)!r}: a run in a store has none; let the store replicate {path}")
    if compress_older_than is not None:
        raise ValueError("compress_older_than: a run in a store keeps few checkpoints here, and those in the store stay as they are")
    if not isinstance(disk, AnyDisk):
        raise ValueError(f"{path}: expected a disk that knows stores and directories of this machine")
    directory = _directory_of(path) if local_directory is None else location(local_directory)
    if is_url(directory):
        raise ValueError(f"local_directory={directory!r}: expected a directory of this machine")
    local = StepDirectory(disk, directory)
    home = StoreHome(disk, path, local, policy)
    return Places(local, home.steps, home.copy, home)


def _directory_of(url: str) -> str:
    """Return a directory in the user's cache: the last name of the URL, made safe, and a digest of all of it."""
    name = re.sub(r"[^A-Za-z0-9._-]", "_", url.rpartition("/")[2])[:_NAME_CHARACTERS].lstrip(".") or "run"
    return join(join(cache_directory(), "runs"), f"{name}-{digest_of(url.encode()).hex()[:_DIGEST_CHARACTERS]}")
