"""ckptfmt.async_save: a copy is taken at once, saves commit in order, and no error stays unseen."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import ckptfmt
from ckptfmt.checkpoint import saving
from tests.conformance.describing import described

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def gate(monkeypatch):
    """Hold back every write until the gate is opened; `begun` tells the paths in the order in which writing began."""

    class Gate:
        def __init__(self):
            self.is_open = threading.Event()
            self.begun = []

    gate = Gate()
    write = saving.write_checkpoint

    def held(disk, path, state, options):
        gate.begun.append(path)
        assert gate.is_open.wait(20)
        return write(disk, path, state, options)

    monkeypatch.setattr(saving, "write_checkpoint", held)
    yield gate
    gate.is_open.set()


def test_the_result_is_what_was_committed(tmp_path):
    handle = ckptfmt.async_save(tmp_path / "c", {"w": torch.ones(3)}, step=3, metrics={"loss": torch.tensor(0.5)})
    assert isinstance(handle, ckptfmt.SaveHandle)
    info = handle.result()
    assert (info.step, info.metrics, info.path) == (3, {"loss": 0.5}, str(tmp_path / "c"))
    assert handle.done()
    assert handle.result() is info
    assert ckptfmt.verify(tmp_path / "c").ok


def test_changes_right_after_the_call_do_not_leak_in(tmp_path, gate):
    base = torch.arange(6.0)
    state = {
        "torch": base,
        "view": base[1:4],
        "strided": torch.arange(6.0).reshape(2, 3).t(),
        "numpy": np.arange(4),
        "bytes": bytearray(b"abc"),
        "list": [1, 2],
        "nested": {"set": {1}},
    }
    expected = described(state)
    handle = ckptfmt.async_save(tmp_path / "c", state)
    base.fill_(9)
    state["strided"].fill_(9)
    state["numpy"][:] = 9
    state["bytes"][:] = b"xyz"
    state["list"].append(3)
    state["nested"]["set"].add(2)
    state["late"] = 1
    gate.is_open.set()
    handle.result()
    assert described(ckptfmt.load(tmp_path / "c")) == expected


def test_training_goes_on_while_a_save_is_under_way(tmp_path, gate):
    handle = ckptfmt.async_save(tmp_path / "c", {"w": torch.ones(3)})
    assert not handle.done()
    assert not handle.wait(timeout=0.01)
    with pytest.raises(TimeoutError, match=r"is not done after 0\.01 seconds; it goes on"):
        handle.result(timeout=0.01)
    assert not ckptfmt.is_complete(tmp_path / "c")
    gate.is_open.set()
    assert handle.wait(timeout=20)
    assert handle.done()


def test_saves_commit_in_the_order_in_which_they_were_asked_for(tmp_path, gate):
    handles = [
        ckptfmt.async_save(tmp_path / "c", {"step": step, "w": torch.full((100,), float(step))}, overwrite=True) for step in range(5)
    ]
    others = [ckptfmt.async_save(tmp_path / f"c{step}", {"step": step}) for step in range(3)]
    gate.is_open.set()
    assert [handle.result().path for handle in [*handles, *others]] == gate.begun
    assert ckptfmt.load(tmp_path / "c")["step"] == 4


def test_the_caller_may_be_any_thread(tmp_path):
    handles = []

    def save(number):
        handles.append(ckptfmt.async_save(tmp_path / str(number), {"n": number, "w": torch.full((50,), float(number))}))

    threads = [threading.Thread(target=save, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({handle.result().digest for handle in handles}) == 8
    assert all(ckptfmt.load(tmp_path / str(number))["n"] == number for number in range(8))


def test_arguments_are_checked_on_the_callers_thread(tmp_path):
    with pytest.raises(ckptfmt.UnsupportedTypeError):
        ckptfmt.async_save(tmp_path / "c", {"bad": object()})
    with pytest.raises(ValueError, match="step"):
        ckptfmt.async_save(tmp_path / "c", {}, step=-1)
    with pytest.raises(ckptfmt.UnsupportedTypeError):
        ckptfmt.async_save(tmp_path / "c", {}, metrics={"x": "y"})
    assert not (tmp_path / "c").exists()


def test_the_result_raises_what_went_wrong(tmp_path):
    ckptfmt.save(tmp_path / "c", {"a": 1})
    handle = ckptfmt.async_save(tmp_path / "c", {"a": 2})
    for _ in range(2):
        with pytest.raises(ckptfmt.CheckpointExistsError):
            handle.result()
    assert isinstance(handle.error, ckptfmt.CheckpointExistsError)
    ckptfmt.save(tmp_path / "d", {"a": 1})
    assert ckptfmt.load(tmp_path / "c") == {"a": 1}


@pytest.mark.parametrize("save", [ckptfmt.save, ckptfmt.async_save])
def test_an_error_that_nobody_fetched_is_raised_by_the_next_save(tmp_path, save):
    ckptfmt.save(tmp_path / "c", {"a": 1})
    assert ckptfmt.async_save(tmp_path / "c", {"a": 2}).wait(20)
    with pytest.raises(ckptfmt.CheckpointExistsError) as caught:
        save(tmp_path / "d", {"a": 1})
    assert caught.value.__notes__ == [f"from the asynchronous save of {tmp_path / 'c'}; this call did nothing, call it again"]
    assert not (tmp_path / "d").exists()
    outcome = save(tmp_path / "d", {"a": 1})
    assert (outcome.result() if save is ckptfmt.async_save else outcome).path == str(tmp_path / "d")


def test_several_errors_are_raised_one_by_one(tmp_path):
    ckptfmt.save(tmp_path / "c", {"a": 1})
    handles = [ckptfmt.async_save(tmp_path / "c", {"a": 2}) for _ in range(2)]
    assert all(handle.wait(20) for handle in handles)
    for _ in handles:
        with pytest.raises(ckptfmt.CheckpointExistsError):
            ckptfmt.save(tmp_path / "d", {"a": 1})
    ckptfmt.save(tmp_path / "d", {"a": 1})


def test_a_failed_save_does_not_stop_those_behind_it(tmp_path, gate):
    gate.is_open.set()
    ckptfmt.save(tmp_path / "c", {"a": 1})
    gate.is_open.clear()
    first = ckptfmt.async_save(tmp_path / "c", {"a": 2})
    second = ckptfmt.async_save(tmp_path / "d", {"a": 2})
    gate.is_open.set()
    assert second.result().path == str(tmp_path / "d")
    with pytest.raises(ckptfmt.CheckpointExistsError):
        first.result()


def test_a_base_and_other_options_are_passed_on(tmp_path):
    state = {"model": {"w": torch.arange(1000.0)}, "head": torch.ones(2)}
    ckptfmt.async_save(tmp_path / "a", state, fingerprint={"seed": 1}, max_shard_size="1kB", durable=False).result()
    info = ckptfmt.async_save(tmp_path / "b", {**state, "head": torch.zeros(2)}, base=tmp_path / "a").result()
    assert info.unique_bytes < info.size_bytes
    assert ckptfmt.verify(tmp_path / "b").findings == ()


def run(program, *arguments):
    command = [sys.executable, "-W", "error", "-c", program, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_the_end_of_the_program_waits_for_saves_under_way(tmp_path):
    program = """
import sys, numpy, ckptfmt
for step in range(5):
    ckptfmt.async_save(f"{sys.argv[1]}/{step}", {"w": numpy.full(300_000, step)}, step=step)
"""
    process = run(program, tmp_path)
    assert (process.returncode, process.stderr) == (0, "")
    for step in range(5):
        assert ckptfmt.verify(tmp_path / str(step)).ok
        assert ckptfmt.load(tmp_path / str(step))["w"][0] == step


def test_errors_that_nobody_saw_are_printed_at_the_end(tmp_path):
    program = """
import sys, ckptfmt
ckptfmt.save(sys.argv[1] + "/c", {"a": 1})
handles = [ckptfmt.async_save(sys.argv[1] + "/c", {"a": 2}) for _ in range(2)]
try:
    handles[1].result()
except ckptfmt.CheckpointExistsError:
    print("fetched")
"""
    process = run(program, tmp_path)
    assert (process.returncode, process.stdout) == (0, "fetched\n")
    assert process.stderr.count(f"ckptfmt: the asynchronous save of {tmp_path}/c failed:") == 1
    assert process.stderr.count("ckptfmt.errors.CheckpointExistsError: ") == 1


def test_an_error_of_the_program_does_not_lose_a_save(tmp_path):
    program = """
import sys, numpy, ckptfmt
ckptfmt.async_save(sys.argv[1] + "/c", {"w": numpy.ones(500_000)})
raise SystemExit("training broke")
"""
    process = run(program, tmp_path)
    assert process.returncode == 1
    assert ckptfmt.verify(tmp_path / "c").ok


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_has_a_queue_of_its_own(tmp_path):
    program = """
import multiprocessing, sys, numpy, ckptfmt
path = sys.argv[1]

def child():
    handle = ckptfmt.async_save(path + "/child", {"w": numpy.ones(1000)})
    assert handle.result(timeout=20).path == path + "/child"
    ckptfmt.async_save(path + "/left", {"w": numpy.ones(100_000)})

under_way = ckptfmt.async_save(path + "/parent", {"w": numpy.ones(3_000_000)})
process = multiprocessing.get_context("fork").Process(target=child)
process.start()
process.join(30)
assert process.exitcode == 0, process.exitcode
under_way.result()
"""
    process = run(program, tmp_path)
    assert (process.returncode, process.stderr) == (0, "")
    for name in ("child", "left", "parent"):
        assert ckptfmt.verify(tmp_path / name).ok


def test_the_call_returns_long_before_a_slow_disk(tmp_path, gate):
    begin = time.monotonic()
    handle = ckptfmt.async_save(tmp_path / "c", {"w": torch.zeros(2**20)})
    assert time.monotonic() - begin < 5
    gate.is_open.set()
    handle.result()
