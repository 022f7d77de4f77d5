"""`ckpt-inspect compress` and `decompress` as somebody at a terminal of 80 columns sees them, and what an interrupt leaves."""

import json
import os
import pty
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import ckptfmt
from ckpt_inspect.main import main

PROGRAM = (sys.executable, "-m", "ckpt_inspect")


def save_run(path, steps, rows=200):
    for step in steps:
        noise = np.random.default_rng(step).standard_normal((rows, 500)).astype("f4")
        ckptfmt.save(path / f"step-{step:08d}", {"model": {"w": noise}, "step": step}, step=step, durable=False)


@pytest.fixture
def run(tmp_path):
    save_run(tmp_path / "run", (100, 200, 300))
    return tmp_path / "run"


@pytest.fixture
def show(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")

    def show(*arguments, status=0):
        assert main([str(argument) for argument in arguments]) == status
        return capsys.readouterr().out.splitlines()

    return show


def damage(path):
    shard = next(path.glob("model-*.safetensors"))
    shard.chmod(0o644)
    with shard.open("r+b") as file:
        file.seek(-100, 2)
        file.write(b"\xff" * 50)


def test_a_dry_run_estimates_and_a_run_says_what_it_came_to(run, show):
    before = sorted(path.stat().st_mtime_ns for path in run.rglob("*"))
    lines = show("compress", run, "-n")
    assert sorted(path.stat().st_mtime_ns for path in run.rglob("*")) == before
    assert [line.split()[1] for line in lines[:-1]] == ["100", "200", "300"]
    assert lines[2].endswith("unchanged: last 1")
    assert ": 2 checkpoints would be changed, 1.2 MB -> about " in lines[-1]
    done = show("compress", run)
    assert ": 2 checkpoints changed, 1.2 MB -> " in done[-1]
    assert [line.split()[-2:] for line in done[:2]] == [["83", "%"], ["83", "%"]]
    back = show("decompress", run)
    assert [line.split()[-2:] for line in back[1:3]] == [["121", "%"], ["121", "%"]]
    assert back[-1].endswith("-> 1.2 MB")


def test_long_reasons_are_broken_at_80_columns(run, show):
    damage(run / "step-00000100")
    lines = show("compress", run, status=1)
    assert lines[0].endswith("  unchanged:")
    assert lines[1].startswith("    damaged:")
    assert all(len(line) <= 80 for line in lines[:-1])
    assert "digest differs" in " ".join(line.strip() for line in lines)


def test_the_document_says_what_became_of_each_and_why(run, capsys):
    damage(run / "step-00000100")
    assert main(["compress", str(run), str(run.parent / "none"), "--json"]) == 10
    document = json.loads(capsys.readouterr().out)
    assert [entry["changed"] for entry in document["checkpoints"]] == [False, True, False]
    assert document["checkpoints"][0]["reason"].startswith("damaged: ")
    assert document["checkpoints"][2]["reason"] == "last 1"
    assert document["after_bytes"] < document["before_bytes"]
    assert [error["exit_status"] for error in document["errors"]] == [10]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--level", "23"], "--level 23: expected a number from 1 to 22"),
        (["--older-than", "soon"], "--older-than soon: expected a duration such as 7d"),
        (["--keep-last", "-1"], "--keep-last -1: expected a number of at least 0"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything(run, options, said, capsys):
    assert main(["compress", str(run), *options]) == 2
    assert said in capsys.readouterr().err


def test_a_checkpoint_that_somebody_saves_into_is_left_alone(run, show):
    from ckptfmt.disk.local import LocalDisk

    directory = LocalDisk().open_directory(str(run / "step-00000200"))
    try:
        directory.try_lock()
        lines = show("compress", run, status=11)
        assert lines[1].endswith("unchanged: being written")
    finally:
        directory.close()
    assert main(["compress", str(run), "-q"]) == 0


def read_all(descriptor):
    found = b""
    while True:
        try:
            data = os.read(descriptor, 65536)
        except OSError:
            return found.decode()
        if not data:
            return found.decode()
        found += data


def test_on_a_terminal_a_bar_counts_the_bytes_of_one_large_checkpoint(tmp_path, monkeypatch):
    from ckpt_inspect.output import progress

    seen = []
    monkeypatch.setattr(progress.ByteProgress, "advance", lambda bar, size_bytes: seen.append(size_bytes))
    save_run(tmp_path / "run", (100, 200), rows=5000)
    assert main(["compress", str(tmp_path / "run"), "-n"]) == 0
    seen.clear()
    assert main(["compress", str(tmp_path / "run")]) == 0
    assert sum(seen) == 2 * 5000 * 500 * 4
    # In pieces, not only when a checkpoint is done.
    assert sum(size_bytes > 0 for size_bytes in seen) > 2
    seen.clear()
    assert main(["decompress", str(tmp_path / "run" / "step-00000100")]) == 0
    assert sum(seen) == 5000 * 500 * 4
    assert sum(size_bytes > 0 for size_bytes in seen) > 2


@pytest.mark.parametrize("has_terminal", [False, True])
def test_an_interrupt_leaves_every_checkpoint_whole_and_says_so(tmp_path, has_terminal):
    save_run(tmp_path / "run", range(12), rows=5000)
    terminal, of_program = pty.openpty() if has_terminal else os.pipe()
    command = [*PROGRAM, "compress", str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=of_program, text=True, env={**os.environ, "COLUMNS": "80"}) as program:
        os.close(of_program)
        assert " 0 " in program.stdout.readline()
        if has_terminal:
            time.sleep(0.5)
        program.send_signal(signal.SIGINT)
        said = read_all(terminal)
        os.close(terminal)
        assert program.wait() == 130
    assert "interrupted: " in said
    assert "every checkpoint is whole" in said
    assert "Traceback" not in said
    reports = [ckptfmt.verify(path) for path in sorted((tmp_path / "run").iterdir())]
    assert all(report.ok for report in reports)
    # Nor is anything left of what was not finished.
    assert not [path.name for path in (tmp_path / "run").rglob("*.tmp")]
    assert main(["compress", str(tmp_path / "run"), "-q"]) == 0
