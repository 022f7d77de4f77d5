"""`ckpt-inspect doctor`: how the answers of a file system are judged and shown."""

from __future__ import annotations

import json
import os

import pytest

from ckpt_inspect import diagnosis
from ckpt_inspect.views.doctor_table import Level, broken_promises, judge
from ckptfmt.disk.probe import Answer, Trial

FINE = [
    Trial("file_system", Answer.WORKS, "ext4", "ext4"),
    *(Trial(name, Answer.WORKS) for name in "write exclusive_create rename_over open_after_unlink private_map hard_links lock".split()),
    *(Trial(name, Answer.WORKS) for name in "directory_sync case clock direct_io reflink removal".split()),
    Trial("name_length", Answer.WORKS, "255 characters", 255),
    Trial("free_bytes", Answer.WORKS, "", 10**12),
    Trial("free_inodes", Answer.WORKS, "", 10**6),
    Trial("sync_seconds", Answer.WORKS, "", 0.004),
]


def test_where_everything_works_every_promise_is_kept():
    judgements = judge(FINE)

    assert {judgement.level for judgement in judgements} == {Level.OK}
    assert broken_promises(judgements) == []


@pytest.mark.parametrize(
    ("trial", "level", "meaning", "promises"),
    [
        (Trial("hard_links", Answer.DIFFERENT, "refused"), Level.NOTE, "refused: unchanged tensors are copied into each checkpoint", []),
        (Trial("lock", Answer.DIFFERENT, "refused"), Level.NOTE, "a second writer of a run is not noticed", []),
        (Trial("directory_sync", Answer.FAILED, "refused"), Level.FAILURE, "may be gone after a power cut", ["P1"]),
        (Trial("rename_over", Answer.FAILED, "x"), Level.FAILURE, "a commit is not atomic", ["P2"]),
        (Trial("write", Answer.FAILED, "read-only file system"), Level.FAILURE, "nothing can be stored here", ["P1", "P8"]),
        (Trial("file_system", Answer.FAILED, "tmpfs is memory", "tmpfs"), Level.FAILURE, "gone after a reboot", ["P1"]),
        (Trial("file_system", Answer.DIFFERENT, "nfs4 is on a network", "nfs4"), Level.NOTE, "other clients", []),
        (Trial("file_system", Answer.DIFFERENT, "fuse.x is served by another program", "fuse.x"), Level.NOTE, "up to that program", []),
        (Trial("file_system", Answer.DIFFERENT, "overlay is a layer of a container", "overlay"), Level.NOTE, "mount a volume", []),
        (Trial("file_system", Answer.UNKNOWN, "this system does not tell"), Level.NOTE, "does not tell", []),
        (Trial("direct_io", Answer.DIFFERENT, "refused"), Level.NOTE, "through the page cache", []),
        (Trial("reflink", Answer.DIFFERENT, "refused"), Level.OK, "not needed", []),
        (Trial("name_length", Answer.DIFFERENT, "100 characters", 100), Level.FAILURE, "saves need up to 128", ["P8"]),
        (Trial("name_length", Answer.DIFFERENT, "143 characters", 143), Level.OK, "143 characters", []),
        (Trial("free_bytes", Answer.FAILED, "", 0), Level.FAILURE, "no save fits", ["P8"]),
        (Trial("free_bytes", Answer.WORKS, "", 10**6), Level.NOTE, "1.0 MB free: little", []),
        (Trial("free_inodes", Answer.WORKS, "without a limit"), Level.OK, "without a limit", []),
        (Trial("sync_seconds", Answer.FAILED, "input/output error"), Level.FAILURE, "nothing here is durable", ["P1"]),
        (Trial("sync_seconds", Answer.WORKS, "", 0.0), Level.NOTE, "no disk is that fast", []),
    ],
)
def test_each_answer_is_told_with_what_it_means(trial, level, meaning, promises):
    (judgement,) = judge([trial])

    assert judgement.level is level
    assert meaning in judgement.meaning
    assert broken_promises([judgement]) == promises


def test_a_real_directory_is_diagnosed_and_left_as_it_was(tmp_path, run):
    status, out, err = run("doctor", str(tmp_path) + "/")
    document = json.loads(run("doctor", str(tmp_path), "--json")[1])

    assert err == ""
    assert out.startswith(f"{tmp_path}\n\n")
    assert max(map(len, out.splitlines()[1:])) <= 80
    assert status == (0 if document["ok"] else 1)
    assert os.listdir(tmp_path) == []


def test_what_cannot_be_kept_is_status_1(tmp_path, run, monkeypatch):
    monkeypatch.setattr(diagnosis, "probe_host", lambda path: [*FINE, Trial("write_barriers", Answer.FAILED, "mounted with nobarrier")])
    status, out, _ = run("doctor", str(tmp_path))

    assert status == 1
    assert "fail  write barriers        mounted with nobarrier: a commit may be gone after a\n" in out
    assert out.endswith("not all promises can be kept here: P1\n")
    assert json.loads(run("doctor", str(tmp_path), "--json")[1])["broken_promises"] == ["P1"]


def test_what_is_no_directory_is_refused(tmp_path, run):
    (tmp_path / "file").write_text("")

    assert run("doctor", str(tmp_path / "nothing"))[::2] == (10, f"ckpt-inspect: {tmp_path}/nothing: no such directory\n")
    assert run("doctor", str(tmp_path / "file"))[0] == 2
    assert run("doctor", "a\0b")[0] == 10
