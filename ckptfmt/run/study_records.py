"""The records of a study: what each must hold, which of them count, and parameters as people see them. Spec 18.1, 18.2, 18.4.

Nothing of Optuna is needed here: whoever reads a study, the adapter or a tool, checks a record first and trusts its members then.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from ckptfmt.format.rules import violation

RUNNING, COMPLETE, PRUNED, FAIL, WAITING = range(5)
FINISHED = (COMPLETE, PRUNED, FAIL)
MINIMIZE, MAXIMIZE = 1, 2
LOST_KEY = "ckptfmt:lost"
STATE_NAMES = ("running", "complete", "pruned", "failed", "waiting")
ATTRIBUTE_OPS = frozenset({"study_user_attr", "study_system_attr", "user_attr", "system_attr"})
MERGED, TAKE_BACK = "merged", "take_back"

Record = Mapping[str, Any]
CHOICE_TYPES = (type(None), bool, int, float, str)
_DOMAINS_KEPT = 4096
_MAX_ID = 2**62


@dataclass(frozen=True, slots=True)
class Domain:
    """What a parameter may be; `choices` only where it is a categorical."""

    kind: str
    choices: tuple[Any, ...] = ()

    def find_problem(self, value: Any) -> str | None:
        """Return what a stored value should have been, None if it is right."""
        if self.kind == "categorical":
            is_index = type(value) is int and 0 <= value < len(self.choices)
            return None if is_index else f"the index of one of {len(self.choices)} choices"
        if type(value) not in (int, float):
            return "a number"
        return "a whole number" if self.kind == "int" and not (math.isfinite(value) and value == int(value)) else None

    def shown(self, value: Any) -> Any:
        """Return a stored value as the program that suggested it saw it."""
        if self.kind == "categorical":
            return self.choices[value]
        return int(value) if self.kind == "int" else float(value)


@lru_cache(maxsize=_DOMAINS_KEPT)
def find_domain(text: str) -> Domain | None:
    """Return what the text of a distribution says; None if it is none."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    attributes = document.get("attributes") if type(document) is dict else None
    if type(attributes) is not dict:
        return None
    if document.get("name") == "CategoricalDistribution":
        choices = attributes.get("choices")
        if type(choices) is not list or not choices or any(type(choice) not in CHOICE_TYPES for choice in choices):
            return None
        return Domain("categorical", tuple(choices))
    kind = {"FloatDistribution": "float", "IntDistribution": "int"}.get(str(document.get("name")))
    low, high = attributes.get("low"), attributes.get("high")
    if kind is None or not all(type(bound) is int or (kind == "float" and type(bound) is float) for bound in (low, high)):
        return None
    return Domain(kind) if not low > high else None  # type: ignore[operator]


def _is_text(value: Any) -> bool:
    return type(value) is str


def _is_number(value: Any) -> bool:
    return type(value) is int or type(value) is float


def _is_integer(value: Any) -> bool:
    return type(value) is int


def _is_id(value: Any) -> bool:
    return type(value) is int and 0 <= value < _MAX_ID


def _is_flag(value: Any) -> bool:
    return type(value) is bool


def _is_map(value: Any) -> bool:
    return type(value) is dict


def _is_anything(_: Any) -> bool:
    return True


def _is_texts(value: Any) -> bool:
    return type(value) is list and all(type(one) is str for one in value)


def _is_values(value: Any) -> bool:
    return value is None or (type(value) is list and all(map(_is_number, value)))


def _is_directions(value: Any) -> bool:
    return type(value) is list and len(value) > 0 and all(type(one) is int and one in (MINIMIZE, MAXIMIZE) for one in value)


def _is_state(value: Any) -> bool:
    return type(value) is int and 0 <= value < len(STATE_NAMES)


def _is_moment(value: Any) -> bool:
    if value is None:
        return True
    try:
        return type(value) is str and datetime.fromisoformat(value).tzinfo is None
    except ValueError:
        return False


def _is_parameters(value: Any) -> bool:
    return type(value) is list and all(type(one) is list and len(one) == 3 and _is_text(one[0]) and _is_text(one[2]) for one in value)


def _is_intermediate(value: Any) -> bool:
    return type(value) is list and all(type(one) is list and len(one) == 2 and _is_integer(one[0]) and _is_number(one[1]) for one in value)


def _is_sampler(value: Any) -> bool:
    return _is_map(value) and _is_map(value.get("changed")) and _is_texts(value.get("gone"))


def _is_numbers_by_name(value: Any) -> bool:
    return _is_map(value) and all(map(_is_id, value.values()))


_ID = ("an integer of at least 0", _is_id)
_TEXT = ("a text", _is_text)
_MAP = ("a map", _is_map)
_FLAG = ("a boolean", _is_flag)
_VALUE = ("a value", _is_anything)
_TIME = ("a time in ISO 8601 without a zone, or nil", _is_moment)
_STATE = ("a state from 0 to 4", _is_state)
_VALUES = ("an array of numbers, or nil", _is_values)
_SAMPLER = ("changed, a map, and gone, an array of texts", _is_sampler)

Check = tuple[str, Callable[[Any], bool]]
_TRIAL: dict[str, Check] = {
    "state": _STATE,
    "values": _VALUES,
    "started_at": _TIME,
    "finished_at": _TIME,
    "params": ("an array of [name, value, distribution]", _is_parameters),
    "user_attrs": _MAP,
    "system_attrs": _MAP,
    "intermediate": ("an array of [step, value]", _is_intermediate),
}
_ATTRIBUTE: dict[str, Check] = {"key": _TEXT, "value": _VALUE}
_MEMBERS: dict[str, dict[str, Check]] = {
    "create_study": {"study": _ID, "name": _TEXT, "directions": ("an array of 1 and 2", _is_directions)},
    "delete_study": {"study": _ID},
    "study_user_attr": {"study": _ID, **_ATTRIBUTE},
    "study_system_attr": {"study": _ID, **_ATTRIBUTE},
    "begin_trial": {"study": _ID, "trial": _ID, "at": _TIME},
    "create_trial": {"study": _ID, "trial": _ID, **_TRIAL},
    "param": {"trial": _ID, "name": _TEXT, "value": ("a number", _is_number), "distribution": _TEXT},
    "intermediate": {"trial": _ID, "step": ("an integer", _is_integer), "value": ("a number", _is_number)},
    "user_attr": {"trial": _ID, **_ATTRIBUTE},
    "system_attr": {"trial": _ID, **_ATTRIBUTE},
    "state": {"trial": _ID, "state": _STATE, "values": _VALUES, "at": _TIME},
    "sampler": {"study": _ID, "changed": _MAP, "gone": ("an array of texts", _is_texts)},
    TAKE_BACK: {"after": _ID},
    MERGED: {
        "ended": ("an array of texts", _is_texts),
        "through": ("a map to integers of at least 0", _is_numbers_by_name),
        "count": _ID,
        "next_study": _ID,
        "next_trial": _ID,
    },
}
_OPTIONAL: dict[str, dict[str, Check]] = {
    "create_trial": {"writer": _TEXT},
    "state": {"lost": _FLAG, "sampler": _SAMPLER},
}
_SHARED: dict[str, Check] = {"turn": _ID, "numbered": _FLAG}
_NO_MEMBERS: dict[str, Check] = {}
_MISSING = object()


def check_record(record: Any, where: str, *, is_shared: bool = False) -> None:
    """Check one record by itself; with `is_shared` as one of a study that has many writers.

    Raises:
        CorruptError: it is not as spec 18 says (E058).
    """
    if type(record) is not dict or type(record.get("op")) is not str:
        raise violation("E058", where, "record of a study is wrong", expected="a map with op", found=record)
    op = record["op"]
    if is_shared:
        _check_members(record, _SHARED, where)
    members = _MEMBERS.get(op)
    if members is None:
        return
    _check_members(record, members, where)
    for name, (expected, is_right) in _OPTIONAL.get(op, _NO_MEMBERS).items():
        if name in record and not is_right(record[name]):
            raise _wrong(record, name, expected, where)
    if "provisional" in record and type(record["provisional"]) is not bool:
        raise _wrong(record, "provisional", "a boolean", where)
    if op == "param":
        _check_parameter(record["name"], record["value"], record["distribution"], where)
    elif op == "create_trial":
        for name, value, text in record["params"]:
            _check_parameter(name, value, text, where)


def _check_members(record: Record, members: Mapping[str, Check], where: str) -> None:
    for name, (expected, is_right) in members.items():
        if not is_right(record.get(name, _MISSING)) or name not in record:
            raise _wrong(record, name, expected, where)


def _check_parameter(name: str, value: Any, text: str, where: str) -> None:
    domain = find_domain(text)
    if domain is None:
        raise violation("E058", where, f"distribution of parameter {name!r} is wrong", expected="Optuna's JSON of one", found=text)
    expected = domain.find_problem(value)
    if expected is not None:
        raise violation("E058", where, f"value of parameter {name!r} is wrong", expected=expected, found=value)


def _wrong(record: Record, name: str, expected: str, where: str) -> Exception:
    found = record.get(name, "nothing")
    return violation("E058", where, f"member {name} of a record {record['op']} is wrong", expected=expected, found=found)


def find_stranger(record: Record, studies: Collection[int], trials: Collection[int]) -> str | None:
    """Return what a record names that is not there, or makes that is there already; None if it fits. `record` was checked."""
    op, study, trial = record["op"], record.get("study"), record.get("trial")
    if op not in _MEMBERS:
        return None
    members = _MEMBERS[op]
    if op == "create_study":
        return f"study {study} again" if study in studies else None
    if "study" in members and study not in studies:
        return f"study {study}, which is not there"
    if op in ("begin_trial", "create_trial"):
        return f"trial {trial} again" if trial in trials else None
    return f"trial {trial}, which is not there" if "trial" in members and trial not in trials else None


def stranger_error(record: Record, stranger: str, where: str) -> Exception:
    """Return the error for a record that does not fit what came before."""
    return violation("E059", where, f"record {record['op']} does not fit those before", expected="ids that are there", found=stranger)


def settled(records: Iterable[tuple[int, Any]], where: str) -> list[tuple[int, Any]]:
    """Return those records of a study with one writer that count: none that was taken back, and no provisional ones at the end.

    Raises:
        CorruptError: a record is not as spec 18 says (E058).
    """
    kept: list[tuple[int, Any]] = []
    for number, record in records:
        check_record(record, f"{where}: record {number}")
        if record["op"] == TAKE_BACK:
            while kept and kept[-1][0] > record["after"]:
                kept.pop()
        else:
            kept.append((number, record))
    while kept and kept[-1][1].get("provisional"):
        kept.pop()
    return kept
