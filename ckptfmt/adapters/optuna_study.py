"""Studies of a run: `Run.study` opens one, with its sampler as it was after the last finished trial. Spec 18.

Also `save_study` and `load_study`, which put a whole study into a journal and out of it into any storage of Optuna.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ckptfmt.adapters.optuna_image import StudyEntry
from ckptfmt.adapters.optuna_journal import StudyJournal, read_studies, whole_records
from ckptfmt.adapters.optuna_sampler import SamplerWatch, restore_sampler
from ckptfmt.adapters.optuna_storage import new_storage
from ckptfmt.adapters.optuna_values import check_study, encode_attribute, encode_trial
from ckptfmt.disk.local import LocalDisk
from ckptfmt.disk.paths import join, make_directories
from ckptfmt.disk.protocol import Disk
from ckptfmt.errors import CheckpointNotFoundError
from ckptfmt.run.journal import Journal
from ckptfmt.run.notices import warn
from ckptfmt.run.study_records import Record

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.study import Study

STUDIES_NAME = "studies"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_PARENTS = re.compile(r"\w+:parent:\d+")
PathLike = str | os.PathLike[str]


def open_study(
    disk: Disk,
    run_path: str,
    name: str,
    *,
    check_open: Callable[[], None],
    opened: dict[str, Any],
    durable: bool = True,
    start_from: PathLike | None = None,
    direction: Any = None,
    directions: Sequence[Any] | None = None,
    sampler: Any = None,
    pruner: Any = None,
    **options: Any,
) -> Study:
    """Open or create the study of this name in a run; `opened` holds the storages that the run has open.

    `start_from` is the study of another run, or one that `save_study` wrote: a study that is new here begins with its trials.
    """
    import optuna

    if not _NAME.fullmatch(name):
        raise ValueError(f"name={name!r}: expected up to 64 of a-z, 0-9, '.', '_', '-', beginning with a letter or digit")
    path = join(join(run_path, STUDIES_NAME), name)
    if name not in opened:
        first = None if start_from is None else _renamed(whole_records(read_studies(disk, os.fspath(start_from))), name)
        make_directories(disk, path, durable=durable)
        opened[name] = new_storage(StudyJournal(disk, path, durable=durable, check_open=check_open, first=first))
    storage = opened[name]
    known = next((entry for entry in storage.log.image.studies.values() if entry.name == name), None)
    if known is not None:
        _check_directions(path, known, direction, directions)
        direction, directions = None, [optuna.study.StudyDirection(number) for number in known.directions]
    options = {"study_name": name, **options, "load_if_exists": True}
    study = optuna.create_study(storage=storage, direction=direction, directions=directions, sampler=sampler, pruner=pruner, **options)
    _attach_sampler(study, storage)
    return study


def _attach_sampler(study: Study, storage: Any) -> None:
    """Restore sampler and pruner, and record their state from now on."""
    entry: StudyEntry = storage.log.image.study(study._study_id)
    if entry.sampler:
        for part in restore_sampler(study, entry.sampler, where=storage.log.path):
            warn(
                f"{storage.log.path}: the {part} was {entry.sampler.get(part)} and now is {type(getattr(study, part)).__name__}\n"
                "The study goes on with the new one, which begins with a state of its own."
            )
    watch = SamplerWatch()
    changes = watch.take_changes(study, entry.sampler)
    if changes["changed"] or changes["gone"]:
        # Known from the beginning, so that a first trial that is lost is suggested again too.
        storage.log.write({"op": "sampler", "study": study._study_id, **changes}, flush=True)
    storage.watch_sampler(study, watch.take_changes)


def _check_directions(path: str, known: StudyEntry, direction: Any, directions: Sequence[Any] | None) -> None:
    asked = list(directions) if directions is not None else [direction] if direction is not None else None
    if asked is None:
        return
    names = [one.upper() if isinstance(one, str) else one.name for one in asked]
    stored = [("NOT_SET", "MINIMIZE", "MAXIMIZE")[number] for number in known.directions]
    if names != stored:
        expected, found = ", ".join(stored).lower(), ", ".join(names).lower()
        raise ValueError(f"{path}: direction differs: the study has {expected}, found {found}\nUse another name for another study.")


def _renamed(records: list[Record], name: str) -> list[Record]:
    studies = [record for record in records if record["op"] == "create_study"]
    if len(studies) != 1:
        raise CheckpointNotFoundError(f"start_from: expected one study, found {len(studies)}")
    return [{**record, "name": name} if record["op"] == "create_study" else record for record in records]


def save_study(path: PathLike, study: Study) -> None:
    """Save a study of any storage as it is now: name, directions, attributes, every trial, and the state of its sampler.

    A study that was saved there before is replaced, wholly or not at all.

    Raises:
        UnsupportedTypeError: an attribute holds no plain data; the message names its key.
    """
    check_study(study)
    watch = SamplerWatch()
    storage, study_id = study._storage, study._study_id
    text = {op: dict(found) for op, found in (("user", study.user_attrs), ("system", storage.get_study_system_attrs(study_id)))}
    records: list[Record] = [
        {"op": "create_study", "study": 0, "name": study.study_name, "directions": [int(one) for one in study.directions]},
    ]
    for kind, attributes in text.items():
        for key, value in attributes.items():
            tree = encode_attribute(value, f"{kind} attribute {key!r} of the study")
            records.append({"op": f"study_{kind}_attr", "study": 0, "key": key, "value": tree})
    for trial in study.get_trials(deepcopy=False):
        try:
            records.append({"op": "create_trial", "study": 0, "trial": trial._trial_id, **encode_trial(trial)})
        except TypeError as error:
            error.args = (f"trial {trial.number}: {error.args[0]}", *error.args[1:])
            raise
    records.append({"op": "sampler", "study": 0, "changed": watch.take(study), "gone": []})
    disk = LocalDisk()
    with Journal.open_for_append(disk, os.fspath(path)) as journal:
        journal.compact(records)


def load_study(path: PathLike, *, storage: Any = None, sampler: Any = None, pruner: Any = None) -> Study:
    """Load a study into a storage of Optuna, by default one in memory; its trials are equal to those that were saved.

    `path` is what `save_study` wrote, or the directory of a run's study. A sampler and pruner of the class that the study had go on from
    their state. In a storage that holds other trials already, only the ids of trials differ.

    Raises:
        CheckpointNotFoundError: there is no study.
        optuna.exceptions.DuplicatedStudyError: the storage has a study of this name.
    """
    import optuna

    image = read_studies(LocalDisk(), os.fspath(path))
    if len(image.studies) != 1:
        found = len(image.studies)
        raise CheckpointNotFoundError(f"{os.fspath(path)}: expected a study, found {found or 'none'}", path=os.fspath(path))
    entry = next(iter(image.studies.values()))
    study = optuna.create_study(
        study_name=entry.name,
        storage=storage,
        directions=[optuna.study.StudyDirection(number) for number in entry.directions],
        sampler=sampler,
        pruner=pruner,
    )
    _fill(study._storage, study._study_id, entry)
    if entry.sampler:
        restore_sampler(study, entry.sampler, where=os.fspath(path))
    return study


def _fill(storage: BaseStorage, study_id: int, entry: StudyEntry) -> None:
    ids = {trial._trial_id: storage.create_new_trial(study_id, template_trial=trial) for trial in entry.trials}
    for key, value in entry.user_attrs.items():
        storage.set_study_user_attr(study_id, key, value)
    for key, value in entry.system_attrs.items():
        # Genetic algorithms keep the parents of a generation by their ids.
        is_parents = _PARENTS.fullmatch(key) is not None and isinstance(value, list)
        storage.set_study_system_attr(study_id, key, [ids.get(one, one) for one in value] if is_parents else value)
