"""Paths: every kind that is given, everything that may be in the way, and what sharing files with a base does to them."""

import os
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

import ckptfmt

STATE = {"model": {"w": torch.arange(1000.0)}, "head": torch.ones(3)}
NOBODY = 65534


@pytest.mark.parametrize("kind", [str, Path])
def test_paths_may_be_text_or_path_objects(tmp_path, kind):
    path = kind(tmp_path / "c")
    info = ckptfmt.save(path, STATE)
    assert info.path == str(tmp_path / "c")
    assert ckptfmt.load(path)["head"].tolist() == [1, 1, 1]
    assert ckptfmt.is_complete(path)
    assert ckptfmt.verify(path).ok
    with ckptfmt.open_checkpoint(path) as checkpoint:
        assert checkpoint.path == str(path)


def test_the_info_of_a_checkpoint_stands_for_its_path(tmp_path):
    info = ckptfmt.save(tmp_path / "c", STATE)
    assert ckptfmt.load(info)["head"].tolist() == [1, 1, 1]
    assert ckptfmt.verify(info).ok
    assert ckptfmt.is_complete(info)
    assert ckptfmt.save(tmp_path / "d", STATE, base=info).unique_bytes < info.unique_bytes
    ckptfmt.save(info, {"other": 1}, overwrite=True)
    assert ckptfmt.load(info) == {"other": 1}


def test_relative_paths_are_relative_to_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert ckptfmt.save("c", STATE).path == "c"
    ckptfmt.save("./a/b", STATE)
    assert ckptfmt.is_complete(tmp_path / "c")
    assert ckptfmt.is_complete(tmp_path / "a" / "b")
    assert ckptfmt.load("a/../c")["head"].tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    "name", ["with space", "ünïcödé 数据 🎉", "trailing.", "-rf", "a" * 200, "new\nline", "per%cent", "st*r?[x]", "c.safetensors"]
)
def test_any_name_of_a_directory_works(tmp_path, name):
    ckptfmt.save(tmp_path / name, STATE)
    assert ckptfmt.verify(tmp_path / name).ok
    assert ckptfmt.load(tmp_path / name, only="head")["head"].tolist() == [1, 1, 1]


def test_a_name_that_is_no_unicode_works(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe")
    ckptfmt.save(path, STATE)
    assert ckptfmt.load(path)["head"].tolist() == [1, 1, 1]
    with pytest.raises(ckptfmt.NameNotFoundError) as caught:
        ckptfmt.load(path, only="nothing")
    assert str(caught.value).partition("\n")[0].isprintable()


def test_a_trailing_slash_is_harmless(tmp_path):
    ckptfmt.save(f"{tmp_path}/a/c/", STATE)
    assert ckptfmt.load(f"{tmp_path}/a/c//")["head"].tolist() == [1, 1, 1]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_missing_parents_are_made(tmp_path):
    ckptfmt.save(tmp_path / "a" / "b" / "c" / "d", STATE)
    assert ckptfmt.is_complete(tmp_path / "a" / "b" / "c" / "d")


def test_an_empty_directory_is_taken(tmp_path):
    (tmp_path / "c").mkdir()
    ckptfmt.save(tmp_path / "c", STATE)
    assert ckptfmt.is_complete(tmp_path / "c")


def test_a_link_to_a_directory_is_followed(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    ckptfmt.save(tmp_path / "link", STATE)
    assert ckptfmt.is_complete(tmp_path / "real")


@pytest.mark.parametrize("place", ["file", "file/c", "file/c/d"])
def test_a_file_in_the_way_is_an_error_of_the_system_that_names_it(tmp_path, place):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(NotADirectoryError) as caught:
        ckptfmt.save(tmp_path / place, STATE)
    assert "file" in str(caught.value.filename)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_dangling_link_in_the_way_is_an_error_of_the_system(tmp_path):
    (tmp_path / "c").symlink_to("nowhere")
    with pytest.raises(OSError, match="c"):
        ckptfmt.save(tmp_path / "c", STATE)
    assert not (tmp_path / "nowhere").exists()


@contextmanager
def without_permission(*directories):
    """Act as somebody who may only read these directories; the superuser, who may do everything, becomes nobody for that."""
    is_superuser = os.geteuid() == 0
    for directory in directories:
        directory.chmod(0o555)
    if is_superuser:
        for parent in directories[-1].parents:
            if parent.stat().st_uid == 0 and parent != Path("/"):
                parent.chmod(parent.stat().st_mode | 0o055)
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if is_superuser:
            os.seteuid(0)
        for directory in directories:
            directory.chmod(0o755)


def test_a_directory_that_may_not_be_written_is_an_error_of_the_system_that_names_it(tmp_path):
    ckptfmt.save(tmp_path / "c", STATE)
    before = sorted(path.name for path in (tmp_path / "c").iterdir())
    with without_permission(tmp_path / "c", tmp_path):
        with pytest.raises(PermissionError, match="c"):
            ckptfmt.save(tmp_path / "c", STATE, overwrite=True)
        with pytest.raises(PermissionError, match="new"):
            ckptfmt.save(tmp_path / "new", STATE)
        assert ckptfmt.load(tmp_path / "c")["head"].tolist() == [1, 1, 1]
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == before
    assert not (tmp_path / "new").exists()


def test_a_file_that_may_not_be_read_is_an_error_of_the_system_that_names_it(tmp_path):
    ckptfmt.save(tmp_path / "c", STATE)
    (tmp_path / "c" / "manifest.json").chmod(0)
    with without_permission(tmp_path / "c", tmp_path):
        for read in (ckptfmt.load, ckptfmt.is_complete, ckptfmt.verify):
            with pytest.raises(PermissionError, match=r"manifest\.json"):
                read(tmp_path / "c")


def links_of(path):
    return {file.name: file.stat().st_nlink for file in path.glob("*.safetensors")}


def test_a_base_shares_unchanged_tensors_by_hard_links(tmp_path):
    base = ckptfmt.save(tmp_path / "a", STATE)
    info = ckptfmt.save(tmp_path / "b", {**STATE, "head": torch.zeros(3)}, base=tmp_path / "a")
    assert sorted(links_of(tmp_path / "b").values()) == [1, 2]
    assert info.unique_bytes < base.unique_bytes
    assert info.size_bytes == sum(file.stat().st_size for file in (tmp_path / "b").iterdir())
    with ckptfmt.open_checkpoint(tmp_path / "b") as checkpoint:
        assert checkpoint.info == info
    with ckptfmt.open_checkpoint(tmp_path / "a") as checkpoint:
        assert checkpoint.info.unique_bytes < base.unique_bytes


@pytest.mark.parametrize("gone", ["a", "b"])
def test_deleting_one_of_two_that_share_files_harms_neither(tmp_path, gone):
    ckptfmt.save(tmp_path / "a", STATE)
    ckptfmt.save(tmp_path / "b", {**STATE, "head": torch.zeros(3)}, base=tmp_path / "a")
    kept = {"a": "b", "b": "a"}[gone]
    for file in (tmp_path / gone).iterdir():
        file.unlink()
    assert ckptfmt.verify(tmp_path / kept).findings == ()
    assert torch.equal(ckptfmt.load(tmp_path / kept)["model"]["w"], STATE["model"]["w"])


def test_a_checkpoint_may_be_its_own_base(tmp_path):
    ckptfmt.save(tmp_path / "c", STATE)
    model = next((tmp_path / "c").glob("model-*")).stat()
    ckptfmt.save(tmp_path / "c", {**STATE, "head": torch.zeros(3)}, base=tmp_path / "c", overwrite=True)
    assert next((tmp_path / "c").glob("model-*")).stat().st_ino == model.st_ino
    assert ckptfmt.load(tmp_path / "c")["head"].tolist() == [0, 0, 0]
    assert ckptfmt.verify(tmp_path / "c").findings == ()


@pytest.mark.parametrize("kind", ["missing", "empty", "file"])
def test_a_base_that_is_no_checkpoint_is_refused_and_nothing_is_written(tmp_path, kind):
    if kind == "empty":
        (tmp_path / "base").mkdir()
    if kind == "file":
        (tmp_path / "base").write_text("x")
    with pytest.raises((ckptfmt.CheckpointNotFoundError, ckptfmt.IncompleteError), match="base"):
        ckptfmt.save(tmp_path / "c", STATE, base=tmp_path / "base")
    assert not ckptfmt.is_complete(tmp_path / "c")
    assert not (tmp_path / "c").exists()
