"""Looking at studies from outside, without Optuna: verifying and summing up, while somebody works on them or nobody does. Spec 18.

Nothing is locked and nothing is written. Attributes stay in packed form; only what tells feasible trials from others is looked into.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ckptfmt.checkpoint.verify import Finding
from ckptfmt.disk.paths import join
from ckptfmt.disk.protocol import Disk
from ckptfmt.errors import CheckpointNotFoundError, FormatError
from ckptfmt.format.rules import located
from ckptfmt.run.journal_reader import read_journal, verify_journal
from ckptfmt.run.study_ledger import StudyLedger, StudyRow, TrialRow
from ckptfmt.run.study_records import ATTRIBUTE_OPS, COMPLETE, MAXIMIZE, MINIMIZE, STATE_NAMES, Record, check_record, settled
from ckptfmt.run.study_writers import StudyWriters, has_turn, writer_names
from ckptfmt.state.pause import collector_paused
from ckptfmt.state.tree import outline_state

_DIRECTIONS = {MINIMIZE: "minimize", MAXIMIZE: "maximize"}
_CONSTRAINTS = "constraints"


@dataclass(frozen=True, slots=True)
class TrialSummary:
    """One trial as it is shown. Times are as Optuna has them: local, without a zone. `values` may be known before it is complete."""

    number: int
    state: str
    values: tuple[int | float, ...] | None
    params: dict[str, Any]
    started_at: str | None
    finished_at: str | None
    last_intermediate: tuple[int, int | float] | None
    is_lost: bool


@dataclass(frozen=True, slots=True)
class StudySummary:
    """Where a study stands. `states` counts trials; `lost` those that failed with their process; `best` are the best feasible trial, or
    all that no other dominates where there are several directions; `last` are the newest, oldest first.
    """

    name: str
    directions: tuple[str, ...]
    trial_count: int
    states: dict[str, int]
    lost: int
    best: tuple[TrialSummary, ...]
    last: tuple[TrialSummary, ...]
    sampler: str | None
    pruner: str | None


def is_shared_study(disk: Disk, path: str) -> bool:
    """Tell whether a directory holds studies that many processes share."""
    try:
        # A copy may lack the empty directory.
        return has_turn(disk, path) or bool(writer_names(disk, path))
    except (FileNotFoundError, NotADirectoryError):
        return False


def is_study(disk: Disk, path: str) -> bool:
    """Tell whether a directory holds studies. A journal does if it is sound and its first record creates one."""
    if is_shared_study(disk, path):
        return True
    try:
        first = next(read_journal(disk, path).iter_records(), None)
    except (CheckpointNotFoundError, FormatError):
        return False
    return first is not None and type(first[1]) is dict and first[1].get("op") == "create_study"


def summarise_studies(disk: Disk, path: str, *, last_count: int = 5) -> tuple[StudySummary, ...]:
    """Sum up the studies under a path, in the order in which they were made.

    Raises:
        CheckpointNotFoundError: there is nothing.
        CorruptError: acknowledged records are missing or disturbed, or are none of a study.
    """
    with collector_paused():
        ledger = _read_shared(disk, path) if is_shared_study(disk, path) else _read_single(disk, path)
    return tuple(_summarised(study, last_count) for study in ledger.studies.values())


def _read_single(disk: Disk, path: str) -> StudyLedger:
    ledger = StudyLedger()
    for number, record in settled(read_journal(disk, path).iter_records(), path):
        ledger.add(record, f"{path}: record {number}")
    return ledger


def _read_shared(disk: Disk, path: str) -> StudyLedger:
    ledger = StudyLedger()
    writers = StudyWriters(disk, path)
    try:
        for writer, number, record in writers.read(is_alone=True).records:
            ledger.add(record, f"{join(path, writer)}: record {number}", is_shared=True)
    finally:
        writers.close()
    return ledger


def _summarised(study: StudyRow, last_count: int) -> StudySummary:
    counts = Counter(trial.state for trial in study.trials)
    sampler, pruner = (study.sampler.get(part) for part in ("sampler", "pruner"))
    return StudySummary(
        name=study.name,
        directions=tuple(_DIRECTIONS[direction] for direction in study.directions),
        trial_count=len(study.trials),
        states={name: counts[state] for state, name in enumerate(STATE_NAMES) if counts[state]},
        lost=sum(trial.is_lost for trial in study.trials),
        best=tuple(map(_shown, _find_best(study))),
        last=tuple(map(_shown, study.trials[-last_count:] if last_count else [])),
        sampler=sampler if type(sampler) is str else None,
        pruner=pruner if type(pruner) is str else None,
    )


def _shown(trial: TrialRow) -> TrialSummary:
    last = max(trial.intermediate.items(), key=lambda item: item[0], default=None)
    values = None if trial.values is None else tuple(trial.values)
    state = STATE_NAMES[trial.state]
    return TrialSummary(trial.number, state, values, trial.shown_params, trial.started_at, trial.finished_at, last, trial.is_lost)


def _find_best(study: StudyRow) -> list[TrialRow]:
    """Return the best trials that keep all constraints, those of earlier numbers first."""
    count = len(study.directions)
    ranked = []
    for trial in study.trials:
        if trial.state == COMPLETE and trial.values is not None and len(trial.values) == count and _is_feasible(trial):
            losses = tuple(-value if way == MAXIMIZE else value for value, way in zip(trial.values, study.directions, strict=True))
            if not any(loss != loss for loss in losses):
                ranked.append((losses, trial.number))
    # In this order only an earlier one can dominate a later one.
    front: list[tuple[tuple[float, ...], int]] = []
    for losses, number in sorted(ranked):
        if not any(other != losses and all(one <= loss for one, loss in zip(other, losses, strict=True)) for other, _ in front):
            front.append((losses, number))
            if count == 1:
                break
    return [study.trials[number] for number in sorted(number for _, number in front)]


def _is_feasible(trial: TrialRow) -> bool:
    """Tell whether no constraint is above zero, as Optuna keeps them in system attributes."""
    values = [value for key, value in trial.system_attrs.items() if key.startswith(f"{_CONSTRAINTS}:")]
    together = trial.system_attrs.get(_CONSTRAINTS)
    if type(together) is dict:
        together = together.get("$tuple")
    values += together if type(together) is list else []
    return all(value <= 0 for value in values if type(value) in (int, float))


def verify_studies(disk: Disk, path: str) -> tuple[Finding, ...]:
    """Return everything that is wrong with studies: their journals and their records. Never raises because of damage."""
    findings: list[Finding] = []
    ledger, is_shared = StudyLedger(), is_shared_study(disk, path)
    if not is_shared:
        findings += verify_journal(disk, path)
        if all(finding.level != "error" for finding in findings):
            findings += _verify_records(ledger, read_journal(disk, path).iter_records(), path)
        return tuple(findings)
    writers = StudyWriters(disk, path)
    try:
        records = writers.read(is_alone=True).records
    except FormatError as error:
        findings.append(_finding(error, path))
        records = []
    finally:
        writers.close()
    ended = writers.merge.ended if writers.merge is not None else frozenset()
    for name in writer_names(disk, path):
        if name not in ended:
            known = {finding.message for finding in findings}
            findings += [finding for finding in verify_journal(disk, join(path, name)) if finding.message not in known]
    for writer, number, record in records:
        findings += _verify_record(ledger, record, f"{join(path, writer)}: record {number}", join(path, writer), is_shared=True)
    return tuple(findings)


def _verify_records(ledger: StudyLedger, records: Iterator[tuple[int, Any]], path: str) -> list[Finding]:
    """Check each record by itself, and if all are right, that each fits those before."""
    findings: list[Finding] = []
    checked: list[tuple[int, Any]] = []
    for number, record in records:
        try:
            check_record(record, f"{path}: record {number}")
            checked.append((number, record))
        except FormatError as error:
            findings.append(_finding(error, path))
    if not findings:
        for number, record in settled(checked, path):
            findings += _verify_record(ledger, record, f"{path}: record {number}", path, is_shared=False)
    return findings


def _verify_record(ledger: StudyLedger, record: Record, where: str, path: str, *, is_shared: bool) -> list[Finding]:
    try:
        ledger.add(record, where, is_shared=is_shared)
        for tree in _attributes_of(record):
            _check_attribute(tree, where)
    except FormatError as error:
        return [_finding(error, path)]
    return []


def _check_attribute(tree: Any, where: str) -> None:
    try:
        outline_state(tree, _no_tensor)
    except FormatError as error:
        raise located(error, where) from error


def _attributes_of(record: Record) -> list[Any]:
    if record["op"] == "create_trial":
        return [*record["user_attrs"].values(), *record["system_attrs"].values()]
    return [record["value"]] if record["op"] in ATTRIBUTE_OPS else []


def _finding(error: FormatError, path: str) -> Finding:
    # What is wrong with a file names it; of a record, the journal that holds it.
    path = error.path if error.path is not None and error.path.endswith(".journal") else path
    return Finding(error.rule or "E058", "error", path, None, error.expected, error.found, str(error).partition("\n")[0])


def _no_tensor(_: int) -> Any:
    raise LookupError
