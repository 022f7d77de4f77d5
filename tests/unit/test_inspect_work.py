"""ckpt-inspect on progress and studies: what is shown on a terminal of 80 columns and as JSON, what verify names, and salvage."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

import ckptfmt
from ckpt_inspect.main import main
from ckptfmt.disk.local import LocalDisk
from ckptfmt.run.journal import Journal

optuna.logging.set_verbosity(optuna.logging.ERROR)


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("COLUMNS", "80")

    def show(*arguments: str, status: int = 0) -> list[str]:
        assert main(arguments) == status
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines), default=0) <= 80
        return lines

    return show


@pytest.fixture
def document(capsys: pytest.CaptureFixture[str]) -> Any:
    def document(*arguments: str, status: int = 0) -> dict[str, Any]:
        assert main([*arguments, "--json"]) == status
        parsed: dict[str, Any] = json.loads(capsys.readouterr().out)
        assert parsed["schema_version"] == 1
        return parsed

    return document


def objective(trial: optuna.Trial) -> float:
    x = trial.suggest_float("x", 0, 1)
    trial.suggest_categorical("kind", ["a", None, True])
    trial.report(x, 3)
    if trial.number == 2:
        raise optuna.TrialPruned
    if trial.number == 4:
        raise ValueError
    return x


@pytest.fixture
def run_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    with ckptfmt.Run("run", durable=False) as run:
        study = run.study("lr", direction="maximize", sampler=optuna.samplers.RandomSampler(seed=1))
        study.optimize(objective, n_trials=6, catch=ValueError)
        both = run.study("both", directions=["minimize", "maximize"])
        both.optimize(lambda trial: (trial.suggest_int("n", 1, 9), 1.0 + trial.number), n_trials=3)
        with run.progress("calls", total=10) as progress:
            for key in range(4):
                progress.done(("track", key), {"text": "x"}, {"tokens": key, "cost": key / 4})
            progress.fail("bad\x1bkey", ValueError("no\nmore"))
        with run.progress("large") as progress:
            progress.done(1, np.zeros(300_000))
    return "run"


def best_of(run_path: str, name: str) -> optuna.trial.FrozenTrial:
    return ckptfmt.load_study(f"{run_path}/studies/{name}").best_trial


def test_a_run_lists_its_progress_and_studies_one_line_each(run_path: str, show: Any, document: Any) -> None:
    lines = show(run_path)
    best = best_of(run_path, "lr")
    assert "  checkpoints  none yet" in lines
    (calls,) = [line for line in lines if " calls " in line]
    assert calls.startswith("  progress     calls  [######----------] 4/10 40.0%")
    assert calls.endswith("1 failed")
    assert f"               lr    6 trials, best {best.value:.6g} (trial {best.number})" in lines
    assert any(line.startswith("  studies      both  3 trials, ") and line.endswith(" on the Pareto front") for line in lines)
    found = document(run_path)
    assert [(one["path"].rpartition("/")[2], one["done"], one["total"]) for one in found["progress"]] == [
        ("calls", 4, 10),
        ("large", 1, None),
    ]
    assert [one["studies"][0]["name"] for one in found["studies"]] == ["both", "lr"]


def test_a_progress_shows_how_far_it_is_what_it_measured_and_what_came_last(run_path: str, show: Any, document: Any) -> None:
    lines = show(f"{run_path}/progress/calls")
    for expected in (
        "  progress   [#########---------------] 4/10 40.0%",
        "  done       4 units, 6 left of 10",
        "  claimed    none",
        "  failed     1 unit at the last attempt",
        "metrics   count  sum   mean  min   max",
        "  tokens      4    6    1.5    0     3",
        "  cost        4  1.5  0.375    0  0.75",
    ):
        assert expected in lines
    assert lines[-1].endswith("bad\\x1bkey    failed: ValueError: no")
    found = document(f"{run_path}/progress/calls")
    facts = ("kind", "total", "done", "failed", "claimed", "ratio", "damage")
    assert [found[name] for name in facts] == ["progress", 10, 4, 1, 0, 0.4, None]
    assert found["eta_seconds"] == pytest.approx(6 / found["units_per_second"])
    assert found["metrics"]["tokens"] == {"count": 4, "sum": 6, "mean": 1.5, "min": 0, "max": 3}
    assert [record["key"] for record in found["last_records"]] == [["track", 0], ["track", 1], ["track", 2], ["track", 3], "bad\x1bkey"]


def test_a_study_shows_trials_by_state_and_the_best_with_its_parameters(run_path: str, show: Any, document: Any) -> None:
    lines = show(f"{run_path}/studies/lr")
    best = best_of(run_path, "lr")
    for expected in (
        "  direction  maximize",
        "  trials     6: 4 complete, 1 pruned, 1 failed",
        f"  best       {best.value:.6g} at trial {best.number}",
        "  sampler    RandomSampler, pruner MedianPruner",
        "best parameters",
        f"  x     {best.params['x']:.6g}",
        "last 6 trials",
    ):
        assert expected in lines
    (found,) = document(f"{run_path}/studies/lr")["studies"]
    assert found["states"] == {"complete": 4, "pruned": 1, "failed": 1}
    assert found["best"][0]["values"] == [best.value]
    assert found["best"][0]["params"] == best.params
    assert [trial["number"] for trial in found["last_trials"]] == list(range(6))
    assert found["last_trials"][4]["last_intermediate"]["step"] == 3


def test_several_directions_show_the_trials_that_no_other_dominates(run_path: str, show: Any, document: Any) -> None:
    lines = show(f"{run_path}/studies/both")
    study = ckptfmt.load_study(f"{run_path}/studies/both")
    assert "  directions  minimize, maximize" in lines
    assert "best trials" in lines
    (found,) = document(f"{run_path}/studies/both")["studies"]
    assert [trial["number"] for trial in found["best"]] == sorted(trial.number for trial in study.best_trials)


def test_a_shared_study_and_a_saved_one_are_shown_too(tmp_path: Path, show: Any, document: Any) -> None:
    study = optuna.create_study(storage=ckptfmt.optuna_storage(tmp_path / "shared"), study_name="many")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    study.ask().report(0.5, 7)
    lines = show(str(tmp_path / "shared"))
    assert "  trials     4: 1 running, 3 complete" in lines
    assert any(line.startswith("      3  running   (0.5 at 7)") for line in lines)
    assert any("in 1 journal, shared by processes" in line for line in lines)
    optuna.create_study(storage=study._storage, study_name="other")
    assert [one["name"] for one in document(str(tmp_path / "shared"))["studies"]] == ["many", "other"]
    ckptfmt.save_study(tmp_path / "saved", study)
    assert document(str(tmp_path / "saved"))["kind"] == "study"


def test_best_trials_keep_constraints_as_optuna_has_it(tmp_path: Path, document: Any) -> None:
    def constrained(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", 0, 1)
        trial.set_constraint("low", 0.5 - x)
        return x

    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=3))
    study.optimize(constrained, n_trials=12)
    ckptfmt.save_study(tmp_path / "saved", study)
    (found,) = document(str(tmp_path / "saved"))["studies"]
    assert [trial["number"] for trial in found["best"]] == [study.best_trial.number]


def test_claims_count_while_their_process_is_at_work(tmp_path: Path, document: Any) -> None:
    with ckptfmt.Run(tmp_path / "run", durable=False) as run:
        progress = run.progress("calls", total=5)
        waiting = iter(progress.pending(range(5)))
        progress.done(next(waiting))
        next(waiting)
        found = document(f"{tmp_path}/run/progress/calls")
        assert (found["done"], found["claimed"]) == (1, 1)
    assert document(f"{tmp_path}/run/progress/calls")["claimed"] == 0


def test_nothing_of_it_needs_optuna_numpy_or_torch(run_path: str) -> None:
    code = """import sys
from ckpt_inspect.main import main
status = [main([*command, path]) for path in sys.argv[1:] for command in ([], ["verify"])]
sys.exit(any(status) or any(name in sys.modules for name in ("optuna", "numpy", "torch")))"""
    paths = [f"{run_path}/studies/lr", f"{run_path}/studies/both", f"{run_path}/progress/calls"]
    subprocess.run([sys.executable, "-c", code, *paths], check=True, stdout=subprocess.DEVNULL)


def test_the_segment_file_of_a_journal_stands_for_its_journal(run_path: str, document: Any) -> None:
    (segment,) = Path(run_path, "studies/lr").glob("*.journal")
    assert document(str(segment))["path"] == f"{run_path}/studies/lr"
    assert document("verify", str(segment))["ok"] is True


def test_the_directory_of_all_progress_names_what_is_in_it(run_path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"{run_path}/progress"]) == 2
    assert "Give one of them (calls, large)" in capsys.readouterr().err


@pytest.mark.parametrize("below", ["studies/new", "progress/new/writers"])
def test_what_has_no_record_yet_is_empty_and_sound(tmp_path: Path, below: str, document: Any) -> None:
    path = tmp_path / below
    path.mkdir(parents=True)
    if "studies" in below:
        Journal.open_for_append(LocalDisk(), str(path)).close()
        (path / "segment-00000001-01020304.journal").touch()
    else:
        path = path.parent
    found = document(str(path))
    assert (found["damage"], found.get("studies", []), found.get("done", 0)) == (None, [], 0)
    assert document("verify", str(path))["ok"] is True


# Verifying


def damage(path: str, glob: str, *, at: float = 0.5) -> str:
    (segment,) = Path(path).glob(glob)
    data = bytearray(segment.read_bytes())
    data[int(len(data) * at)] ^= 1
    segment.chmod(0o644)
    segment.write_bytes(data)
    return str(segment)


def test_verify_of_a_run_names_each_progress_and_study_once(run_path: str, show: Any, document: Any) -> None:
    found = document("verify", run_path)
    names = [(one["path"].removeprefix(f"{run_path}/"), one["kind"], one["sound"]) for one in found["journals"]]
    works = [("progress/calls", "progress"), ("progress/large", "progress"), ("studies/both", "study"), ("studies/lr", "study")]
    assert names == [(path, kind, True) for path, kind in works]
    assert show("verify", run_path)[-1] == "0 checkpoints, 2 progress, 2 studies: 4 sound"


@pytest.mark.parametrize(
    ("below", "glob"), [("studies/lr", "*.journal"), ("progress/calls", "writers/*/*.journal")], ids=["study", "progress"]
)
def test_verify_names_file_record_byte_and_how_to_go_on(run_path: str, below: str, glob: str, show: Any, document: Any) -> None:
    segment = damage(f"{run_path}/{below}", glob)
    for path in (run_path, f"{run_path}/{below}"):
        (found,) = [one for one in document("verify", path, status=1)["journals"] if not one["ok"]]
        (error,) = [finding for finding in found["findings"] if finding["level"] == "error"]
        assert (error["rule"], error["path"]) == ("E054", segment)
        assert error["found"].startswith("sound up to ")
        assert ", byte " in error["found"]
        lines = show("verify", path, status=1)
        assert any(line.startswith("    ckpt-inspect salvage ") for line in lines)
    assert document(f"{run_path}/{below}", status=1)["damage"].count(os.path.dirname(segment)) == 2


def test_a_damaged_checkpoint_of_a_unit_is_named(run_path: str, document: Any) -> None:
    shard = damage(run_path, "progress/large/units/*/*.safetensors")
    (found,) = document("verify", f"{run_path}/progress/large", status=1)["journals"]
    assert {finding["path"] for finding in found["findings"]} == {shard}


def test_records_that_nobody_here_wrote_are_named_by_number(run_path: str, show: Any, document: Any) -> None:
    with Journal.open_for_append(LocalDisk(), f"{run_path}/studies/lr") as journal:
        number = journal.append({"op": "param", "trial": 0})
    (found,) = document("verify", f"{run_path}/studies/lr", status=1)["journals"]
    assert (found["findings"][0]["rule"], found["findings"][0]["path"]) == ("E058", f"{run_path}/studies/lr")
    assert f"record {number}: member name of a record param is wrong" in found["findings"][0]["message"]
    assert "These bytes are as they were written" in show("verify", f"{run_path}/studies/lr", status=1)[-1]


def test_a_torn_tail_is_a_warning_and_what_was_before_is_shown(run_path: str, document: Any) -> None:
    (segment,) = Path(run_path, "studies/lr").glob("*.journal")
    segment.chmod(0o644)
    segment.write_bytes(segment.read_bytes() + b"torn" * 9)
    (found,) = document("verify", f"{run_path}/studies/lr")["journals"]
    assert [(finding["rule"], finding["level"]) for finding in found["findings"]] == [("W010", "warning")]
    assert document(f"{run_path}/studies/lr")["studies"][0]["trial_count"] == 6


def test_what_is_being_written_to_is_shown_and_verified(tmp_path: Path, document: Any) -> None:
    with ckptfmt.Run(tmp_path / "run", durable=False) as run:
        study, progress = run.study("s"), run.progress("p", flush_every=100)
        for number in range(4):
            trial = study.ask()
            trial.suggest_float("x", 0, 1)
            progress.done(number)
            assert document(f"{tmp_path}/run/studies/s")["studies"][0]["trial_count"] == number
            assert document(f"{tmp_path}/run/progress/p")["done"] == number + 1
            assert document("verify", f"{tmp_path}/run")["ok"] is True
            study.tell(trial, 1.0)


# Salvage


def test_salvage_goes_on_with_what_is_sound_and_keeps_the_damaged_files(run_path: str, show: Any, document: Any) -> None:
    before = document(f"{run_path}/progress/calls")["done"]
    damage(run_path, "progress/calls/writers/*/*.journal")
    segment = damage(run_path, "studies/lr/*.journal", at=0.9)
    damaged = Path(segment).read_bytes()
    assert [one["salvaged"] for one in document("salvage", run_path, "-n", status=1)["journals"]] == [False, False]
    assert main(["salvage", run_path]) == 2
    assert any("records before the damage are sound" in line for line in show("salvage", run_path, "-y"))
    assert document("verify", run_path)["ok"] is True
    (kept,) = Path(run_path, "studies/lr").glob("set-aside-*")
    assert kept.read_bytes() == damaged
    # One unit lay under the damage. Those behind it were paid for, and are in it again.
    assert document(f"{run_path}/progress/calls")["done"] >= before - 1
    assert 0 < document(f"{run_path}/studies/lr")["studies"][0]["trial_count"] < 6
    assert show("salvage", run_path) == [f"{run_path}: nothing is damaged"]
    with ckptfmt.Run(run_path, durable=False) as run:
        study = run.study("lr", direction="maximize", sampler=optuna.samplers.RandomSampler())
        assert ckptfmt.optimize(study, lambda trial: trial.suggest_float("x", 0, 1), n_trials=8).done_count == 8


def test_salvage_is_refused_while_somebody_writes(run_path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ckptfmt.Run(run_path, durable=False) as run:
        run.log(1, {"loss": 0.5})
        damage(run_path, "studies/lr/*.journal")
        assert main(["salvage", run_path, "-y"]) == 11
        assert "is writing here" in capsys.readouterr().err
    shared = tmp_path / "shared"
    study = optuna.create_study(storage=ckptfmt.optuna_storage(shared), study_name="a")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    damage(str(shared), "*/*.journal")
    assert main(["salvage", str(shared), "-y"]) == 11
    study._storage.log.close()
    assert main(["salvage", str(shared), "-y"]) == 0
    assert main(["salvage", str(tmp_path / "nothing")]) == 10
