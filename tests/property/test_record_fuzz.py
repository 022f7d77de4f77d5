"""Records of progress and studies that are framed well and hold anything: read, or refused by a typed error with its place."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ckptfmt
from ckptfmt.adapters.optuna_journal import StudyJournal, read_studies
from ckptfmt.adapters.optuna_sampler import restore_sampler
from ckptfmt.adapters.optuna_shared import SharedLog
from ckptfmt.adapters.optuna_storage import new_storage
from ckptfmt.disk.memory import MemoryDisk
from ckptfmt.disk.protocol import LockState
from ckptfmt.errors import CorruptError, FormatError
from ckptfmt.format.packed import pack
from ckptfmt.run.journal import Journal
from ckptfmt.run.progress import Progress
from ckptfmt.run.progress_reader import summarise_progress, verify_progress
from ckptfmt.run.study_reader import summarise_studies, verify_studies
from tests.conformance import cases_progress, cases_studies

PATH = "/there"
WRITER = f"{PATH}/writers/0123456789abcdef"
SHARED = f"{PATH}/{cases_studies.WRITERS[0]}"

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=8) | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6) | st.just("$tuple"), inner, max_size=4),
    max_leaves=12,
)


def journal(path: str, records: list[Any]) -> MemoryDisk:
    disk = MemoryDisk()
    with Journal.open_for_append(disk, path) as opened:
        for record in records:
            opened.append(record)
    return disk


def places_of(record: Any) -> list[list[Any]]:
    """Return the paths to everything in a record."""
    found: list[list[Any]] = [[]]
    members = record.items() if isinstance(record, dict) else enumerate(record) if isinstance(record, list) else ()
    for key, member in members:
        found += [[key, *rest] for rest in places_of(member)]
    return found


def replaced(record: Any, place: list[Any], value: Any) -> Any:
    if not place:
        return value
    copy = dict(record) if isinstance(record, dict) else list(record)
    copy[place[0]] = replaced(copy[place[0]], place[1:], value)
    return copy


@st.composite
def changed(draw: st.DrawFn, records: list[Any], *, fixed: int) -> list[Any]:
    """Draw sound records with one part of one of them changed, missing, or of another record; the first ones stay."""
    index = draw(st.integers(fixed, len(records) - 1))
    place = draw(st.sampled_from(places_of(records[index])))
    if place and isinstance(place[-1], str) and draw(st.booleans()):
        holder: Any = records[index]
        for key in place[:-1]:
            holder = holder[key]
        value = {key: member for key, member in holder.items() if key != place[-1]}
        place = place[:-1]
    else:
        value = draw(plain | st.sampled_from([0, 1, 4, 5, -1, 10**18, float("nan"), "", [], {}, b""]))
    return [*records[:index], replaced(records[index], place, value), *records[index + 1 :]]


def assert_typed(error: FormatError) -> None:
    """An error that says where, with its rule, and what was expected or found."""
    assert error.rule is not None
    assert error.rule in str(error)
    assert PATH in str(error)


PROGRESS_RECORDS = [
    ["begin", 1.0, cases_progress.fingerprint()],
    ["total", 2.0, 7],
    cases_progress.done(
        ["key", 1], 3.0, {"$tuple": [1, {"$tensor": [0, "numpy", {}]}]}, {"loss": 0.5}, {"tensors": [["float32", [1], b"abcd"]]}
    ),
    ["fail", "b", 4.0, 1, "ValueError"],
    cases_progress.done(2, 5.0, "text"),
]
CONTENT = [{"$tuple": [1, {"$tensor": [0, "numpy", {}]}]}, {"loss": 0.5}, {"tensors": [["float32", [1], b"abcd"]], "state": {"unit": "a"}}]


def use_progress(disk: MemoryDisk) -> None:
    with Progress(disk, PATH, "work", fingerprint=ckptfmt.Fingerprint(config={}), allow_changes="*") as progress:
        assert progress.completed == len(progress.results())
        assert (progress.aggregate, progress.failed, progress.bar()) is not None
        progress.done("mine", 1)


def check_progress(records: list[Any]) -> None:
    disk = journal(WRITER, records)
    findings = verify_progress(disk, PATH)
    for use in (lambda: summarise_progress(disk, PATH), lambda: use_progress(disk)):
        try:
            use()
        except ckptfmt.CheckpointNotFoundError:
            assert any(finding.rule == "E012" for finding in findings)
        except FormatError as error:
            assert_typed(error)
            assert any(finding.level == "error" for finding in findings)


@settings(deadline=None)
@given(changed(PROGRESS_RECORDS, fixed=0))
def test_a_changed_record_of_a_progress_is_read_or_refused(records: list[Any]) -> None:
    check_progress(records)


@settings(deadline=None)
@given(changed([CONTENT], fixed=0))
def test_changed_content_of_a_unit_is_read_or_refused(contents: list[Any]) -> None:
    check_progress([["done", 1, 2.0, pack(contents[0])]])


STUDY_RECORDS = [
    cases_studies.CREATE,
    {"op": "study_user_attr", "study": 0, "key": "a", "value": {"$tuple": [1]}},
    {"op": "sampler", "study": 0, "changed": {"sampler": "RandomSampler", "pruner": "NopPruner"}, "gone": []},
    cases_studies.begin(0),
    cases_studies.param(0),
    cases_studies.param(0, "kind", 1, cases_studies.distribution("Categorical", choices=["a", None])),
    {"op": "intermediate", "trial": 0, "step": 3, "value": 0.5},
    {"op": "system_attr", "trial": 0, "key": "cma:optimizer:0", "value": "80"},
    cases_studies.state(0, 1, [0.5], sampler={"changed": {}, "gone": []}),
    cases_studies.whole(1, 1, values=[1.5], params=[["x", 0.5, cases_studies.X]], intermediate=[[0, 1.0]], user_attrs={"a": 1}),
    cases_studies.whole(2, 4),
    cases_studies.state(2, 0),
    {"op": "take_back", "after": 11},
]


def use_study(disk: MemoryDisk) -> None:
    read_studies(disk, PATH)
    log = StudyJournal(disk, PATH)
    try:
        use_storage(log)
    finally:
        log.close()


def use_storage(log: Any) -> None:
    """Do what Optuna does with a storage."""
    storage = new_storage(log)
    for found in storage.get_all_studies():
        study = optuna.load_study(storage=storage, study_name=found.study_name, sampler=optuna.samplers.RandomSampler(seed=1))
        trial = study.ask()
        trial.suggest_int("mine", 1, 9)
        study.tell(trial, [0.5] * len(study.directions))
        assert len(study.get_trials()) == len(study.trials) > 0


def check_study(disk: MemoryDisk, use: Any) -> None:
    findings = verify_studies(disk, PATH)
    for look in (lambda: summarise_studies(disk, PATH), lambda: use(disk)):
        try:
            look()
        except FormatError as error:
            assert_found(error, findings)


def assert_found(error: FormatError, findings: Any) -> None:
    assert_typed(error)
    # What only Optuna knows to be wrong is left to it.
    assert any(finding.level == "error" for finding in findings) or "Error: " in str(error)


def quiet(test: Any) -> Any:
    return pytest.mark.filterwarnings("ignore:trial .* optimizer is left out")(settings(deadline=None)(test))


@quiet
@given(changed(STUDY_RECORDS, fixed=0))
def test_a_changed_record_of_a_study_is_read_or_refused(records: list[Any]) -> None:
    check_study(journal(PATH, records), use_study)


@quiet
@given(changed([{**record, "turn": turn, "numbered": True} for turn, record in enumerate(STUDY_RECORDS[:-1], 1)], fixed=0))
def test_a_changed_record_of_a_shared_study_is_read_or_refused_from_then_on(records: list[Any]) -> None:
    disk = journal(SHARED, records)

    def use(disk: MemoryDisk) -> None:
        log = SharedLog(disk, PATH, durable=False)
        try:
            use_storage(log)
        finally:
            log.close()

    check_study(disk, use)


def test_a_record_that_cannot_be_applied_is_refused_by_readers_that_were_there_before_too() -> None:
    disk = journal(SHARED, [{**cases_studies.CREATE, "turn": 1, "numbered": True}])
    alive = disk.open_directory(SHARED)
    assert alive.try_lock() is LockState.HELD
    reader = SharedLog(disk, PATH, durable=False)
    with Journal.open_for_append(disk, SHARED) as opened:
        opened.append({**cases_studies.param(0), "turn": 2, "numbered": "no"})
        opened.append({**cases_studies.begin(0), "turn": 2, "numbered": True})
    for _ in range(3):
        with pytest.raises(CorruptError, match=r"record 2: member numbered of a record param is wrong: expected a boolean, found no"):
            new_storage(reader).get_all_trials(0)
    reader.close()


STATES = {
    "words": ("sampler._rng.words", [None, b"", b"123", 7, [1] * 624, b"\0" * 2496]),
    "position": ("sampler._rng.position", [None, [], ["MT19937", "a", 0, 0.0], ["PCG64", 1, 0, 0.0], ["MT19937", 10**9, 0, 0.0]]),
}


@pytest.mark.parametrize("changed", STATES)
def test_a_wrong_state_of_a_sampler_is_refused_or_left(changed: str) -> None:
    path, values = STATES[changed]
    from ckptfmt.adapters.optuna_sampler import SamplerWatch

    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    study.sample = study.ask().suggest_float("x", 0, 1)  # type: ignore[attr-defined]
    sound = SamplerWatch().take(study)
    for value in values:
        try:
            restore_sampler(study, {**sound, path: value}, where=PATH)
        except CorruptError as error:
            assert_typed(error)
        study.ask().suggest_float("x", 0, 1)
