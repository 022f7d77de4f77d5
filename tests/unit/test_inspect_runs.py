"""ckpt-inspect on runs that ckptfmt wrote: the list of steps, best, cleanup, convert, and verify with journals."""

from __future__ import annotations

import json
import math
import os
import re
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import ckptfmt
from ckpt_inspect.sources import run_writer
from ckpt_inspect.sources.run_writer import find_writer

LOSSES = (0.9, 0.5, math.nan, 0.6)


def write_run(path, losses=LOSSES, **options):
    with ckptfmt.Run(path, durable=False, **options) as run:
        for index, loss in enumerate(losses, 1):
            state = {"model": {"w": np.full(2000, index, np.float32), "frozen": np.zeros(50_000)}, "epoch": index}
            run.save(index * 100, state, metrics={"val.loss": loss, "epoch": index})
    return str(path)


@pytest.fixture
def run_path(tmp_path):
    return write_run(tmp_path / "run")


@pytest.fixture
def document(run):
    def document(*arguments):
        status, out, _ = run(*arguments, "--json")
        parsed = json.loads(out)
        assert (status, parsed["schema_version"]) == (0, 1)
        return parsed

    return document


def damage(run_path, step):
    path = os.path.join(run_path, f"step-{step:08d}")
    shard = os.path.join(path, next(name for name in os.listdir(path) if name.endswith(".safetensors")))
    os.unlink(shard)


def steps_of(run_path):
    return sorted(int(name[5:]) for name in os.listdir(run_path) if name.startswith("step-"))


# The list of steps


def test_a_run_shows_unique_sizes_marks_journals_and_what_is_set_aside(run_path, run):
    os.mkdir(os.path.join(run_path, "aside-20260101T000000.000000Z-restart-history"))
    status, out, err = run(run_path)

    assert (status, err) == (0, "")
    assert "  journals     history\n  set aside    1 entry named aside-*\n" in out
    assert re.search(r"\nstep  created \(UTC\) +size +unique  epoch  val.loss\n", out)
    lines = [line for line in out.splitlines() if re.match(r" +\d+00  ", line)]
    assert [("*" in line, line.endswith("newest")) for line in lines] == [(False, False), (True, False), (False, False), (False, True)]
    assert "locked" not in out


def test_the_list_is_a_document_too(run_path, document):
    listed = document(run_path)

    assert (listed["journals"], listed["set_aside"], listed["locked_by"]) == (["history"], [], None)
    assert [checkpoint["marks"] for checkpoint in listed["checkpoints"]] == [[], ["lowest val.loss"], [], ["newest"]]
    assert all(checkpoint["unique_bytes"] < checkpoint["size_bytes"] for checkpoint in listed["checkpoints"])


def test_damaged_checkpoints_are_never_newest_or_best(run_path, document):
    damage(run_path, 400)
    damage(run_path, 200)
    listed = document(run_path)["checkpoints"]

    assert [(checkpoint["status"], checkpoint["marks"]) for checkpoint in listed] == [
        ("complete", []),
        ("damaged", []),
        ("complete", ["newest"]),
        ("damaged", []),
    ]


def test_who_writes_is_told_while_it_writes_and_only_then(run_path, run, document):
    with ckptfmt.Run(run_path) as writing:
        writing.log(500, {"val.loss": 1.0})
        assert f"  locked       by process {os.getpid()} on " in run(run_path)[1]
        assert document(run_path)["locked_by"]["pid"] == os.getpid()

    assert find_writer(run_path) is None


@pytest.mark.skipif(sys.platform == "win32", reason="has no such locks")
def test_where_the_system_lists_no_locks_the_lock_itself_is_asked(run_path, monkeypatch):
    monkeypatch.setattr(run_writer, "_LOCK_LIST", "/nowhere")
    assert find_writer(run_path) is None
    with ckptfmt.Run(run_path) as writing:
        writing.log(500, {})
        assert find_writer(run_path).pid == os.getpid()


@pytest.mark.parametrize("note", [b"", b"[]", b"{}", b'{"pid":"x","host":1,"since_utc":2}', b"\xff", None])
def test_a_note_that_says_nothing_is_no_writer(run_path, note):
    os.unlink(os.path.join(run_path, ".lock"))
    if note is not None:
        Path(run_path, ".lock").write_bytes(note)

    assert find_writer(run_path) is None


def test_a_thousand_steps_are_listed_well_within_a_second(tmp_path, run):
    path = write_run(tmp_path / "run", [0.5])
    source = os.path.join(path, "step-00000100")
    for step in range(1, 1001):
        target = os.path.join(path, f"step-{step:08d}")
        if target != source:
            os.mkdir(target)
            for name in os.listdir(source):
                os.link(os.path.join(source, name), os.path.join(target, name))
    run(path)
    started = time.process_time()
    status, out, _ = run(path)

    assert status == 0
    assert "checkpoints  1,000" in out
    assert time.process_time() - started < 1


# best


def test_best_shows_step_path_and_value(run_path, run, document):
    status, out, _ = run("best", run_path, "--metric", "val.loss", "--mode", "min")

    assert status == 0
    assert out.startswith(f"  step      200\n  path      {run_path}/step-00000200\n  val.loss  0.5\n")
    found = document("best", run_path, "--metric", "val.loss", "--mode", "max")
    assert (found["kind"], found["step"], found["value"]) == ("best", 100, 0.9)


def test_best_passes_damaged_checkpoints_over(run_path, run):
    damage(run_path, 200)
    status, out, err = run("best", run_path, "--metric", "val.loss", "--mode", "min")

    assert status == 0
    assert "step      400" in out
    assert "passed over, it is damaged" in err


def test_best_of_an_unknown_metric_lists_what_there_is(run_path, run):
    status, _, err = run("best", run_path, "--metric", "loss", "--mode", "min")

    assert status == 2
    assert err == f"ckpt-inspect: {run_path}: no metric is named 'loss'\n  There are: epoch, val.loss.\n"


def test_nan_is_never_best(tmp_path, run):
    path = write_run(tmp_path / "nan", [math.nan])
    status, _, err = run("best", path, "--metric", "val.loss", "--mode", "max")

    assert status == 10
    assert "no sound checkpoint has a value of 'val.loss' that is a number" in err


@pytest.mark.parametrize("command", [["best", "--metric", "m", "--mode", "min"], ["history"], ["cleanup", "--keep-last", "1", "-n"]])
def test_commands_on_runs_refuse_what_is_none(tmp_path, run_path, run, command):
    name, *options = command
    status, _, err = run(name, os.path.join(run_path, "step-00000100"), *options)

    assert status == 2
    assert err.splitlines()[0] == f"ckpt-inspect: {run_path}/step-00000100: expected a run, found a checkpoint"
    assert run(name, str(tmp_path / "nothing"), *options)[0] == 10


# cleanup


def test_a_dry_run_shows_a_reason_for_each_and_deletes_nothing(run_path, run):
    options = ("--keep-last", "1", "--keep-best", "1", "--metric", "val.loss", "--mode", "min", "--keep-every", "300")
    status, out, err = run("cleanup", run_path, *options, "-n")

    assert (status, err) == (0, "")
    lines = [re.sub(r"  +", "|", line.strip()) for line in out.splitlines() if re.match(r" +\d+00  ", line)]
    assert [line.split("|")[0::3] + line.split("|")[4:] for line in lines] == [
        ["100", "delete", "no rule keeps it"],
        ["200", "keep", "best 1 by val.loss"],
        ["300", "keep", "every 300"],
        ["400", "keep", "last 1, newest sound"],
    ]
    assert re.search(r"\n3 checkpoints kept, 1 would be deleted, [\d.]+ kB would be freed\n$", out)
    assert steps_of(run_path) == [100, 200, 300, 400]


def test_yes_deletes_and_says_what_was_freed(run_path, run, document):
    planned = document("cleanup", run_path, "--keep-last", "2", "-n")
    done = document("cleanup", run_path, "--keep-last", "2", "-y")

    assert (planned["kept"], planned["removed"], planned["dry_run"]) == ([300, 400], [100, 200], True)
    assert (done["kept"], done["removed"], done["dry_run"]) == ([300, 400], [100, 200], False)
    assert planned["freed_bytes"] == done["freed_bytes"] > 10_000
    assert steps_of(run_path) == [300, 400]
    assert run("cleanup", run_path, "--keep-last", "2", "-y")[1].endswith("2 checkpoints kept, 0 deleted, 0 B freed\n")


def test_what_only_deleted_checkpoints_share_counts_as_freed(tmp_path, document):
    path = str(tmp_path / "run")
    with ckptfmt.Run(path, durable=False) as run:
        for step, value in ((1, 1), (2, 1), (3, 2)):
            run.save(step, {"w": np.full(100_000, value, np.uint8)})

    assert document("cleanup", path, "--keep-last", "1", "-n")["freed_bytes"] > 100_000


def test_a_locked_run_is_left_alone(run_path, run):
    with ckptfmt.Run(run_path) as writing:
        writing.log(500, {})
        status, _, err = run("cleanup", run_path, "--keep-last", "1", "-y")
        assert status == 11
        assert f"process {os.getpid()} on" in err
        assert run("cleanup", run_path, "--keep-last", "1", "-n")[0] == 0
    assert steps_of(run_path) == [100, 200, 300, 400]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "no rule says what to keep"),
        (["--keep-last", "0"], "--keep-last 0: expected a positive integer"),
        (["--keep-best", "1"], "--keep-best needs --metric"),
        (["--keep-within", "7x"], "--keep-within '7x': expected a duration such as '7d'"),
        (["--keep-best", "1", "--metric", "loss", "--mode", "min"], "no metric is named 'loss'"),
        (["--keep-last", "1"], None),
    ],
)
def test_a_clean_up_that_cannot_be_meant_is_refused(run_path, run, options, message):
    status, _, err = run("cleanup", run_path, *options, *(["-y"] if message else []))

    assert status == 2
    assert (message or "there is nobody to ask") in err
    assert steps_of(run_path) == [100, 200, 300, 400]


@pytest.mark.parametrize(("answer", "left"), [("y\n", [400]), ("n\n", [100, 200, 300, 400]), ("", [100, 200, 300, 400])])
def test_on_a_terminal_somebody_is_asked(run_path, run, monkeypatch, answer, left):
    class Terminal:
        def isatty(self):
            return True

        def readline(self):
            return answer

    monkeypatch.setattr(sys, "stdin", Terminal())
    status, out, err = run("cleanup", run_path, "--keep-last", "1")

    assert status == 0
    assert re.fullmatch(r"Delete 3 checkpoints and free [\d.]+ [kM]B\? \[y/N\] ", err)
    assert ("3 checkpoints deleted" if answer == "y\n" else "nothing was deleted") in out
    assert steps_of(run_path) == left


# convert


def test_a_run_becomes_a_folder_of_results(run_path, tmp_path, run, document):
    target = str(tmp_path / "results")
    status, out, _ = run("convert", run_path, target, "--steps", "best,300", "--metric", "val.loss", "--mode", "min")

    assert status == 0
    assert out.splitlines()[0] == f"{target}/history.json"
    assert sorted(os.listdir(target)) == ["history.csv", "history.json", "step-00000200", "step-00000300"]
    written = document("convert", run_path, str(tmp_path / "latest"))["written"]
    assert any("step-00000400" in path for path in written)


def test_a_section_becomes_one_safetensors_file(run_path, tmp_path, run):
    from safetensors.numpy import load_file

    target = str(tmp_path / "model.safetensors")
    source = os.path.join(run_path, "step-00000200")
    assert run("convert", source, target)[1] == f"{target}\n2 tensors of section model, 408.0 kB\n"
    assert load_file(target)["w"].tolist() == [2.0] * 2000
    assert run("diff", source, target)[0] == 0
    assert run("convert", source, target)[::2] == (2, f"ckpt-inspect: {target}: exists already\n  Give another name, or --overwrite.\n")
    assert run("convert", source, target, "--section", "model", "--overwrite")[0] == 0


@pytest.mark.parametrize(
    ("options", "target", "message"),
    [
        ([], "x.foo", "a checkpoint cannot be converted to"),
        (["--section", "optimizer"], "x.safetensors", "no section with tensors is named 'optimizer'\n  There are: model."),
        (["--steps", "best"], "x.safetensors", "--steps: means nothing for this conversion"),
    ],
)
def test_other_conversions_are_refused_with_what_works(run_path, tmp_path, run, options, target, message):
    status, _, err = run("convert", os.path.join(run_path, "step-00000100"), str(tmp_path / target), *options)

    assert status == 2
    assert message in err


def test_what_safetensors_cannot_hold_is_refused_and_nothing_is_left(tmp_path, run):
    path = str(tmp_path / "checkpoint")
    ckptfmt.save(path, {"model": {"z": np.zeros(3, complex)}}, durable=False)
    status, _, err = run("convert", path, str(tmp_path / "m.safetensors"))

    assert status == 2
    assert "safetensors has no such element type or name: z" in err
    assert os.listdir(tmp_path) == ["checkpoint"]


def test_best_of_a_run_needs_a_metric(run_path, tmp_path, run):
    assert "best: needs --metric and --mode" in run("convert", run_path, str(tmp_path / "x"), "--steps", "best")[2]
    assert "expected best, latest or a number, found '1x'" in run("convert", run_path, str(tmp_path / "x"), "--steps", "1x")[2]
    assert run("convert", run_path, str(tmp_path / "x"), "--steps", "150")[0] == 10
