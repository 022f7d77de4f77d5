"""Resuming a run: which checkpoint, into what, under which identity; and what is said when something is wrong."""

from __future__ import annotations

import argparse
import math
import os
import shutil
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckptfmt
from ckptfmt.run import steps


def fingerprint(**config: Any) -> ckptfmt.Fingerprint:
    return ckptfmt.Fingerprint(seed=config.pop("seed", 0), config=config, environment=False, code=False)


def state_of(step: int) -> dict[str, Any]:
    return {"model": {"w": np.full(4000, step)}, "epoch": step}


def make_run(path: Path, *steps: int, **options: Any) -> Path:
    with ckptfmt.Run(path, **options) as run:
        for step in steps:
            run.log(step, {"seen": step})
            run.save(step, state_of(step), metrics={"loss": 1 / (step + 1)})
    return path


class Part:
    """An object with a state."""

    def __init__(self, value: Any = None) -> None:
        self.value = value

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value = state["value"]


def aside_of(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir() if entry.name.startswith("aside-"))


def test_a_new_run_has_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    run = ckptfmt.Run(tmp_path / "run")
    assert run.restore() is None
    assert (run.latest_step(), run.all_steps(), run.history(), run.can_resume()) == (None, [], [], False)
    assert run.cleanup(keep_last=1).kept == []
    run.close()
    assert not (tmp_path / "run").exists()


def test_the_newest_step_is_restored_as_plain_state(tmp_path: Path) -> None:
    restored = ckptfmt.Run(make_run(tmp_path / "run", 1, 2, 10)).restore()
    assert restored is not None
    assert (restored.step, restored.state["epoch"], restored.metrics) == (10, 10, {"loss": 1 / 11})
    assert restored.report.skipped == ("model", "epoch")


def test_order_is_that_of_the_numbers_and_never_that_of_times(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", 9, 10, 123456789)
    os.utime(path / "step-00000009", (2**31, 2**31))
    run = ckptfmt.Run(path)
    assert run.all_steps() == [9, 10, 123456789]
    assert run.latest_step() == 123456789


def test_each_component_is_reported_as_restored_skipped_or_missing(tmp_path: Path) -> None:
    with ckptfmt.Run(tmp_path / "run") as run:
        run.save(1, {"a": Part(1), "b": Part(2), "note": "text"})
        found, absent = Part(), Part("untouched")
        with pytest.raises(ckptfmt.NameNotFoundError, match="allow_missing"):
            run.restore({"a": found, "rng": absent})
        assert found.value is None, "nothing is touched before everything is known to be there"
        restored = run.restore({"a": found, "rng": absent}, allow_missing=["rn*"])
    assert restored is not None
    assert (found.value, absent.value) == (1, "untouched")
    report = restored.report
    assert (report.restored, report.skipped, report.missing) == (("a",), ("b", "note"), ("rng",))
    assert restored.state == {"b": {"value": 2}, "note": "text"}


def test_random_states_that_cannot_be_restored_here_are_an_error(tmp_path: Path) -> None:
    with ckptfmt.Run(tmp_path / "run") as run:
        run.save(1, {"rng": {"torch": {"cuda": [np.zeros(16, "u1")] * 99}}})
        with pytest.raises(ckptfmt.CheckpointError, match=r"torch\.cuda"):
            run.restore({"rng": ckptfmt.Rng()})


DAMAGES = {
    "manifest flipped": ("manifest.json", lambda data: data[:40] + bytes([data[40] ^ 1]) + data[41:]),
    "manifest truncated": ("manifest.json", lambda data: data[: len(data) // 2]),
    "metadata flipped": ("metadata-*", lambda data: data[:40] + bytes([data[40] ^ 1]) + data[41:]),
    "metadata missing": ("metadata-*", None),
    "shard flipped": ("model-*", lambda data: data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]),
    "shard truncated": ("model-*", lambda data: data[:-1]),
    "shard missing": ("model-*", None),
}


def damage(checkpoint: Path, kind: str) -> None:
    pattern, change = DAMAGES[kind]
    (file,) = checkpoint.glob(pattern)
    data = file.read_bytes()
    file.unlink()
    if change is not None:
        file.write_bytes(change(data))


@pytest.mark.parametrize("kind", DAMAGES)
def test_the_next_older_sound_checkpoint_is_used_instead_of_a_damaged_one(tmp_path: Path, kind: str) -> None:
    path = make_run(tmp_path / "run", 1, 2, 3)
    damage(path / "step-00000003", kind)
    with ckptfmt.Run(path, keep_last=1) as run:
        part = Part()
        with pytest.warns(RuntimeWarning, match="step 3 is damaged and was passed over; restored step 2"):
            restored = run.restore()
        assert restored is not None
        assert (restored.step, restored.state["epoch"], list(restored.report.damaged)) == (2, 2, [3])
        with pytest.warns(RuntimeWarning, match="kept as"):
            run.save(3, {"part": part})
        assert run.all_steps() == [3]
    assert len(aside_of(path)) == 1, "the damaged one is kept under another name"


def test_a_checkpoint_of_a_newer_version_is_neither_passed_over_nor_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_run(tmp_path / "run", 1, 2, 3)
    read_manifest = steps.read_manifest

    def read_as_an_old_library(directory: Any) -> Any:
        if directory.path.endswith("3"):
            raise ckptfmt.UnsupportedVersionError("version 2.0 [E006]")
        return read_manifest(directory)

    monkeypatch.setattr(steps, "read_manifest", read_as_an_old_library)
    with ckptfmt.Run(path) as run:
        with pytest.raises(ckptfmt.UnsupportedVersionError):
            run.restore()
        assert run.cleanup(keep_last=1).kept == [2, 3]
    assert (path / "step-00000003/manifest.json").exists()


def test_when_every_checkpoint_is_damaged_the_error_says_so_and_nothing_is_deleted(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", 1, 2)
    for step in (1, 2):
        damage(path / f"step-{step:08d}", "shard flipped")
    with pytest.raises(ckptfmt.CorruptError) as caught:
        ckptfmt.Run(path).restore()
    assert "Nothing was deleted" in "".join(caught.value.__notes__)


def test_going_back_keeps_what_came_later_and_history_follows_the_branch(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", 1, 2, 3, 4)
    with ckptfmt.Run(path) as run:
        restored = run.restore(step=2)
        assert restored is not None
        assert run.all_steps() == [1, 2, 3, 4], "nothing happens before the first write"
        with pytest.warns(RuntimeWarning, match="going on from step 2; 2 later checkpoints are kept as aside-"):
            run.save(3, {"epoch": "other"}, metrics={"loss": 9})
        assert run.all_steps() == [1, 2, 3]
        assert [row["step"] for row in run.history()] == [1, 2, 3]
        assert run.history()[-1]["loss"] == 9
    for name, epoch in zip(aside_of(path), (3, 4), strict=True):
        assert ckptfmt.load(path / name)["epoch"] == epoch


def test_a_step_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", 1, 2, 3)
    with ckptfmt.Run(path) as run, pytest.raises(ckptfmt.CheckpointNotFoundError, match="no checkpoint of step 7\nThere are: 1, 2, 3"):
        run.restore(step=7)


def test_metrics_of_an_earlier_step_and_a_clean_up_are_no_new_branch(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", 1, 2, 3)
    with ckptfmt.Run(path, monitor="loss", mode="max") as run:
        restored = run.restore(step="best")
        assert restored is not None
        assert restored.step == 1
        run.log(1, {"test_loss": 0.5})
        run.cleanup(keep_last=3)
        assert run.all_steps() == [1, 2, 3]
        assert run.history()[0]["test_loss"] == 0.5


def test_resume_must_refuses_an_empty_run_and_never_sets_everything_aside(tmp_path: Path) -> None:
    with pytest.raises(ckptfmt.CheckpointNotFoundError, match="nothing to resume"):
        ckptfmt.Run(tmp_path / "run", resume="must")
    path = make_run(tmp_path / "run", 1, 2)
    with pytest.warns(RuntimeWarning, match="starting anew"):
        run = ckptfmt.Run(path, resume="never")
    with run:
        assert run.restore() is None
        assert run.history() == []
        run.save(1, {"epoch": "new"})
    assert len(aside_of(path)) == 4
    with ckptfmt.Run(path, resume="must") as run:
        restored = run.restore()
    assert restored is not None
    assert restored.state == {"epoch": "new"}


def test_another_config_or_seed_stops_with_the_fields_that_differ(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", 1, fingerprint=fingerprint(lr=0.1))
    with pytest.raises(ckptfmt.FingerprintMismatchError) as caught:
        ckptfmt.Run(path, fingerprint=fingerprint(lr=0.2, seed=1))
    assert {difference.field for difference in caught.value.differences} == {"config.lr", "seed"}
    assert "allow_changes" in str(caught.value)
    with ckptfmt.Run(path, fingerprint=fingerprint(lr=0.2), allow_changes=["config.*"]) as run, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert run.latest_step() == 1
    with pytest.warns(RuntimeWarning, match=r"config\.lr"):
        ckptfmt.Run(path, fingerprint=fingerprint(lr=0.2), on_mismatch="warn").close()
    ckptfmt.Run(path, fingerprint=fingerprint(lr=0.2), on_mismatch="ignore").close()


def test_a_data_file_that_changed_by_one_byte_is_noticed(tmp_path: Path) -> None:
    data = tmp_path / "train.csv"
    data.write_bytes(b"1,2,3\n" * 100)
    same = {"environment": False, "code": False}
    path = make_run(tmp_path / "run", 1, fingerprint=ckptfmt.Fingerprint(data=[data], **same))
    data.write_bytes(b"1,2,3\n" * 99 + b"1,2,4\n")
    with pytest.raises(ckptfmt.FingerprintMismatchError, match=r"train\.csv"):
        ckptfmt.Run(path, fingerprint=ckptfmt.Fingerprint(data=[data], **same))


def test_restart_keeps_the_other_experiment_with_its_own_identity(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", 1, fingerprint=fingerprint(lr=0.1))
    with pytest.warns(RuntimeWarning, match="starting anew"):
        run = ckptfmt.Run(path, fingerprint=fingerprint(lr=0.2), on_mismatch="restart")
    with run:
        assert run.restore() is None
        run.save(1, state_of(1))
    (kept,) = [name for name in aside_of(path) if name.endswith("run.json")]
    assert "0.1" in (path / kept).read_text()
    assert "0.2" in (path / "run.json").read_text()
    ckptfmt.Run(path, fingerprint=fingerprint(lr=0.2)).close()


def test_a_missing_or_damaged_run_file_does_not_hide_whose_checkpoints_these_are(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", 1, fingerprint=fingerprint(lr=0.1))
    text = (path / "run.json").read_text()
    (path / "run.json").unlink()
    with pytest.raises(ckptfmt.FingerprintMismatchError):
        ckptfmt.Run(path, fingerprint=fingerprint(lr=0.2))
    (path / "run.json").write_text(text.replace("0.1", "0.3"))
    with pytest.warns(RuntimeWarning, match="newest checkpoint"), ckptfmt.Run(path, fingerprint=fingerprint(lr=0.1)) as run:
        run.save(2, state_of(2))
    assert (path / "run.json").read_text() != text.replace("0.1", "0.3")
    with ckptfmt.Run(path, fingerprint=fingerprint(lr=0.1)) as run:
        assert run.all_steps() == [1, 2]


def test_a_damaged_history_is_set_aside_and_saving_goes_on(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", 1, 2, 3)
    segment = max((path / "history").iterdir(), key=lambda file: file.stat().st_size)
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.unlink()
    segment.write_bytes(data)
    with ckptfmt.Run(path) as run:
        with pytest.warns(RuntimeWarning, match="what the checkpoints say"):
            assert [row["step"] for row in run.history()] == [1, 2, 3]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run.save(4, state_of(4), metrics={"loss": 0})
        assert "nothing was deleted" in str(caught[-1].message)
        assert [row["step"] for row in run.history()] == [1, 2, 3, 4]


@pytest.mark.parametrize("how", ["moved", "copied", "zipped"])
def test_a_run_resumes_elsewhere(tmp_path: Path, how: str) -> None:
    path, target = make_run(tmp_path / "run", 1, 2, fingerprint=fingerprint(lr=1)), tmp_path / "elsewhere"
    if how == "moved":
        path.rename(target)
    elif how == "copied":
        shutil.copytree(path, target)
    else:
        shutil.make_archive(str(tmp_path / "run"), "zip", path)
        with zipfile.ZipFile(tmp_path / "run.zip") as archive:
            archive.extractall(target)
    with ckptfmt.Run(target, fingerprint=fingerprint(lr=1), resume="must") as run:
        restored = run.restore()
        assert restored is not None
        run.save(3, state_of(3))
        assert [row["step"] for row in run.history()] == [1, 2, 3]


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    ckptfmt.add_resume_arguments(parser)
    return parser.parse_args(words)


def test_the_ready_made_arguments_do_what_they_say(tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", 5, 6)
    with pytest.raises(ckptfmt.CheckpointNotFoundError):
        ckptfmt.run_from_arguments(parse("--resume"), tmp_path / "run")
    for named, step in ((other, 6), (other / "step-00000005", 5)):
        path = tmp_path / f"from-{step}"
        with ckptfmt.run_from_arguments(parse("--resume-from", str(named)), path) as run:
            restored = run.restore()
            assert restored is not None
            assert restored.step == step
            run.save(step + 1, state_of(step + 1))
        with ckptfmt.run_from_arguments(parse("--resume-from", str(named)), path) as run:
            assert run.restore().step == step + 1, "the same command goes on where the run is now"
    assert sorted(os.listdir(other)) == sorted(["run.json", "history", ".lock", "step-00000005", "step-00000006"])
    with pytest.raises(ckptfmt.CheckpointNotFoundError):
        ckptfmt.run_from_arguments(parse("--resume-from", str(tmp_path / "nowhere")), tmp_path / "run").restore()
    with pytest.warns(RuntimeWarning), ckptfmt.run_from_arguments(parse("--ignore-checkpoint"), other) as run:
        assert run.restore() is None
    with pytest.raises(SystemExit):
        parse("--resume", "--ignore-checkpoint")


def test_resuming_from_a_checkpoint_of_the_run_itself_goes_back_once(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", 1, 2, 3)
    with ckptfmt.Run(path, resume_from=path / "step-00000001") as run:
        restored = run.restore()
        assert restored is not None
        assert restored.step == 1
        with pytest.warns(RuntimeWarning, match="kept as"):
            run.save(2, {"epoch": "again"})
    with ckptfmt.Run(path, resume_from=path / "step-00000001") as run, pytest.warns(RuntimeWarning, match="went on from here before"):
        restored = run.restore()
    assert restored is not None
    assert restored.state == {"epoch": "again"}


def test_nan_is_never_best_and_of_equals_the_newer_is(tmp_path: Path) -> None:
    with ckptfmt.Run(tmp_path / "run", monitor="loss", mode="min", keep_best=2) as run:
        for step, loss in enumerate([math.nan, 2.0, 1.0, 1.0, 3.0, math.nan]):
            run.save(step, state_of(step), metrics={"loss": loss})
        assert run.best_step() == 3
        assert run.all_steps() == [2, 3, 5]
