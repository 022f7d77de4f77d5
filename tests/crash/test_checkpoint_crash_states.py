"""P1, P2 and P3 after a kill or a power cut: every state that one leaves of a save or a deletion, read by the real reader.

States are those of the weak model, where directory entries reach the disk in any order; the ordered model's are among them or are
checked beside them. Spec 5 has the crash table whose rows are tests here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from ckptfmt.disk.memory import MemoryDisk
from ckptfmt.format.layout import MANIFEST_NAME, is_data_name, is_temporary_name
from tests.crash.checkpoint_check import CrashCheck, load_or_none
from tests.crash.checkpoint_product import load_product
from tests.crash.checkpoint_states import is_same
from tests.crash.checkpoint_workloads import TARGET, another_save, count_operations, killed_at, unsynced_bases, workloads

PRODUCT = load_product()
TENSOR_COUNT = 6

# How many distinct states there are at least, so that a change of the protocol or of the engine cannot thin them out unseen.
LEAST_STATES = {
    "first save": 3_000,
    "first save below missing directories": 3_000,
    "overwrite": 3_500,
    "overwrite with the same state": 3_500,
    "save with a base": 2_000,
    "save with a base, copied": 3_000,
    "overwrite with a base": 2_500,
    "overwrite with itself as base": 650,
    "compress": 3_900,
    "decompress": 5_500,
    "first save by two processes": 1_500,
    "overwrite by two processes": 2_000,
    "save by two processes with a base": 2_000,
    "compress with a base": 3_000,
    "compress with a base, not linked": 3_000,
    "decompress with a base": 3_000,
    "delete": 200,
    "delete what shares files": 200,
}


def test_the_states_of_all_workloads_are_more_than_twenty_thousand() -> None:
    assert set(LEAST_STATES) == set(workloads(TENSOR_COUNT))
    assert sum(LEAST_STATES.values()) > 20_000


# Their states take a minute; some of them are tried each time, and all of them with the slow tests.
ENCODING = [name for name in LEAST_STATES if "compress" in name]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in ENCODING else [], id=name) for name in LEAST_STATES]
)
def test_every_crash_leaves_the_old_or_the_new_and_a_directory_that_can_be_saved_into(name: str) -> None:
    check = CrashCheck(PRODUCT, workloads(TENSOR_COUNT)[name])
    count = 0
    for state in check.states(weak=True):
        check.check(state)
        count += 1
    assert count >= LEAST_STATES[name]
    for state in check.states(weak=False):
        check.check(state)


@pytest.mark.parametrize("name", ENCODING)
def test_no_crash_in_a_sample_while_encoding_leaves_less(name: str) -> None:
    check = CrashCheck(PRODUCT, workloads(TENSOR_COUNT)[name])
    for is_weak in (True, False):
        for state in check.states(weak=is_weak, limit=600):
            check.check(state)


@pytest.mark.parametrize("name", unsynced_bases(TENSOR_COUNT))
def test_a_save_is_durable_also_where_its_base_is_not(name: str) -> None:
    check = CrashCheck(PRODUCT, unsynced_bases(TENSOR_COUNT)[name])
    for state in check.states(weak=True, limit=2_000):
        check.check(state)


AFTER_KILLS = [
    ("first save below missing directories", "another save"),
    ("overwrite", "another save"),
    ("overwrite", "delete"),
    ("overwrite with itself as base", "another save"),
    ("overwrite by two processes", "another save"),
    ("delete", "another save"),
]


@pytest.mark.parametrize(("name", "attempted"), AFTER_KILLS)
def test_a_power_cut_during_work_that_follows_a_kill_leaves_what_was_there_or_what_was_attempted(name: str, attempted: str) -> None:
    assert check_after_kills(name, attempted, limit_per_cut=3) > 200


@pytest.mark.slow
@pytest.mark.parametrize(("name", "attempted"), AFTER_KILLS)
def test_no_power_cut_during_work_that_follows_a_kill_breaks_a_promise(name: str, attempted: str) -> None:
    assert check_after_kills(name, attempted, limit_per_cut=None) > 2_000


def check_after_kills(name: str, attempted: str, *, limit_per_cut: int | None) -> int:
    """Kill an attempt at every operation, do the work after it, cut the power in that; return the number of states."""
    workload = workloads(1)[name]
    attempt = replace({**workloads(1), "another save": another_save(workload.target)}[attempted], prepare=workload.prepare)
    count = 0
    for operation in range(1, count_operations(PRODUCT, attempt) + 1):
        check = CrashCheck(PRODUCT, killed_at(workload, attempt, operation))
        for state in check.states_after_kill(limit_per_cut=limit_per_cut):
            check.check(state)
            count += 1
    return count


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", LEAST_STATES)
def test_no_sample_of_the_states_of_a_large_checkpoint_breaks_a_promise(name: str, seed: int) -> None:
    check = CrashCheck(PRODUCT, workloads(12)[name])
    for state in check.states(weak=True, seed=seed):
        check.check(state)


@dataclass(frozen=True)
class Files:
    """The files of the checkpoint's directory in one state, those that the work found, and those that it left."""

    contents: dict[str, bytes]
    old: dict[str, bytes]
    new: dict[str, bytes]

    def has(self, expected: dict[str, bytes]) -> bool:
        """Tell whether all of these are there, whole; the manifest aside, which has one name in both."""
        return all(self.contents.get(name) == content for name, content in expected.items() if name != MANIFEST_NAME)

    @property
    def names(self) -> set[str]:
        """The names that are there."""
        return set(self.contents)

    @property
    def is_new_visible(self) -> bool:
        """Whether the new manifest is there."""
        return MANIFEST_NAME in self.new and self.contents.get(MANIFEST_NAME) == self.new[MANIFEST_NAME]


def _is_in_progress(files: Files) -> bool:
    known = {name for name in files.names if is_temporary_name(name) or is_data_name(name) or name == MANIFEST_NAME}
    return files.has(files.old) and not files.is_new_visible and files.names == known


@dataclass(frozen=True)
class Row:
    """One row of the crash table: in which work it is shown, what readers see in some state each, and what is on disk."""

    workload: str
    seen: set[str]
    is_on_disk: Callable[[Files], bool]


ROWS = {
    "C1, an empty directory or none": Row("first save", {"none"}, lambda files: not files.names),
    "C2, in a first save": Row("first save", {"none"}, _is_in_progress),
    "C2, in an overwrite": Row("overwrite", {"old"}, _is_in_progress),
    "C3, in a first save": Row("first save", {"none"}, lambda files: files.has(files.new) and not files.is_new_visible),
    "C3, in an overwrite": Row("overwrite", {"old"}, lambda files: files.has(files.new) and _is_in_progress(files)),
    "C4, in a first save": Row("first save", {"none"}, lambda files: files.has(files.new) and not files.is_new_visible),
    "C4, in an overwrite": Row("overwrite", {"old"}, lambda files: files.has(files.new) and _is_in_progress(files)),
    "C5, in a first save": Row("first save", {"none", "new"}, lambda files: files.has(files.new)),
    "C5, in an overwrite": Row("overwrite", {"old", "new"}, lambda files: files.has(files.new) and files.has(files.old)),
    "C6, the new manifest and old files": Row(
        "overwrite", {"new"}, lambda files: files.has(files.new) and files.has(files.old) and files.is_new_visible
    ),
    "C7, the new manifest and some old files": Row("overwrite", {"new"}, lambda files: files.has(files.new) and files.is_new_visible),
    "C8, every data file": Row("delete", {"old", "none"}, lambda files: files.has(files.old)),
    "C9, no manifest": Row("delete", {"none"}, lambda files: MANIFEST_NAME not in files.names),
}


@pytest.mark.parametrize("title", ROWS)
def test_row_of_the_crash_table(title: str) -> None:
    row = ROWS[title]
    workload = workloads(2)[row.workload]
    check = CrashCheck(PRODUCT, workload)
    old, new = _files(MemoryDisk(check.initial)), _files(check.finished)
    seen = set()
    states = check.states_by_row()[title.partition(",")[0]]
    for state in states:
        files = Files(_files(state.disk), old, new)
        assert row.is_on_disk(files), state.description
        found = load_or_none(PRODUCT, state.disk, TARGET)
        seen.add("none" if found is None else "old" if workload.old and is_same(found, workload.old) else "new")
        check.check(state)
    assert seen == row.seen
    assert states


def test_all_rows_of_the_crash_table_have_a_test() -> None:
    assert {title.partition(",")[0] for title in ROWS} == {f"C{number}" for number in range(1, 10)}


def _files(disk: MemoryDisk) -> dict[str, bytes]:
    prefix = f"{TARGET}/"
    return {path.removeprefix(prefix): content or b"" for path, content in disk.contents().items() if path.startswith(prefix)}
