"""Trying out a directory, and telling what its file system can promise."""

from __future__ import annotations

import os
import stat

from ckpt_inspect.output.exit_status import FINE, FOUND_SOMETHING
from ckpt_inspect.output.screen import Screen
from ckpt_inspect.sources.location import NotReadableHereError, without_final_slash
from ckpt_inspect.views.doctor_table import broken_promises, doctor_document, doctor_lines, judge
from ckptfmt.disk.probe_host import probe_host
from ckptfmt.errors import CheckpointNotFoundError


def diagnose(path: str, screen: Screen) -> int:
    """Try out a directory; the status says whether every promise can be kept there."""
    path = without_final_slash(path)
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointNotFoundError(f"{path}: no such directory", path=path) from None
    except ValueError:
        raise CheckpointNotFoundError(f"{path!r}: no path can hold this", path=path) from None
    if not stat.S_ISDIR(mode):
        raise NotReadableHereError(f"{path}: expected a directory\nGive the one in which runs are to be stored.")
    judgements = judge(probe_host(path))
    if screen.is_json:
        screen.write_document(doctor_document(path, judgements))
    else:
        screen.write_lines(doctor_lines(path, judgements, screen))
    return FOUND_SOMETHING if broken_promises(judgements) else FINE
