"""The process that compresses behind a training ends with it, however that ends, and leaves every checkpoint whole."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import ckptfmt
from tests.integration.compress_work import STEPS, state_of

PROGRAM = Path(__file__).parent / "compress_work.py"


@pytest.fixture
def training(tmp_path):
    command = [sys.executable, str(PROGRAM), str(tmp_path / "r")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "compressing\n"
        yield process
        process.kill()


def children_of(pid):
    return [int(number) for number in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()] + [
        int(number) for task in Path(f"/proc/{pid}/task").iterdir() for number in (task / "children").read_text().split()
    ]


def is_there(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_gone(pids):
    end = time.monotonic() + 20
    while any(map(is_there, pids)):
        assert time.monotonic() < end
        time.sleep(0.02)


def check_and_finish(path):
    compressed = 0
    for step in range(STEPS):
        checkpoint = path / f"step-{step:08d}"
        assert ckptfmt.verify(checkpoint).ok
        assert np.array_equal(ckptfmt.load(checkpoint)["model"]["w"], state_of(step)["model"]["w"])
        with ckptfmt.open_checkpoint(checkpoint) as found:
            compressed += bool(found.manifest.requires)
    assert 0 < compressed < STEPS
    assert {step.reason for step in ckptfmt.compress_run(path).steps} == {"", "last 1"}
    assert ckptfmt.verify(path / "step-00000000").ok
    # What was not finished is gone with the next attempt.
    assert not [name for step in path.glob("step-*") for name in os.listdir(step) if name.endswith(".tmp")]


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_it_runs_only_where_nobody_else_wants_the_machine(training):
    (child,) = set(children_of(training.pid))
    assert os.sched_getscheduler(child) == os.SCHED_IDLE
    assert os.getpriority(os.PRIO_PROCESS, child) == 19


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_closing_a_run_ends_it_at_once(training, tmp_path):
    children = children_of(training.pid)
    training.stdin.write("close\n")
    training.stdin.flush()
    assert float(training.stdout.readline()) < 5
    wait_until_gone(children)
    assert not [name for step in (tmp_path / "r").glob("step-*") for name in os.listdir(step) if name.endswith(".tmp")]
    check_and_finish(tmp_path / "r")


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_training_that_is_killed_takes_it_along(training, tmp_path):
    children = children_of(training.pid)
    training.kill()
    training.wait()
    wait_until_gone(children)
    check_and_finish(tmp_path / "r")


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_one_that_is_killed_is_started_again(training, tmp_path):
    os.kill(children_of(training.pid)[0], 9)
    end = time.monotonic() + 20
    path = tmp_path / "r" / f"step-{STEPS - 2:08d}"
    while '"codec:planes"' not in (path / "manifest.json").read_text():
        assert time.monotonic() < end
        time.sleep(0.05)
    training.stdin.write("close\n")
    training.stdin.flush()
    assert float(training.stdout.readline()) < 5
