"""A study from somewhere else in the words of this format: what every importer makes, and how it becomes a journal. Spec 18.

Distributions of earlier releases of Optuna become those of today, as Optuna itself does it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ckptfmt.adapters.optuna_values import encode_attribute
from ckptfmt.disk.paths import make_directories
from ckptfmt.disk.protocol import Disk
from ckptfmt.errors import CheckpointExistsError, CorruptError, NameNotFoundError, UnsupportedTypeError
from ckptfmt.format.journal_record import is_temporary_segment_name, parse_segment_name
from ckptfmt.run.journal import Journal
from ckptfmt.run.study_records import check_record, find_domain

_SHOWN_NAMES = 20
_ATTRIBUTES = ("user_attrs", "system_attrs")
# Class of before: class of today, and what it was called otherwise.
_OLD_DISTRIBUTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "UniformDistribution": ("FloatDistribution", {"log": False}),
    "LogUniformDistribution": ("FloatDistribution", {"log": True}),
    "DiscreteUniformDistribution": ("FloatDistribution", {"log": False}),
    "IntUniformDistribution": ("IntDistribution", {"log": False}),
    "IntLogUniformDistribution": ("IntDistribution", {"log": True}),
}


@dataclass(slots=True)
class ForeignTrial:
    """One trial: `members` are those of spec 18.2, but for attributes, which are still as the application gave them."""

    trial_id: int
    members: dict[str, Any]


@dataclass(slots=True)
class ForeignStudy:
    """One study, with its trials in the order of their numbers."""

    name: str
    directions: list[int]
    user_attrs: dict[str, Any] = field(default_factory=dict)
    system_attrs: dict[str, Any] = field(default_factory=dict)
    trials: list[ForeignTrial] = field(default_factory=list)


def choose_name(names: Sequence[str], wanted: str | None, where: str) -> str:
    """Return the study that is meant.

    Raises:
        NameNotFoundError: there is none of this name, or there are several and none was named; all are listed.
    """
    if wanted is not None and wanted in names:
        return wanted
    if wanted is None and len(names) == 1:
        return names[0]
    listed = ", ".join(names[:_SHOWN_NAMES]) + (f" and {len(names) - _SHOWN_NAMES:,} more" if len(names) > _SHOWN_NAMES else "")
    if not names:
        raise NameNotFoundError(f"{where}: holds no study", path=where)
    problem = f"holds {len(names)} studies" if wanted is None else f"no study is named {wanted!r}"
    raise NameNotFoundError(f"{where}: {problem}\nName one of them: {listed}", name=wanted or "", path=where)


def distribution_text(text: str) -> str:
    """Return the JSON text of a distribution, of an earlier release's as that of today's."""
    if find_domain(text) is not None:
        return text
    try:
        document = json.loads(text)
        name, attributes = document["name"], dict(document["attributes"])
        new_name, more = _OLD_DISTRIBUTIONS[name]
        if "q" in attributes:
            attributes["step"] = attributes.pop("q")
    except (KeyError, TypeError, ValueError, RecursionError):
        return text
    return json.dumps({"name": new_name, "attributes": {**attributes, **more}})


def internal_value(text: str, value: Any) -> Any:
    """Return the value of a parameter as a database holds it, where every number is a float."""
    domain = find_domain(text)
    if domain is not None and domain.kind == "categorical" and type(value) is float and value.is_integer():
        return int(value)
    return value


def write_study(disk: Disk, path: str, study: ForeignStudy, *, overwrite: bool, where: str) -> None:
    """Write a study as a journal; a study that is there is replaced, wholly or not at all, if that is wished.

    Raises:
        CheckpointExistsError: something is there.
        UnsupportedTypeError: an attribute or a choice is no plain data; the message names trial and key.
        CorruptError: a trial is not as spec 18 says.
    """
    records = _records_of(study, where)
    _check_place(disk, path, overwrite=overwrite)
    make_directories(disk, path)
    with Journal.open_for_append(disk, path) as journal:
        journal.compact(records)


def _check_place(disk: Disk, path: str, *, overwrite: bool) -> None:
    try:
        directory = disk.open_directory(path)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise CheckpointExistsError(f"{path}: exists already, and is a file\nGive another name.", path=path) from None
    try:
        names = directory.names()
    finally:
        directory.close()
    own = [name for name in names if parse_segment_name(name) is not None or is_temporary_segment_name(name)]
    if len(own) != len(names):
        raise CheckpointExistsError(f"{path}: exists already, and is no study\nGive another name.", path=path)
    if own and not overwrite:
        raise CheckpointExistsError(f"{path}: a study is there already\nGive another name, or replace it with overwrite.", path=path)


def _records_of(study: ForeignStudy, where: str) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = [{"op": "create_study", "study": 0, "name": study.name, "directions": study.directions}]
    for kind, attributes in (("user", study.user_attrs), ("system", study.system_attrs)):
        for key, tree in _encoded(attributes, f"{where}: {kind} attribute", "of the study").items():
            records.append({"op": f"study_{kind}_attr", "study": 0, "key": key, "value": tree})
    for number, trial in enumerate(study.trials):
        _check_choices(trial, f"{where}: trial {number}")
        encoded = {
            name: _encoded(trial.members[name], f"{where}: trial {number}: {name.partition('_')[0]} attribute", "") for name in _ATTRIBUTES
        }
        record = {"op": "create_trial", "study": 0, "trial": trial.trial_id, **trial.members, **encoded}
        check_record(record, f"{where}: trial {number}")
        records.append(record)
    if len({trial.trial_id for trial in study.trials}) != len(study.trials):
        raise CorruptError(f"{where}: two trials have one id", path=where)
    return records


def _encoded(attributes: Mapping[str, Any], what: str, of: str) -> dict[str, Any]:
    return {key: encode_attribute(value, f"{what} {key!r} {of}".rstrip()) for key, value in attributes.items()}


def _check_choices(trial: ForeignTrial, where: str) -> None:
    """Say so of choices that no JSON keeps, which Optuna warns of but stores."""
    for name, _, text in trial.members["params"]:
        if find_domain(text) is None and '"CategoricalDistribution"' in text:
            message = f"{where}: parameter {name!r}: choices are not stored: expected None, bool, int, float or str, found {text[:120]}"
            raise UnsupportedTypeError(f"{message}\nSuggest the name of the choice, and look the object up by it.", path=os.fspath(where))
