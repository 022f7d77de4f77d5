"""The checkpoints of a Hugging Face Trainer on the disk: which of them is whole."""

from __future__ import annotations

import os
import re

from ckptfmt.checkpoint.seal import check_seal
from ckptfmt.checkpoint.verify import verify_checkpoint
from ckptfmt.disk.foreign_file import names_in
from ckptfmt.disk.local import LocalDisk
from ckptfmt.errors import CheckpointError
from ckptfmt.format.layout import MANIFEST_NAME
from ckptfmt.run.notices import warn

STATE_NAME = "trainer_state.json"
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")

PathLike = str | os.PathLike[str]


def last_valid(output_dir: PathLike) -> str | None:
    """Return the newest checkpoint of a Trainer that is whole, every byte checked; None where there is none.

    Damaged and half-written ones are named in a warning and passed over.
    """
    where = os.fspath(output_dir)
    found = [(int(match[1]), name) for name in names_in(where) if (match := _CHECKPOINT.fullmatch(name))]
    for _, name in sorted(found, reverse=True):
        path = f"{where}/{name}"
        problem = _find_problem(path)
        if problem is None:
            return path
        warn(f"{problem}\n{name} is passed over for the next older one.")
    return None


def _find_problem(path: str) -> str | None:
    names = names_in(path)
    if MANIFEST_NAME in names:
        report = verify_checkpoint(LocalDisk(), path, level="full")
        errors = [finding for finding in report.findings if finding.level == "error"]
        return errors[0].message.partition("\n")[0] if errors else None if STATE_NAME in names else f"{path}/{STATE_NAME}: is missing"
    try:
        check_seal(path)
    except CheckpointError as error:
        return str(error).partition("\n")[0]
    return None


def is_ours(path: str) -> bool:
    """Tell whether a checkpoint of a Trainer was saved through ckptfmt."""
    return MANIFEST_NAME in names_in(path)
