"""`ckpt-inspect watch`: what a look at a run reads, finds and foretells."""

from __future__ import annotations

import io
import json
import os
import shutil
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

import ckptfmt
from ckpt_inspect.output.screen import Screen
from ckpt_inspect.sources import run_watch
from ckpt_inspect.sources.run_watch import RunWatch, logged_of
from ckpt_inspect.views.watch_changes import changes_between
from ckpt_inspect.views.watch_lines import Wanted, best_of, next_save_at, watch_lines


def save(run, step, **metrics):
    run.save(step, {"model": {"w": np.full(500, step, np.float32), "frozen": np.zeros(20_000)}}, metrics=metrics)


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "run")


@pytest.fixture
def run_path(path):
    with ckptfmt.Run(path, durable=False) as run:
        for step, loss in ((100, 0.5), (200, 0.3), (300, 0.4)):
            run.log(step - 1, {"train.loss": loss})
            save(run, step, **{"val.loss": loss})
        progress = run.progress("calls", total=10)
        for key in list(progress.pending(range(4))):
            progress.done(key, "x")
    return path


@pytest.fixture
def looking(path):
    with RunWatch(path) as watching:
        yield watching


def utf8_screen(width=None):
    return Screen(io.TextIOWrapper(io.BytesIO(), "utf-8"), width=width)


def text_of(snapshot, wanted=None, **options):
    screen = utf8_screen()
    return "\n".join(watch_lines(snapshot, wanted or Wanted(), screen, {}, **options))


@pytest.fixture
def count(monkeypatch):
    read = []
    original = run_watch.list_checkpoint
    monkeypatch.setattr(run_watch, "list_checkpoint", lambda step, path: read.append(step) or original(step, path))
    return read


def age(path, seconds=10):
    """Let every checkpoint have been changed some time ago."""
    for name in os.listdir(path):
        if name.startswith("step-"):
            before = time.time() - seconds
            os.utime(os.path.join(path, name), (before, before))


# What a look finds


def test_a_look_tells_what_is_there(run_path, looking):
    snapshot = looking.look()

    assert [listed.step for listed in snapshot.run.checkpoints] == [100, 200, 300]
    assert (snapshot.logged.step, snapshot.logged.metrics) == (300, {"val.loss": 0.4})
    assert [(progress.name, progress.done, progress.total) for progress in snapshot.progresses] == [("calls", 4, 10)]
    assert snapshot.writer is None
    assert snapshot.last_writer.pid == os.getpid()
    assert best_of(snapshot, Wanted()).listed.step == 200
    assert best_of(snapshot, Wanted("val.loss", "max")).listed.step == 100


def test_the_picture_has_a_line_for_each_fact(run_path, looking):
    text = text_of(looking.look(), Wanted(until=600))

    for line in (
        f"  writer     no writer: process {os.getpid()} on ",
        "  logged     step 300, just now  val.loss 0.4\n",
        "  left       300 of 600 steps (50 % done), about ",
        "  latest     step 300, just now, ",
        "  best       step 200, lowest val.loss 0.3\n",
        "  sizes      3 checkpoints, ",
        "  calls  ████████░░░░░░░░░░░░  4 of 10, 40 %",
    ):
        assert line in text
    assert "next save" not in text


def test_what_does_not_fit_is_left_out_metric_by_metric(run_path, looking):
    snapshot = looking.look()
    logged = replace(snapshot.logged, metrics={f"metric.number.{index}": 1 / 3 for index in range(9)})
    lines = text_of(replace(snapshot, logged=logged)).splitlines()

    assert max(map(len, lines)) <= 80
    assert next(line for line in lines if "logged" in line).endswith("now  metric.number.0 0.333333")


def test_a_picture_is_no_higher_than_the_screen(run_path, looking):
    snapshot = looking.look()
    charts = {"val.loss": looking.points("val.loss")}
    screen = utf8_screen(80)
    for height in range(1, 60):
        assert len(list(watch_lines(snapshot, Wanted(), screen, charts, height=height))) <= height
    assert any("⠉" in line for line in watch_lines(snapshot, Wanted(), screen, charts, height=23))


def test_where_nothing_is_there_is_nothing_to_see(path, looking):
    assert looking.look() is None
    os.mkdir(path)
    snapshot = looking.look()
    assert (snapshot.run.checkpoints, snapshot.logged, snapshot.pace) == ([], None, None)
    assert "writer     no writer\n" in text_of(snapshot)


def test_a_run_that_is_removed_and_made_again_is_another_one(run_path, path, looking):
    looking.look()
    shutil.rmtree(path)
    assert looking.look() is None
    with ckptfmt.Run(path, durable=False) as run:
        run.log(1, {"loss": 1.0})

    assert looking.look().logged.step == 1
    assert looking.points("loss") == [(1, 1.0)]


def test_a_restart_forgets_history_and_progress(run_path, path, looking):
    looking.look()
    with pytest.warns(match="starting anew"):
        run = ckptfmt.Run(path, resume="never", durable=False)
    with run:
        run.log(5, {"loss": 1.0})
        run.progress("calls", total=10).done("k")
        snapshot = looking.look()

    assert [snapshot.logged.step, snapshot.progresses[0].done, len(snapshot.run.checkpoints)] == [5, 1, 0]
    assert snapshot.writer.pid == os.getpid()


def test_a_damaged_journal_is_told(run_path, path, looking):
    looking.look()
    folder = os.path.join(path, "history")
    segment = os.path.join(folder, os.listdir(folder)[0])
    os.chmod(segment, 0o644)
    with open(segment, "r+b") as file:
        file.seek(300)
        file.write(b"\xff" * 40)
    with RunWatch(path) as again:
        assert "  problem    " in text_of(again.look())


def test_a_damaged_checkpoint_is_told_and_never_latest(run_path, path, looking):
    folder = os.path.join(path, "step-00000300")
    os.unlink(os.path.join(folder, next(name for name in os.listdir(folder) if name.startswith("metadata"))))
    text = text_of(looking.look())

    assert "latest     step 200" in text
    assert "damaged    step 300: metadata-" in text


# What a look reads


def test_a_second_look_reads_no_manifest_again(run_path, path, looking, count):
    age(path)
    looking.look()
    assert count == [100, 200, 300]
    looking.look()
    assert count == [100, 200, 300]


def test_only_what_has_changed_is_read(run_path, path, looking, count):
    age(path)
    looking.look()
    count.clear()
    with ckptfmt.Run(path, durable=False) as run:
        save(run, 400)
        shutil.rmtree(os.path.join(path, "step-00000100"))
        looking.look()

    assert count == [400]


def test_a_checkpoint_that_has_just_changed_is_read_again(run_path, looking, count):
    looking.look()
    looking.look()

    assert count == [100, 200, 300] * 2


def test_an_idle_look_at_many_checkpoints_costs_little(run_path, path, looking):
    source = os.path.join(path, "step-00000300")
    for step in range(1000, 1200):
        target = os.path.join(path, f"step-{step:08d}")
        os.mkdir(target)
        for name in os.listdir(source):
            os.link(os.path.join(source, name), os.path.join(target, name))
    age(path)
    looking.look()
    started = time.process_time()
    for _ in range(10):
        looking.look()

    # With two seconds between looks this is far below one percent of a processor.
    assert (time.process_time() - started) / 10 < 0.015


# What it foretells


def test_what_has_stopped_has_no_time_left(run_path, looking):
    snapshot = looking.look()
    assert " s left" in text_of(snapshot)
    stopped = replace(snapshot.progresses[0], last_at=time.time() - 7200)
    assert "  calls  ████████░░░░░░░░░░░░  4 of 10, 40 %, last 2 hours ago" in text_of(replace(snapshot, progresses=[stopped]))


def test_the_next_save_is_expected_at_the_usual_distance(run_path, path, looking):
    with ckptfmt.Run(path, durable=False) as run:
        run.log(301, {})
        snapshot = looking.look()
        created = datetime.fromisoformat(snapshot.run.checkpoints[-1].manifest.created_at_utc)
        slower = replace(snapshot, pace=replace(snapshot.pace, seconds=90.0))
        assert next_save_at(slower) == (400, created + timedelta(seconds=90))
        assert "  next save  step 400 in 1 min " in text_of(slower)
        assert "expected " in text_of(replace(snapshot, pace=replace(snapshot.pace, seconds=-500.0)))
    assert next_save_at(looking.look()) is None


def rows_at(times):
    begin = datetime(2025, 11, 21, tzinfo=UTC)
    return {
        step: {"step": step, "created_at_utc": f"{begin + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%S.%fZ}", "loss": 1.0}
        for step, seconds in times.items()
    }


def test_the_rate_of_steps_leaves_pauses_out():
    assert logged_of(rows_at({step: 0.5 * step for step in range(50)})).steps_per_second == pytest.approx(2)
    paused = {step: 0.5 * step + (3600 if step > 25 else 0) for step in range(50)}
    assert logged_of(rows_at(paused)).steps_per_second == pytest.approx(2)
    assert logged_of(rows_at({7: 0})).steps_per_second is None
    assert logged_of({}) is None
    assert logged_of({1: {"step": 1, "created_at_utc": "nonsense"}}).at is None


# What changes


def test_changes_are_told_one_by_one(run_path, path, looking):
    before = looking.look()
    with ckptfmt.Run(path, durable=False) as run:
        save(run, 400, **{"val.loss": 0.2})
        run.progress("calls").done("another", "x")
        shutil.rmtree(os.path.join(path, "step-00000100"))
        after = looking.look()

    changes = list(changes_between(before, after))
    assert [change.kind for change in changes] == ["writer", "checkpoint", "removed", "logged", "progress"]
    assert changes[0].text.endswith(" writes")
    assert changes[1].text.startswith("step 400 saved, ")
    assert changes[1].document["metrics"] == {"val.loss": 0.2}
    assert changes[2].document == {"steps": [100]}
    assert changes[4].text.startswith("calls: 5 of 10, 50 % done")
    assert [change.kind for change in changes_between(after, looking.look())] == ["writer"]
    assert list(changes_between(before, before)) == []


def test_damage_is_a_change(run_path, path, looking):
    before = looking.look()
    os.truncate(os.path.join(path, "step-00000200", "manifest.json"), 10)

    assert [(change.kind, change.document["step"]) for change in changes_between(before, looking.look())] == [("damaged", 200)]


# The command


def test_one_look_is_shown_and_ends(run_path, run):
    status, out, err = run("watch", run_path, "--once", "--metric", "val.loss", "--mode", "max")

    assert (status, err) == (0, "")
    assert "  best       step 100, highest val.loss 0.5\n" in out
    assert "⠉" in out
    document = json.loads(run("watch", run_path, "--once", "--json")[1])
    assert (document["message_type"], document["best"]["step"], document["progress"][0]["done"]) == ("status", 200, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--metric", "loss"], "--metric and --mode belong together"),
        (["--metric", "loss", "--mode", "min"], "no metric is named 'loss'\n  There are: val.loss."),
        (["--interval", "0"], "--interval: expected 0.1 to 86400 seconds, found 0.0"),
        (["--interval", "nan"], "--interval: expected 0.1 to 86400 seconds, found nan"),
    ],
)
def test_wrong_options_are_refused(run_path, run, options, message):
    status, _, err = run("watch", run_path, "--once", *options)

    assert status == 2
    assert message in err


def test_what_is_no_run_is_refused(run_path, tmp_path, run):
    (tmp_path / "file").write_text("")

    assert "expected a run, found a checkpoint" in run("watch", os.path.join(run_path, "step-00000100"), "--once")[2]
    assert "expected a run, found a file" in run("watch", str(tmp_path / "file"))[2]
    assert run("watch", str(tmp_path / "nothing"), "--once")[0] == 10
    assert run("watch", "a\0b")[0] == 10


def test_hostile_names_are_escaped(tmp_path, run, monkeypatch):
    monkeypatch.setattr("ckptfmt.run.run.metric_values", dict)
    path = tmp_path / "\x1b[2J"
    with ckptfmt.Run(path, durable=False) as writing:
        writing.log(1, {"\x1b[31mloss\u202e\n": 1.0})
        writing.log(2, {"\x1b[31mloss\u202e\n": 1.0})
    _, out, _ = run("watch", str(path), "--once")

    assert all(character.isprintable() or character == "\n" for character in out)
    assert "\\x1b[31mloss\\u202e\\n 1" in out
