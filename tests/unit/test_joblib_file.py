"""Studies that `joblib.dump` wrote come over like pickled ones, compressed or not; nothing in them is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import joblib
import numpy as np
import optuna
import pytest

import ckptfmt
from ckptfmt.adapters import joblib_file
from ckptfmt.adapters.optuna_import import import_pickled_study

optuna.logging.set_verbosity(optuna.logging.ERROR)
COMPRESSIONS: list[Any] = [0, ("zlib", 3), ("gzip", 3), ("bz2", 3), ("xz", 3), ("lzma", 3)]
pytestmark = pytest.mark.filterwarnings("ignore:.*a pickle may say anything:RuntimeWarning")


def made_study() -> optuna.Study:
    study = optuna.create_study(study_name="lr", sampler=optuna.samplers.TPESampler(seed=1))
    study.optimize(lambda trial: (trial.suggest_float("x", 0, 1) - 0.3) ** 2, n_trials=12)
    return study


@pytest.mark.parametrize("compression", COMPRESSIONS, ids=str)
def test_a_dumped_study_comes_over_whole(tmp_path: Path, compression: Any) -> None:
    study = made_study()
    joblib.dump(study, tmp_path / "study.pkl", compress=compression)
    assert import_pickled_study(tmp_path / "study.pkl", tmp_path / "to").trial_count == 12
    with ckptfmt.Run(tmp_path / "run") as run:
        again = run.study("lr", start_from=tmp_path / "to")
        assert [trial.params for trial in again.trials] == [trial.params for trial in study.trials]


def test_arrays_between_the_instructions_are_passed_over_wherever_they_lie(tmp_path: Path) -> None:
    study = made_study()
    arrays = {"C": np.arange(6.0).reshape(2, 3), "F": np.asfortranarray(np.ones((3, 2), "<f4")), "empty": np.empty((0, 4))}
    study.sampler.__dict__.update(arrays)
    joblib.dump(study, tmp_path / "study.pkl")
    assert import_pickled_study(tmp_path / "study.pkl", tmp_path / "to").trial_count == 12


def test_a_dump_that_ends_early_is_refused_wherever(tmp_path: Path) -> None:
    for compression in (0, 3):
        joblib.dump(made_study(), tmp_path / "study.pkl", compress=compression)
        data = (tmp_path / "study.pkl").read_bytes()
        for length in range(1, len(data), max(1, len(data) // 40)):
            (tmp_path / "cut.pkl").write_bytes(data[:length])
            with pytest.raises(ckptfmt.CorruptError):
                import_pickled_study(tmp_path / "cut.pkl", tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_an_array_of_objects_is_refused(tmp_path: Path) -> None:
    study = made_study()
    study.sampler.__dict__["objects"] = np.array([{}, None], object)
    joblib.dump(study, tmp_path / "study.pkl")
    with pytest.raises(ckptfmt.CheckpointError):
        import_pickled_study(tmp_path / "study.pkl", tmp_path / "to")


def test_what_grows_without_end_when_decompressed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joblib_file, "MAX_BYTES", 1000)
    joblib.dump(made_study(), tmp_path / "study.pkl", compress=9)
    with pytest.raises(ckptfmt.LimitError, match=r"more than 1,000 bytes when decompressed"):
        import_pickled_study(tmp_path / "study.pkl", tmp_path / "to")
