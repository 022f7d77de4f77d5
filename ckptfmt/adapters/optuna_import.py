"""Studies from Optuna's own files, as studies of this format: SQLite databases, files of its journal storage, and pickled studies.

A file is only ever read. A pickle is read by a function of its own, which runs nothing of it and says so.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import PurePath

from ckptfmt.adapters.optuna_database import START, read_database
from ckptfmt.adapters.optuna_foreign import ForeignStudy, write_study
from ckptfmt.adapters.optuna_log import is_log, read_log
from ckptfmt.adapters.optuna_pickled_study import read_pickled_study
from ckptfmt.disk.foreign_file import map_file
from ckptfmt.disk.local import LocalDisk
from ckptfmt.errors import CorruptError, UnsupportedTypeError
from ckptfmt.run.notices import warn

PathLike = str | os.PathLike[str]
SNIFFED_BYTES = 4096
STUDIES_NAME = "studies"
_PICKLE = b"\x80"


@dataclass(frozen=True, slots=True)
class ImportedStudy:
    """What was imported: the name of the study, how many trials it has, and where it is now."""

    name: str
    trial_count: int
    path: str


def find_optuna_kind(start: bytes) -> str | None:
    """Tell from the first bytes what file of Optuna it may be: "sqlite", "journal" or "pickle"; None for anything else."""
    if start.startswith(START):
        return "sqlite"
    if is_log(start):
        return "journal"
    return "pickle" if start.startswith(_PICKLE) else None


def import_study(source: PathLike, path: PathLike, *, name: str | None = None, overwrite: bool = False) -> ImportedStudy:
    """Write a study of an SQLite database or a journal file of Optuna to `path`, for `load_study` and `run.study(start_from=path)`.

    `name` is needed where the file holds several. In `studies/` of a run the study gets the name of its directory, under which
    `run.study` finds it; elsewhere it keeps its own. The file is only read, also while somebody writes to it.

    Raises:
        NameNotFoundError: there is no such study, or several; the message lists them.
        CorruptError: it is no file of Optuna, or a damaged one.
        UnsupportedTypeError: it is a pickle; or an attribute or choice is no plain data.
        CheckpointExistsError: something is at `path`.
        CheckpointNotFoundError: there is no such file.
    """
    text = os.fspath(source)
    kind = find_optuna_kind(bytes(map_file(text)[:SNIFFED_BYTES]))
    if kind == "pickle":
        advice = "import_pickled_study reads one without running it; ckpt-inspect convert --from-pickle does the same."
        raise UnsupportedTypeError(f"{text}: a pickle is a program, and is not read unasked\n{advice}", path=text)
    if kind is None:
        raise CorruptError(f"{text}: neither an SQLite database nor a journal file of Optuna\nGive the file that Optuna wrote.", path=text)
    study = read_database(text, name) if kind == "sqlite" else read_log(text, name)
    return _written(study, text, os.fspath(path), overwrite=overwrite)


def import_pickled_study(source: PathLike, path: PathLike, *, name: str | None = None, overwrite: bool = False) -> ImportedStudy:
    """Write a study that was pickled to `path`, as `import_study` does; warns that its sampler is left out.

    The pickle is followed over plain values, nothing of it is imported or run, and names that no study needs are refused.

    Raises:
        UnsupportedTypeError: it asks for other names, all of which the message lists; or it holds no trials, only where they are.
        CorruptError: it is no pickled study.
    """
    text = os.fspath(source)
    study = read_pickled_study(text, name)
    imported = _written(study, text, os.fspath(path), overwrite=overwrite)
    warn(
        f"{text}: a pickle may say anything, and nothing vouches for what was in it; it was read as data, and nothing was run\n"
        "Its sampler and pruner were left out: give the ones that the study is to go on with."
    )
    return imported


def _written(study: ForeignStudy, source: str, path: str, *, overwrite: bool) -> ImportedStudy:
    place = PurePath(path)
    if place.parent.name == STUDIES_NAME:
        study.name = place.name
    write_study(LocalDisk(), path, study, overwrite=overwrite, where=source)
    return ImportedStudy(study.name, len(study.trials), path)
