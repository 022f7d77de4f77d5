"""Compressing old checkpoints behind a training: what is compressed when, and that nothing of it reaches the training."""

import errno
import time
from datetime import timedelta

import numpy as np
import pytest

import ckptfmt
from ckptfmt.checkpoint.staging import SLACK_BYTES
from ckptfmt.disk.local import LocalDisk
from ckptfmt.disk.memory import MemoryDisk
from ckptfmt.run import compressor
from ckptfmt.run.compressor import ChildProcess, SameProcess

OLD = 0.01


def state_of(step):
    weights = np.random.default_rng(0).standard_normal((100, 120)).astype("f4") * np.float32(1 + 1e-4 * step)
    return {"model": {"w": weights}, "step": step}


def is_right(run, step):
    restored = run.restore(step=step)
    return restored.state["step"] == step and np.array_equal(restored.state["model"]["w"], state_of(step)["model"]["w"])


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(compressor, "_FIRST_PAUSE_SECONDS", 0.02)


class Counted(SameProcess):
    """Counts the orders that are given."""

    def __init__(self, disk):
        super().__init__(disk)
        self.orders = []

    def results(self, order):
        self.orders.append(order)
        return super().results(order)


@pytest.fixture
def counted(monkeypatch):
    made = []

    def make(disk):
        made.append(Counted(disk))
        return made[-1]

    monkeypatch.setattr(compressor, "SameProcess", make)
    return made


def opened(path, disk=None, **options):
    return ckptfmt.Run(path, _disk=disk or LocalDisk(), durable=False, **{"compress_older_than": OLD, **options})


def wait_until(is_so, seconds=20.0):
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)


def wait_for(run, *, skipped=()):
    wait_until(lambda: not run.compression_status().pending and set(run.compression_status().skipped) == set(skipped))


def save_steps(run, steps):
    for step in steps:
        run.save(step, state_of(step), metrics={"m": step})
    time.sleep(2 * OLD)


def codecs_of(path):
    with ckptfmt.open_checkpoint(path) as checkpoint:
        return {name for table in checkpoint.metadata.shards for each in table.encodings.values() for name, _ in each.codecs}


def damage(path):
    shard = next(path.glob("model-*.safetensors"))
    shard.chmod(0o644)
    with shard.open("r+b") as file:
        file.seek(-100, 2)
        file.write(b"\xff" * 50)


def test_old_checkpoints_are_compressed_and_the_newest_is_not(tmp_path):
    with opened(tmp_path / "r") as run:
        save_steps(run, range(4))
        wait_for(run)
        status = run.compression_status()
        assert (status.done, status.pending, dict(status.skipped), status.last_error) == ((0, 1, 2), (), {}, None)
        before_bytes = 4 * run.checkpoint(3).size_bytes
        found = {file.stat().st_ino: file.stat().st_size for file in (tmp_path / "r").glob("step-*/*")}
        assert before_bytes - sum(found.values()) == pytest.approx(status.saved_bytes, rel=0.02)
    assert [bool(codecs_of(tmp_path / "r" / f"step-{step:08d}")) for step in range(4)] == [True, True, True, False]
    with opened(tmp_path / "r", compress_older_than=None) as run:
        assert run.compression_status() is None
        assert all(is_right(run, step) for step in range(4))


def test_what_is_too_young_stays_and_nothing_is_started_for_it(tmp_path, counted):
    with opened(tmp_path / "r", compress_older_than="7d") as run:
        save_steps(run, range(3))
        assert run.compression_status().pending == ()
    assert counted[0].orders == []


@pytest.mark.parametrize("value", ["7d", "1w2d", "36h", 90, 0.5, timedelta(days=3)])
def test_a_duration_is_given_as_to_keep_within(tmp_path, value):
    with ckptfmt.Run(tmp_path / "r", compress_older_than=value, keep_within=value) as run:
        assert run.compression_status().pending == ()


@pytest.mark.parametrize("value", ["soon", "", -1, 0, True, "7"])
def test_what_is_no_duration_is_refused_by_name(tmp_path, value):
    with pytest.raises(ValueError, match=r"compress_older_than=.*: expected a"):
        ckptfmt.Run(tmp_path / "r", compress_older_than=value)
    assert not (tmp_path / "r").exists()


def test_the_next_session_goes_on_and_leaves_what_is_done(tmp_path, counted):
    with opened(tmp_path / "r") as run:
        save_steps(run, range(3))
        wait_for(run)
    with opened(tmp_path / "r") as run:
        run.restore()
        assert run.compression_status().done == (0, 1)
        save_steps(run, [3])
        wait_for(run)
    assert [step for order in counted[1].orders for step, _ in order.steps] == [2]


def test_what_gains_nothing_is_looked_at_once(tmp_path, counted):
    noise = np.random.default_rng(0).integers(0, 256, 5000).astype("u1")
    with opened(tmp_path / "r") as run:
        for step in range(2):
            run.save(step, {"noise": {"a": noise + np.uint8(step)}})
        wait_until(lambda: run.compression_status().done == (0,))
        time.sleep(0.1)
        assert run.compression_status().saved_bytes == 0
    assert len(counted[0].orders) == 1


def test_a_damaged_checkpoint_is_said_once_and_not_tried_again(tmp_path, counted):
    with opened(tmp_path / "r", compress_older_than=None) as run:
        save_steps(run, range(4))
    damage(tmp_path / "r" / "step-00000001")
    before = {file.name: file.read_bytes() for file in (tmp_path / "r" / "step-00000001").iterdir()}
    run = opened(tmp_path / "r")
    run.log(3, {"n": 1})
    wait_for(run, skipped={1})
    time.sleep(0.1)
    assert run.compression_status().done == (0, 2)
    assert "digest differs" in run.compression_status().skipped[1]
    with pytest.warns(RuntimeWarning, match=r"not compressed, because it is damaged: step 1: damaged: .*step-00000001") as told:
        run.close()
    assert len(told) == 1
    assert [step for order in counted[-1].orders for step, _ in order.steps].count(1) == 1
    assert {file.name: file.read_bytes() for file in (tmp_path / "r" / "step-00000001").iterdir()} == before


def test_on_a_full_disk_what_the_next_save_needs_stays_free(counted):
    disk = MemoryDisk()
    with opened("/run", disk, compress_older_than=None) as run:
        save_steps(run, range(3))
        size_bytes = run.checkpoint(2).size_bytes
    tight = MemoryDisk(disk.tree(), capacity_bytes=3 * size_bytes + SLACK_BYTES + size_bytes + size_bytes // 2)
    run = opened("/run", tight)
    run.log(2, {"n": 1})
    wait_until(lambda: run.compression_status().last_error is not None)
    assert "not enough space" in run.compression_status().last_error
    assert run.compression_status().pending == (0, 1)
    save_steps(run, [3])
    with pytest.warns(RuntimeWarning, match="old checkpoints are not all compressed: .*not enough space"):
        run.close()


def test_where_nothing_can_be_written_the_status_says_so_and_it_goes_on_later(tmp_path):
    disk = MemoryDisk()
    run = opened("/run", disk, compress_older_than=0.3)
    for step in range(3):
        run.save(step, state_of(step))
    disk.faults.fail("create", errno.EROFS, times=None)
    wait_until(lambda: run.compression_status().last_error is not None)
    assert "Read-only" in run.compression_status().last_error
    disk.faults.clear()
    wait_for(run)
    wait_until(lambda: run.compression_status().last_error is None)
    run.close()


def test_whatever_a_worker_does_a_training_does_not_notice(tmp_path, monkeypatch):
    class Broken:
        def results(self, order):
            raise RuntimeError("something else")

        def stop(self):
            """Nothing is under way."""

    monkeypatch.setattr(compressor, "SameProcess", lambda disk: Broken())
    run = opened(tmp_path / "r")
    save_steps(run, range(3))
    wait_until(lambda: run.compression_status().last_error == "RuntimeError: something else")
    save_steps(run, [3])
    with pytest.warns(RuntimeWarning, match="not all compressed: RuntimeError: something else"):
        run.close()


def test_differences_are_taken_only_from_what_stays(tmp_path):
    with opened(tmp_path / "every", keep_every=2, keep_last=3) as run:
        save_steps(run, range(6))
        wait_for(run)
        run.cleanup()
        assert run.all_steps() == [0, 2, 3, 4, 5]
    found = {step: "delta" in codecs_of(tmp_path / "every" / f"step-{step:08d}") for step in (0, 2, 3, 4)}
    assert found == {0: False, 2: True, 3: True, 4: True}
    with opened(tmp_path / "last", keep_last=3) as run:
        save_steps(run, range(5))
        wait_for(run)
        # One that was being compressed when its turn came is left to the next clean-up.
        run.cleanup()
        assert run.all_steps() == [2, 3, 4]
        # What is deleted frees its space, and is held by nobody.
        assert run.cleanup(keep_last=1).freed_bytes == pytest.approx(2 * run.checkpoint(4).size_bytes * 0.8, rel=0.2)


def test_retention_and_compressing_do_not_wait_for_each_other(tmp_path):
    with opened(tmp_path / "r", keep_last=2) as run:
        for step in range(40):
            run.save(step, state_of(step))
        wait_for(run)
        run.cleanup()
        assert run.all_steps() == [38, 39]
        assert is_right(run, 38)
    assert ckptfmt.verify(tmp_path / "r" / "step-00000039").ok


def test_the_mirror_keeps_what_it_has_and_fills_an_empty_run(tmp_path):
    with opened(tmp_path / "r", mirror=tmp_path / "m") as run:
        save_steps(run, range(4))
        wait_for(run)
        run.wait_until_finished()
        status = run.mirror_status()
        assert (status.verified, status.pending, status.last_error) == ((0, 1, 2, 3), (), None)
    with pytest.warns(RuntimeWarning, match="brought from the mirror"):
        filled = opened(tmp_path / "new", mirror=tmp_path / "m", compress_older_than=None)
    with filled as run:
        assert run.all_steps() == [2, 3]
        assert all(is_right(run, step) for step in (2, 3))


def test_another_branch_begins_at_a_compressed_step(tmp_path):
    with opened(tmp_path / "r") as run:
        save_steps(run, range(4))
        wait_for(run)
        assert is_right(run, 1)
        with pytest.warns(RuntimeWarning, match="going on from step 1; 2 later checkpoints are kept"):
            save_steps(run, [2])
        wait_for(run)
        assert run.all_steps() == [0, 1, 2]
        assert run.compression_status().done == (0, 1)
        assert all(is_right(run, step) for step in (0, 1, 2))


def test_a_process_of_its_own_does_it_where_files_are(tmp_path):
    with ckptfmt.Run(tmp_path / "r", durable=False, compress_older_than=OLD) as run:
        save_steps(run, range(3))
        wait_for(run)
        assert run.compression_status().done == (0, 1)
        assert all(is_right(run, step) for step in range(3))
    assert codecs_of(tmp_path / "r" / "step-00000000") == {"planes"}


def test_a_process_that_cannot_be_started_or_ends_early_is_an_error_of_the_status(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.executable", str(tmp_path / "none"))
    order = compressor.Order(str(tmp_path), ((1, None),), 0)
    with pytest.raises(FileNotFoundError):
        list(ChildProcess().results(order))
    monkeypatch.setattr("sys.frozen", True, raising=False)
    with pytest.raises(OSError, match="no Python interpreter"):
        list(ChildProcess().results(order))
    monkeypatch.undo()
    monkeypatch.setattr(compressor, "_CODE", "raise SystemExit(3)")
    with pytest.raises(OSError, match="ended early, with status 3"):
        list(ChildProcess().results(order))


def test_a_worker_that_is_stopped_takes_no_more_orders(tmp_path):
    worker = ChildProcess()
    worker.stop()
    assert list(worker.results(compressor.Order(str(tmp_path), ((1, None),), 0))) == []
