"""Checkpoints and mirrors under URLs, in the store of this process's memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

import ckptfmt
from ckpt_inspect.main import main
from ckptfmt.disk import fsspec_store, patient_store
from ckptfmt.disk.patient_store import Patience

URL = "memory://bucket/run/step"


@pytest.fixture(autouse=True)
def objects(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The objects of an empty store by their keys."""
    monkeypatch.setattr(patient_store, "PATIENCE", Patience(attempts=2, first_seconds=0.0))
    store: dict[str, Any] = fsspec.filesystem("memory").store
    store.clear()
    yield store
    store.clear()


def state(number: int) -> dict[str, Any]:
    return {"model": {"w": np.full(1000, number), "b": np.zeros(3)}, "optimizer": {"m": np.full(10, number)}, "shuffle": (number, 2)}


def test_a_state_comes_back_as_it_was() -> None:
    info = ckptfmt.save(URL, state(1), step=7, metrics={"loss": 0.5})
    assert (info.path, info.step) == (URL, 7)
    np.testing.assert_equal(ckptfmt.load(URL), state(1))
    np.testing.assert_equal(ckptfmt.load(info), state(1))
    assert ckptfmt.load(URL, only="shuffle") == {"shuffle": (1, 2)}
    np.testing.assert_equal(ckptfmt.load(URL, verify=False), state(1))
    with ckptfmt.open_checkpoint(f"{URL}/") as checkpoint:
        assert checkpoint.info.size_bytes == info.size_bytes
        assert checkpoint.get_slice("model.w")[2:4].tolist() == [1, 1]
    assert ckptfmt.verify(URL).findings == ()
    assert ckptfmt.is_complete(URL)


def test_a_save_in_the_background_goes_to_a_store_too() -> None:
    assert ckptfmt.async_save(URL, state(1)).result().path == URL
    assert ckptfmt.diff(URL, URL).same


def test_an_overwrite_leaves_nothing_of_what_was_there(objects: dict[str, Any]) -> None:
    ckptfmt.save(URL, state(1))
    first = set(objects)
    with pytest.raises(ckptfmt.CheckpointExistsError):
        ckptfmt.save(URL, state(2))
    ckptfmt.save(URL, state(2), overwrite=True)
    assert first & set(objects) == {"/bucket/run/step/manifest.json"}
    np.testing.assert_equal(ckptfmt.load(URL), state(2))


def test_objects_are_restored_from_a_store() -> None:
    import torch

    model = torch.nn.Linear(3, 2)
    ckptfmt.save(URL, {"model": model})
    other = torch.nn.Linear(3, 2)
    assert ckptfmt.load_into(URL, {"model": other}).restored == ("model",)
    assert torch.equal(other.weight, model.weight)


def test_what_is_not_there_is_said() -> None:
    assert not ckptfmt.is_complete(URL)
    for read in (ckptfmt.load, ckptfmt.verify, ckptfmt.open_checkpoint):
        with pytest.raises(ckptfmt.CheckpointNotFoundError, match=f"{URL}: no such checkpoint"):
            read(URL)
    fsspec.filesystem("memory").pipe_file(f"{URL}/other", b"")
    with pytest.raises(ckptfmt.IncompleteError):
        ckptfmt.load(URL)


def test_a_damaged_object_is_named(objects: dict[str, Any]) -> None:
    ckptfmt.save(URL, state(1))
    shard = next(key for key in objects if "model" in key)
    data = bytearray(objects[shard].getvalue())
    data[-1] ^= 1
    fsspec.filesystem("memory").pipe_file(shard, bytes(data))
    (finding,) = ckptfmt.verify(URL).findings
    assert (finding.rule, finding.path, finding.tensor) == ("E040", f"memory:/{shard}", "b")
    with pytest.raises(ckptfmt.CorruptError, match="E040"):
        ckptfmt.load(URL)
    fsspec.filesystem("memory").rm_file(shard)
    assert [finding.rule for finding in ckptfmt.verify(URL).findings] == ["E012"]
    assert not ckptfmt.is_complete(URL)
    with pytest.raises(ckptfmt.CorruptError, match="E012"):
        ckptfmt.load(URL)


def test_a_checkpoint_that_is_replaced_while_it_is_read_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    ckptfmt.save(URL, state(1))
    read = fsspec_store.FsspecStore.read
    replaced = []

    def replace_before_the_first_shard(store: Any, key: str, offset: int, size: int) -> Any:
        if "model" in key and not replaced:
            replaced.append(key)
            ckptfmt.save(URL, state(2), overwrite=True)
        return read(store, key, offset, size)

    monkeypatch.setattr(fsspec_store.FsspecStore, "read", replace_before_the_first_shard)
    np.testing.assert_equal(ckptfmt.load(URL), state(2))
    assert replaced


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://me:secret99@bucket/x", "a password does not belong in a URL"),
        ("s3://bucket/x?token=secret99", "without a query"),
        ("s3://", "expected a bucket"),
        ("s3://bucket/../x", "expected a bucket and a prefix"),
        ("s3:/bucket/x", "Pass URLs as str"),
        ("1://secret99@x", "expected a URL such as"),
        ("nothingknowsthis://bucket/x", "Protocol not known"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_its_secrets(url: str, message: str) -> None:
    for use in (ckptfmt.load, lambda path: ckptfmt.save(path, {}), lambda path: ckptfmt.save("x", {}, base=path), ckptfmt.verify):
        if "nothing" in url and use is not ckptfmt.load:
            continue
        with pytest.raises(ValueError, match=message) as caught:
            use(url)
        assert "secret99" not in str(caught.value)


def test_a_path_object_that_was_a_url_is_refused() -> None:
    with pytest.raises(ValueError, match="Pass URLs as str"):
        ckptfmt.load(Path("s3://bucket/x"))


def test_a_file_url_is_a_path_of_this_machine(tmp_path: Path) -> None:
    ckptfmt.save(f"file://{tmp_path}/step", state(1))
    np.testing.assert_equal(ckptfmt.load(tmp_path / "step"), state(1))


def test_a_run_under_a_url_is_inspected_while_it_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = "memory://bucket/run"
    with ckptfmt.Run(url, local_directory=tmp_path / "here") as run:
        for step in (1, 2, 3):
            run.save(step, state(step), metrics={"loss": 1 / step})
        run.study("lr", direction="minimize").optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
        assert run.cached("features", lambda: 5, inputs=1) == run.cached("features", lambda: 6, inputs=1) == 5
        run.wait_until_finished()
        shown = {}
        for command in ("inspect", "history", "verify"):
            assert main([command, url]) == 0
            shown[command] = capsys.readouterr().out
        assert main(["best", url, "--metric", "loss", "--mode", "min"]) == 0
        shown["best"] = capsys.readouterr().out
    assert "0.333" in shown["inspect"]
    assert "0.333" in shown["history"]
    assert "3" in shown["best"]
    with ckptfmt.Run(url, local_directory=tmp_path / "fresh") as run:
        assert len(run.study("lr", direction="minimize").trials) == 2


def test_where_only_a_directory_will_do_a_url_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="only a directory of this machine will do"):
        ckptfmt.optuna_storage("memory://bucket/studies")


def test_a_fresh_machine_goes_on_from_a_mirror_in_a_store(tmp_path: Path, objects: dict[str, Any]) -> None:
    with ckptfmt.Run(tmp_path / "first", mirror="memory://bucket/exp", keep_last=1) as run:
        for step in range(4):
            run.save(step, state(step), metrics={"loss": float(step)})
            run.progress("work").done(f"unit {step}", {"result": step})
            run.wait_until_finished()
    assert run.mirror_status().last_error is None
    assert {key.split("/")[3] for key in objects if "step-" in key} == {"step-00000002", "step-00000003"}
    assert not [key for key in objects if key.endswith(".tmp")]
    with pytest.warns(RuntimeWarning, match="brought from the mirror: steps 2, 3"):
        again = ckptfmt.Run(tmp_path / "second", mirror="memory://bucket/exp", keep_last=2)
    with again:
        restored = again.restore()
        assert restored is not None
        np.testing.assert_equal(restored.state, state(3))
        assert [row["loss"] for row in again.history()] == [0.0, 1.0, 2.0, 3.0]
        assert again.progress("work").results() == {f"unit {step}": {"result": step} for step in range(4)}
        again.save(4, state(4))
    assert ckptfmt.verify("memory://bucket/exp/step-00000004").ok


def test_nothing_is_left_of_a_copy_whose_step_the_run_deleted_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, objects: dict[str, Any]
) -> None:
    write = fsspec_store.FsspecStore.write
    is_copying, is_deleted = threading.Event(), threading.Event()

    def write_late(store: Any, key: str, *arguments: Any) -> str:
        version = write(store, key, *arguments)
        if "step-00000000/" in key:
            is_copying.set()
            assert is_deleted.wait(30)
        return version

    monkeypatch.setattr(fsspec_store.FsspecStore, "write", write_late)
    with ckptfmt.Run(tmp_path / "run", mirror="memory://bucket/exp", keep_last=1) as run:
        run.save(0, state(0))
        assert is_copying.wait(30)
        run.save(1, state(1))
        assert run.all_steps() == [1]
        is_deleted.set()
    assert {key.split("/")[3] for key in objects if "step-" in key} == {"step-00000001"}


def test_a_damaged_copy_in_a_store_is_passed_over(tmp_path: Path, objects: dict[str, Any]) -> None:
    with ckptfmt.Run(tmp_path / "first", mirror="memory://bucket/exp") as run:
        for step in range(3):
            run.save(step, state(step))
            run.wait_until_finished()
    shard = next(key for key in objects if "step-00000002/model" in key)
    fsspec.filesystem("memory").pipe_file(shard, objects[shard].getvalue()[:-1] + b"\x55")
    with pytest.warns(RuntimeWarning, match="passed over|brought"):
        again = ckptfmt.Run(tmp_path / "second", mirror="memory://bucket/exp")
    with again:
        assert again.latest_step() == 1


def test_training_goes_on_while_the_store_is_away_and_the_copy_comes_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = fsspec_store.FsspecStore.write
    is_away = [True]

    def fail(*arguments: Any) -> str:
        if is_away[0]:
            raise ConnectionResetError("the store is away")
        return write(*arguments)

    monkeypatch.setattr(fsspec_store.FsspecStore, "write", fail)
    with ckptfmt.Run(tmp_path / "run", mirror="memory://bucket/exp") as run:
        run.save(1, state(1))
        run.wait_until_finished()
        status = run.mirror_status()
        assert status.pending == (1,)
        assert "the store is away" in (status.last_error or "")
        is_away[0] = False
        deadline = time.monotonic() + 20
        while run.mirror_status().pending and time.monotonic() < deadline:
            time.sleep(0.05)
        assert run.mirror_status().verified == (1,)
    np.testing.assert_equal(ckptfmt.load("memory://bucket/exp/step-00000001"), state(1))


def test_the_tool_looks_at_stores(tmp_path: Path, capsys: pytest.CaptureFixture[str], objects: dict[str, Any]) -> None:
    with ckptfmt.Run(tmp_path / "run", mirror="memory://bucket/exp") as run:
        run.save(1, state(1), metrics={"loss": 0.5})
    for arguments in (
        ["memory://bucket/exp/step-00000001"],
        ["memory://bucket/exp/step-00000001", "--tensors", "--tree"],
        ["memory://bucket/exp/"],
        ["verify", "memory://bucket/exp", "memory://bucket/exp/step-00000001"],
        ["verify", "--quick", "memory://bucket/exp"],
        ["history", "memory://bucket/exp"],
        ["best", "memory://bucket/exp", "--metric", "loss", "--mode", "min"],
        ["diff", "memory://bucket/exp/step-00000001", str(tmp_path / "run/step-00000001")],
    ):
        assert main(arguments) == 0, capsys.readouterr()
    shard = next(key for key in objects if "model" in key)
    fsspec.filesystem("memory").pipe_file(shard, objects[shard].getvalue()[:-1] + b"\x55")
    capsys.readouterr()
    assert main(["verify", "memory://bucket/exp"]) == 1
    assert "E040" in capsys.readouterr().out
    assert main(["verify", "memory://bucket/nothing"]) == 10
    assert main(["verify", "s3://me:secret99@bucket/x"]) == 2
    assert "secret99" not in capsys.readouterr().err
