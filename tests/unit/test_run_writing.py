"""One writer, any number of readers; what stays, what is shared, what is computed once, what is exported."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import ckptfmt
from ckptfmt.disk.memory import MemoryDisk
from ckptfmt.disk.refusals import LOCK_REFUSALS
from ckptfmt.run.retention import Decision


def save_steps(path: Path, *steps: int, **options: Any) -> Path:
    with ckptfmt.Run(path, **options) as run:
        for step in steps:
            run.save(step, {"step": step}, metrics={"m": step % 7})
    return path


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a program that prints a line when it is where the test wants it."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


HOLD = """
    import sys, ckptfmt
    run = ckptfmt.Run(sys.argv[1])
    run.save(1, {"step": 1})
    print("ready", flush=True)
    sys.stdin.read()
    """


def test_a_second_writer_is_refused_with_host_pid_and_time_and_a_killed_one_blocks_nobody(tmp_path: Path) -> None:
    holder = start(HOLD, tmp_path / "run")
    with ckptfmt.Run(tmp_path / "run") as run:
        assert run.latest_step() == 1
        assert run.restore() is not None
        with pytest.raises(ckptfmt.RunLockedError, match=f"process {holder.pid} on ") as caught:
            run.save(2, {})
        assert (caught.value.pid, caught.value.host) == (holder.pid, os.uname().nodename)
        assert caught.value.since_utc is not None
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
        run.save(2, {"step": 2})
        assert run.all_steps() == [1, 2]


def test_a_run_that_nobody_closed_is_finished_at_the_end_of_the_program(tmp_path: Path) -> None:
    script = """
        import sys, numpy, ckptfmt
        run = ckptfmt.Run(sys.argv[1] + "/run", mirror=sys.argv[1] + "/mirror", keep_last=2)
        for step in range(4):
            run.async_save(step, {"w": numpy.full(100_000, step)})
        run.log(4, {"a": 1})
        """
    subprocess.run([sys.executable, "-W", "error", "-c", textwrap.dedent(script), str(tmp_path)], check=True, timeout=60)
    run = ckptfmt.Run(tmp_path / "run")
    assert run.all_steps() == [2, 3]
    assert run.history()[-1]["a"] == 1
    assert ckptfmt.Run(tmp_path / "mirror").latest_step() == 3


def test_a_run_works_where_locks_are_unsupported() -> None:
    disk = MemoryDisk()
    disk.faults.fail("lock", min(LOCK_REFUSALS), times=None)
    with ckptfmt.Run("/run", _disk=disk, keep_last=2) as run:
        for step in range(4):
            run.save(step, {"step": step})
        assert run.cached("c", lambda: 5, inputs=1) == 5
        assert run.all_steps() == [2, 3]


def test_rules_are_or_ed_and_each_kept_step_has_its_reason(tmp_path: Path) -> None:
    path = save_steps(tmp_path / "run", *range(10))
    with ckptfmt.Run(path, monitor="m", mode="max") as run:
        planned = run.cleanup(dry_run=True, keep_last=2, keep_best=1, keep_every=4)
        assert run.all_steps() == list(range(10))
        report = run.cleanup(keep_last=2, keep_best=1, keep_every=4)
        assert run.all_steps() == report.kept == planned.kept == [0, 4, 6, 8, 9]
        assert report.freed_bytes == planned.freed_bytes > 0
        assert report.decisions[6] == Decision(6, ("best 1 by m",))
        assert report.decisions[9] == Decision(9, ("last 2", "newest sound"))
        assert run.cleanup(keep_within="7d").removed == []


def test_keep_every_can_change_between_runs(tmp_path: Path) -> None:
    path = save_steps(tmp_path / "run", *range(7), keep_last=1, keep_every=3)
    save_steps(path, 7, 8, 9, 10, keep_last=1, keep_every=2)
    assert ckptfmt.Run(path).all_steps() == [0, 6, 8, 10]


def test_a_clean_up_reads_the_newest_before_it_deletes_the_others(tmp_path: Path) -> None:
    path = save_steps(tmp_path / "run", 1, 2, 3)
    (file,) = (path / "step-00000003").glob("metadata-*")
    data = file.read_bytes()
    file.unlink()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with ckptfmt.Run(path) as run:
        assert run.cleanup(keep_last=1).kept == [2, 3]


def test_what_an_interrupted_deletion_left_goes_with_the_next_clean_up(tmp_path: Path) -> None:
    path = save_steps(tmp_path / "run", 1, 2, 3)
    (path / "step-00000001/manifest.json").unlink()
    with ckptfmt.Run(path) as run:
        assert run.all_steps() == [2, 3]
        run.cleanup(keep_last=5)
    assert not (path / "step-00000001").exists()


def test_a_reader_goes_on_with_a_checkpoint_that_is_deleted_under_it(tmp_path: Path) -> None:
    with ckptfmt.Run(tmp_path / "run", keep_last=1) as run:
        run.save(1, {"w": np.arange(10_000)})
        with ckptfmt.open_checkpoint(run.checkpoint(1)) as checkpoint:
            run.save(2, {"w": np.arange(5)})
            assert run.all_steps() == [2]
            assert np.array_equal(checkpoint.get_tensor("w"), np.arange(10_000))


def disk_usage(path: Path) -> int:
    return int(subprocess.run(["du", "-sB1", str(path)], capture_output=True, text=True, check=True).stdout.split()[0])


def test_a_frozen_part_is_stored_once_also_by_the_next_process_and_each_step_is_complete(tmp_path: Path) -> None:
    frozen = np.random.default_rng(0).random(2_500_000)
    changed_bytes, path = 0, tmp_path / "run"
    for process in range(3):
        with ckptfmt.Run(path) as run:
            for step in range(4 * process, 4 * process + 4):
                head = np.random.default_rng(step).random(20_000)
                changed_bytes += head.nbytes
                run.save(step, {"backbone": {"w": frozen}, "head": {"w": head}})
    assert disk_usage(path) <= frozen.nbytes + 1.05 * changed_bytes + 12 * 2**20
    assert disk_usage(path) <= frozen.nbytes + 1.05 * changed_bytes + 2**20, "far less than the promise"
    with ckptfmt.Run(path) as run:
        run.cleanup(keep_every=5)
        assert run.all_steps() == [0, 5, 10, 11]
        assert run.checkpoint(5).size_bytes > frozen.nbytes > run.checkpoint(5).unique_bytes
        for step in run.all_steps():
            assert ckptfmt.verify(run.checkpoint(step)).ok
            assert np.array_equal(ckptfmt.load(run.checkpoint(step))["backbone"]["w"], frozen)


def test_a_step_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    path = save_steps(tmp_path / "run", 1)
    with ckptfmt.Run(path) as run:
        with pytest.raises(ckptfmt.CheckpointExistsError):
            run.save(1, {"other": 1})
        with pytest.raises(ckptfmt.CheckpointNotFoundError, match="There are: 1"):
            run.checkpoint(7)
        with pytest.raises(ValueError, match="integer"):
            run.save(-1, {})
        assert ckptfmt.load(run.checkpoint(1)) == {"step": 1}


# cached


def test_a_result_is_computed_once_for_the_same_inputs(tmp_path: Path) -> None:
    data, calls = tmp_path / "data.bin", []
    data.write_bytes(b"first")

    def compute() -> dict[str, Any]:
        calls.append(1)
        return {"array": np.arange(5), "list": [1, (2, 3)], "count": len(calls)}

    def get(**inputs: Any) -> Any:
        with ckptfmt.Run(tmp_path / "run") as run:
            return run.cached("features", compute, inputs=inputs)

    first = get(file=data, nested=[{"also": data}], bins=8, weights=np.ones(3))
    assert first["count"] == 1
    assert first["list"] == [1, (2, 3)]
    assert get(file=data, nested=[{"also": data}], bins=8, weights=np.ones(3))["count"] == 1
    assert get(file=data, nested=[{"also": data}], bins=9, weights=np.ones(3))["count"] == 2
    assert get(file=data, nested=[{"also": data}], bins=8, weights=np.zeros(3))["count"] == 3
    data.write_bytes(b"second")
    assert get(nested=[{"also": data}])["count"] == 4
    data.write_bytes(b"third")
    assert get(nested=[{"also": data}])["count"] == 5


def test_a_damaged_cache_is_computed_again(tmp_path: Path) -> None:
    run = ckptfmt.Run(tmp_path / "run")
    assert run.cached("c", lambda: {"a": np.arange(500)}, inputs=1)["a"][3] == 3
    (shard,) = (tmp_path / "run/cache").glob("c-*/*.safetensors")
    data = shard.read_bytes()
    shard.unlink()
    shard.write_bytes(data[:-1])
    with pytest.warns(RuntimeWarning, match="is computed again"):
        assert run.cached("c", lambda: {"a": np.arange(9)}, inputs=1)["a"].size == 9
    assert run.cached("c", lambda: None, inputs=1)["a"].size == 9


def test_an_error_of_the_computation_is_the_callers_and_leaves_nothing(tmp_path: Path) -> None:
    run = ckptfmt.Run(tmp_path / "run")
    with pytest.raises(ZeroDivisionError):
        run.cached("c", lambda: 1 // 0, inputs=1)
    assert run.cached("c", lambda: 7, inputs=1) == 7
    with pytest.raises(ValueError, match="name="):
        run.cached("../c", lambda: 7, inputs=1)


def test_two_who_need_the_same_compute_it_once_and_a_killed_one_blocks_nobody(tmp_path: Path) -> None:
    script = """
        import sys, ckptfmt
        def compute():
            print("ready", flush=True)
            sys.stdin.read()
        ckptfmt.Run(sys.argv[1]).cached("c", compute, inputs=1)
        """
    holder = start(script, tmp_path / "run")
    calls, results = [], []

    def need() -> None:
        def compute() -> int:
            calls.append(1)
            time.sleep(0.1)
            return 5

        results.append(ckptfmt.Run(tmp_path / "run").cached("c", compute, inputs=1))

    threads = [threading.Thread(target=need) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    assert not calls, "somebody else is computing"
    holder.kill()
    holder.communicate()
    for thread in threads:
        thread.join(30)
    assert (calls, results) == ([1], [5, 5, 5])


# export


def test_results_are_exported_as_json_csv_npy_and_safetensors(tmp_path: Path) -> None:
    state = {
        "model": {"w": np.arange(6.0).reshape(2, 3)},
        "curves": {"a/b": np.arange(3), "a_b": np.arange(4)},
        "results": [{"name": "first", "score": 0.5}],
        "worst": float("nan"),
    }
    with ckptfmt.Run(tmp_path / "run", monitor="loss", mode="min") as run:
        run.log(1, {"loss": 2})
        run.save(2, state, metrics={"loss": 1.5})
        paths = run.export(tmp_path / "out")
        assert sorted(paths) == sorted(run.export(tmp_path / "out")), "finished again, nothing is written twice"
        assert all(Path(path).is_file() for path in paths)
        with open(tmp_path / "out/history.csv", newline="") as file:
            assert [(row["step"], row["loss"]) for row in csv.DictReader(file)] == [("1", "2"), ("2", "1.5")]
        assert [row["loss"] for row in json.loads((tmp_path / "out/history.json").read_text())] == [2, 1.5]
        values = json.loads((tmp_path / "out/step-00000002/values.json").read_text())
        assert values["results.0.name"] == "first"
        assert values["worst"] == "nan"
        arrays = {len(np.load(path)): path for path in (tmp_path / "out/step-00000002/arrays").glob("*.npy")}
        assert set(arrays) == {2, 3, 4}, "no file is lost because two names look alike"
        (tmp_path / "out/history.csv").write_text("mine")
        with pytest.raises(ckptfmt.CheckpointExistsError, match="overwrite=True"):
            run.export(tmp_path / "out")
        assert (tmp_path / "out/history.csv").read_text() == "mine"
        run.export(tmp_path / "out", steps=("latest", 2), overwrite=True)
    assert not [path for path in (tmp_path / "out").rglob("*") if path.name.startswith(".")]


def test_an_exported_model_loads_as_a_state_dict(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.Linear(3, 2)
    with ckptfmt.Run(tmp_path / "run") as run:
        run.save(1, {"model": model})
        run.export(tmp_path / "out", steps=["latest"])
    tensors = load_file(tmp_path / "out/step-00000001/model.safetensors")
    assert np.array_equal(tensors["weight"], model.weight.detach().numpy())
