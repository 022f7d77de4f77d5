"""`ckpt-inspect convert` on files of Optuna: by what is in them, several by name, pickles only when asked for."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import optuna
import pytest

import ckptfmt
from ckpt_inspect.main import main

optuna.logging.set_verbosity(optuna.logging.ERROR)


@pytest.fixture
def convert(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)

    def convert(*arguments: str, status: int = 0) -> str:
        assert main(["convert", *arguments]) == status
        captured = capsys.readouterr()
        return captured.err if status else captured.out + captured.err

    return convert


def made(storage: Any, name: str) -> optuna.Study:
    study = optuna.create_study(storage=storage, study_name=name)
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    return study


def trials_at(path: str) -> list[Any]:
    return [(trial.params, trial.values) for trial in ckptfmt.load_study(path).trials]


def test_a_database_and_a_journal_become_studies_whatever_their_names(convert: Any) -> None:
    journal = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend("any.name"))
    for source, storage in (("some.file", "sqlite:///some.file"), ("any.name", journal)):
        study = made(storage, "lr")
        out = convert(source, f"{source}-study")
        assert out.startswith(f"{source}-study\nstudy lr, 3 trials; go on with run.study(NAME, start_from=")
        assert trials_at(f"{source}-study") == [(trial.params, trial.values) for trial in study.trials]
    assert "go on with run.study('lr')" in convert("some.file", "runs/a/studies/lr")
    assert json.loads(convert("some.file", "third", "--json"))["written"] == ["third"]


def test_of_several_studies_one_is_chosen(convert: Any) -> None:
    made("sqlite:///two.db", "a")
    made("sqlite:///two.db", "b")
    assert "two.db: holds 2 studies\n  Give one of them with --study: a, b" in convert("two.db", "out", status=2)
    assert "no study is named 'c'" in convert("two.db", "out", "--study", "c", status=2)
    assert "study b" in convert("two.db", "out", "--study", "b")
    assert "--overwrite" in convert("two.db", "out", "--study", "a", status=2)
    assert "study a" in convert("two.db", "out", "--study", "a", "--overwrite")
    assert "means nothing" in convert("two.db", "out", "--section", "model", status=2)


def test_a_pickle_is_read_only_when_asked_for_and_warns(convert: Any) -> None:
    study = made(None, "m")
    Path("study.pkl").write_bytes(pickle.dumps(study))
    assert "--from-pickle reads a pickled study as data" in convert("study.pkl", "out", status=2)
    assert not os.path.exists("out")
    out = convert("--from-pickle", "study.pkl", "out")
    assert "study m, 3 trials" in out
    assert "nothing vouches for what was in it" in out
    assert trials_at("out") == [(trial.params, trial.values) for trial in study.trials]
    study.set_user_attr("bad", os.system)
    Path("bad.pkl").write_bytes(pickle.dumps(study))
    assert "posix.system" in convert("--from-pickle", "bad.pkl", "worse", status=2)


@pytest.mark.parametrize("content", [b"hello", b"", b"{}\n", b"SQLite format 3\0 and no more"])
def test_a_file_of_something_else_is_refused(convert: Any, content: bytes) -> None:
    Path("file").write_bytes(content)
    convert("file", "out", status=2)
    convert("--from-pickle", "file", "out", status=2)
    assert not os.path.exists("out")
    convert("nothing", "out", status=10)
