"""From Optuna's own files to a study of this format."""

from __future__ import annotations

import os

from ckpt_inspect.cleaning import warnings_as_messages
from ckpt_inspect.conversions.wanted import Conversion, Written
from ckpt_inspect.output.screen import Screen
from ckpt_inspect.output.units import count_text
from ckpt_inspect.output.visible import visible
from ckpt_inspect.sources.location import STUDIES_NAME, NotReadableHereError
from ckptfmt.adapters.optuna_import import SNIFFED_BYTES, find_optuna_kind, import_pickled_study, import_study
from ckptfmt.disk.foreign_file import map_file
from ckptfmt.errors import CheckpointExistsError, NameNotFoundError, UnsupportedTypeError

PICKLE = "pickle"
STUDY_FILES = {
    "sqlite": "an SQLite database",
    "journal": "a journal file of Optuna",
    PICKLE: "a pickle",
}


def find_study_kind(source: str) -> str | None:
    """Return the kind of a file that may hold studies, None for anything else."""
    return find_optuna_kind(bytes(map_file(source)[:SNIFFED_BYTES]))


def import_one_study(source: str, wanted: Conversion, screen: Screen) -> Written:
    """Write one study of a file of Optuna; a pickle only if that was asked for."""
    if not wanted.from_pickle and find_study_kind(source) == PICKLE:
        raise UnsupportedTypeError(
            f"{source}: a pickle is a program, and is not read unasked\n--from-pickle reads a pickled study as data, without running it.",
            path=source,
        )
    do = import_pickled_study if wanted.from_pickle else import_study
    try:
        with warnings_as_messages():
            imported = do(source, wanted.target, name=wanted.study, overwrite=wanted.overwrite)
    except NameNotFoundError as error:
        raise NotReadableHereError(str(error).replace("\nName one of them:", "\nGive one of them with --study:")) from None
    except CheckpointExistsError as error:
        raise CheckpointExistsError(str(error).replace("replace it with overwrite", "--overwrite"), path=error.path) from None
    place = os.path.dirname(os.path.abspath(imported.path))
    is_of_run = os.path.basename(place) == STUDIES_NAME
    call = f"run.study({imported.name!r})" if is_of_run else f"run.study(NAME, start_from={imported.path!r})"
    return [imported.path], visible(f"study {imported.name}, {count_text(imported.trial_count, 'trial')}; go on with {call}")
