"""Studies, progress and history in the mirror: copied by records, brought back by a fresh machine, whatever became of the drive."""

from __future__ import annotations

import shutil
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

import ckptfmt
from ckptfmt.disk.local import LocalDisk
from ckptfmt.run import journal_copy, mirror
from ckptfmt.run.journal import Journal
from ckptfmt.run.journal_copy import JournalCopy
from ckptfmt.run.journal_reader import read_journal, verify_journal
from tests.drive import Drive

optuna.logging.set_verbosity(optuna.logging.WARNING)


@pytest.fixture
def drive(tmp_path: Path) -> Drive:
    return Drive(LocalDisk(), str(tmp_path / "drive"))


def opened(tmp_path: Path, disk: Any, name: str = "run", **options: Any) -> ckptfmt.Run:
    return ckptfmt.Run(tmp_path / name, mirror=tmp_path / "drive", _disk=disk, **options)


def opened_after_a_loss(tmp_path: Path, disk: Any, match: str) -> ckptfmt.Run:
    shutil.rmtree(tmp_path / "run")
    with pytest.warns(RuntimeWarning, match=match):
        return opened(tmp_path, disk)


def objective(trial: optuna.Trial) -> float:
    return float(trial.suggest_float("x", -1, 1) ** 2)


def search(run: ckptfmt.Run, total: int) -> optuna.Study:
    study: optuna.Study = run.study("width", direction="minimize", sampler=optuna.samplers.TPESampler(seed=1, n_startup_trials=3))
    ckptfmt.optimize(study, objective, n_trials=total)
    return study


def test_a_study_without_any_checkpoint_goes_on_at_a_fresh_machine_as_if_nothing_had_happened(tmp_path: Path, drive: Drive) -> None:
    with ckptfmt.Run(tmp_path / "undisturbed") as run:
        expected = [trial.params for trial in search(run, 12).trials]
    with opened(tmp_path, drive) as run:
        search(run, 7)
    with opened_after_a_loss(tmp_path, drive, "brought from the mirror: studies width") as run:
        study = search(run, 12)
        assert [trial.params for trial in study.trials] == expected
    assert [trial.params for trial in ckptfmt.load_study(tmp_path / "drive/studies/width").trials] == expected


def test_units_their_states_and_the_history_come_back(tmp_path: Path, drive: Drive) -> None:
    with opened(tmp_path, drive) as run:
        progress = run.progress("folds", total=3)
        progress.done("a", np.arange(400_000), {"loss": 1.0}, state={"w": np.full(3, 7)})
        progress.fail("b", "no luck")
        run.progress("others").done(("x", 1))
        run.log(5, {"loss": 0.5})
    assert not list((tmp_path / "drive").rglob("*.claims"))
    with opened_after_a_loss(tmp_path, drive, "progress folds, progress others") as run:
        progress = run.progress("folds", total=3)
        assert np.array_equal(progress.result("a"), np.arange(400_000))
        assert ckptfmt.load(progress.state_path("a") or "")["w"].tolist() == [7, 7, 7]
        assert run.progress("others").is_done(("x", 1))
        assert [row["loss"] for row in run.history()] == [0.5]


def test_what_is_finished_is_there_within_the_time_between_looks(tmp_path: Path, drive: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "LOOK_SECONDS", 0.05)
    with opened(tmp_path, drive) as run:
        run.progress("calls").done("a", 1)
        deadline = time.monotonic() + 20
        while not list((tmp_path / "drive").rglob("*.journal")) and time.monotonic() < deadline:
            time.sleep(0.02)
        shutil.copytree(tmp_path / "drive", tmp_path / "seen")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        with ckptfmt.Run(tmp_path / "fresh", mirror=tmp_path / "seen") as run:
            assert run.progress("calls").results() == {"a": 1}


def test_a_drive_that_is_away_gets_the_records_later_and_the_status_names_what_is_not_there(tmp_path: Path, drive: Drive) -> None:
    with opened(tmp_path, drive) as run:
        progress = run.progress("calls")
        progress.done("a")
        run.wait_until_finished()
        drive.is_away = True
        progress.done("b")
        run.wait_until_finished()
        status = run.mirror_status()
        assert status is not None
        assert status.pending_journals == ("progress/calls",)
        assert "the drive is away" in (status.last_error or "")
        drive.is_away = False
        run.wait_until_finished()
        assert run.mirror_status() == ckptfmt.MirrorStatus(str(tmp_path / "drive"), (), (), None)
    with opened_after_a_loss(tmp_path, drive, "progress calls") as run:
        assert sorted(run.progress("calls").results()) == ["a", "b"]


def test_a_damaged_copy_is_kept_aside_and_made_anew_from_the_run(tmp_path: Path, drive: Drive) -> None:
    with opened(tmp_path, drive) as run:
        for number in range(20):
            run.progress("calls").done(number)
        run.wait_until_finished()
    (segment,) = (tmp_path / "drive").rglob("progress/**/segment-*.journal")
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.unlink()
    segment.write_bytes(data)
    with opened(tmp_path, drive) as run:
        run.progress("calls").done(20)
    assert list((tmp_path / "drive").rglob("set-aside-*.journal"))
    with opened_after_a_loss(tmp_path, drive, "progress calls") as run:
        assert sorted(run.progress("calls").results()) == list(range(21))


def test_a_damaged_copy_gives_a_fresh_machine_what_is_sound(tmp_path: Path, drive: Drive) -> None:
    with opened(tmp_path, drive) as run:
        for number in range(20):
            run.progress("calls").done(number)
            run.wait_until_finished() if number == 9 else None
    segment = sorted((tmp_path / "drive").rglob("progress/**/segment-*.journal"))[-1]
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.unlink()
    segment.write_bytes(data)
    shutil.rmtree(tmp_path / "run")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run = opened(tmp_path, drive)
    assert any("The run goes on with the" in str(warning.message) for warning in caught)
    with run:
        assert set(range(10)) <= set(run.progress("calls").results()) < set(range(20))


def test_a_unit_whose_checkpoint_is_damaged_in_the_mirror_is_done_again(tmp_path: Path, drive: Drive) -> None:
    with opened(tmp_path, drive) as run:
        progress = run.progress("folds")
        for key in "ab":
            progress.done(key, state={"w": np.full(100, ord(key))})
    shard = sorted((tmp_path / "drive").rglob("units/*/*.safetensors"))[0]
    data = shard.read_bytes()
    shard.unlink()
    shard.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    shutil.rmtree(tmp_path / "run")
    with pytest.warns(RuntimeWarning):
        run = opened(tmp_path, drive)
    with run:
        progress = run.progress("folds")
        (left,) = progress.results()
        assert list(progress.pending("ab")) == [key for key in "ab" if key != left]


def test_a_run_that_has_a_study_is_not_filled(tmp_path: Path, drive: Drive) -> None:
    with opened(tmp_path, drive) as run:
        run.progress("calls").done("a")
    shutil.rmtree(tmp_path / "run")
    drive.is_away = False
    with ckptfmt.Run(tmp_path / "run") as run:
        run.progress("calls").done("b")
    with opened(tmp_path, drive) as run:
        assert run.progress("calls").results() == {"b": None}
        run.progress("calls").done("c")
    assert list((tmp_path / "drive").glob("aside-*-other-run-progress")), "what another run left there is kept"


class Copied:
    """A journal and a copy of it that is brought up to date after each append."""

    def __init__(self, tmp_path: Path) -> None:
        self.paths = (str(tmp_path / "source"), str(tmp_path / "target"))
        self.written: list[int] = []
        self.disk = LocalDisk()
        self.copy = self.opened()

    def opened(self) -> JournalCopy:
        return JournalCopy(self.disk, *self.paths, lambda payloads: self.written.append(len(payloads)))

    def records(self) -> list[list[tuple[int, Any]]]:
        return [list(read_journal(self.disk, path).iter_records()) for path in self.paths]


@pytest.fixture
def both(tmp_path: Path) -> Iterator[Copied]:
    both = Copied(tmp_path)
    yield both
    both.copy.close()


def test_an_update_writes_only_what_is_new_and_many_small_files_are_joined(both: Copied, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_copy, "_MANY_SEGMENTS", 8)
    with Journal.open_for_append(both.disk, both.paths[0]) as source:
        for number in range(40):
            source.append({"unit": number}, flush=True)
            both.copy.update()
    both.copy.update()
    first, second = both.records()
    assert first == second
    assert both.written == [1] * 40
    assert len(list(Path(both.paths[1]).glob("segment-*"))) < 20
    assert [finding for finding in verify_journal(both.disk, both.paths[1]) if finding.level == "error"] == []


def test_a_later_session_goes_on_where_the_copy_ends_under_the_same_numbers(both: Copied) -> None:
    for session in range(4):
        with Journal.open_for_append(both.disk, both.paths[0]) as source:
            for number in range(5):
                source.append([session, number], flush=True)
            if session == 2:
                source.compact([["compacted"]])
            both.copy.update()
            both.copy.close()
        first, second = both.records()
        assert first == second
        both.copy = both.opened()
    assert both.written == [5, 5, 1, 5]


def test_a_copy_that_has_more_than_the_journal_follows_it(both: Copied) -> None:
    """As after a power cut that took what was not flushed."""
    with Journal.open_for_append(both.disk, both.paths[1]) as target:
        for number in range(5):
            target.append(number, flush=True)
    with Journal.open_for_append(both.disk, both.paths[0]) as source:
        for number in (0, 1, 2, 33):
            source.append(number, flush=True)
    both.copy.update()
    first, second = both.records()
    assert first == second
