"""Unchanged data files are not read twice, and a cache that is wrong in any way is only slower."""

from __future__ import annotations

import errno
import os
import stat

import pytest

from ckptfmt.disk.memory import MemoryDisk
from ckptfmt.run import fingerprint as fingerprint_module
from ckptfmt.run.fingerprint import Fingerprint
from ckptfmt.run.fingerprint_cache import MAX_ENTRIES, DigestCache, decode_cache, read_cache, write_cache
from tests.unit.test_fingerprint_data import LONG_AGO_NS, TellingDisk, b3, data_of, write


@pytest.fixture
def disk(monkeypatch):
    telling = TellingDisk()
    monkeypatch.setattr(fingerprint_module, "_DISK", telling)
    return telling


def test_unchanged_files_are_not_read_again(tmp_path, disk):
    paths = [write(tmp_path / "d" / name, name.encode()) for name in "ab"]
    cache = tmp_path / "cache.json"
    first = data_of([*paths, tmp_path / "d"], data_cache=cache)
    assert disk.read_paths == [str(path) for path in paths]
    disk.read_paths.clear()
    written = cache.read_bytes()
    assert data_of([*paths, tmp_path / "d"], data_cache=cache) == first
    assert disk.read_paths == []
    assert cache.read_bytes() == written
    assert not stat.S_IMODE(cache.stat().st_mode) & 0o222
    assert str(tmp_path).encode() not in written


@pytest.mark.parametrize("change", ["content", "size", "inode", "modified", "changed", "mode"])
def test_whatever_changes_a_file_is_read_again(tmp_path, disk, change):
    path, cache = write(tmp_path / "x", b"old"), tmp_path / "cache.json"
    data_of([path], data_cache=cache)
    disk.read_paths.clear()
    mode = "full"
    if change == "content":
        write(path, b"new", modified_ns=LONG_AGO_NS + 1)
    elif change == "size":
        write(path, b"newer")
    elif change == "inode":
        write(tmp_path / "other", b"new").rename(path)
    elif change == "modified":
        os.utime(path, ns=(LONG_AGO_NS + 1, LONG_AGO_NS + 1))
    elif change == "changed":
        disk.shift_ns = 1
    else:
        mode = "sampled"
    found = data_of([path], data_cache=cache, data_mode=mode)
    assert disk.read_paths == [str(path)]
    assert mode == "sampled" or found == {"data.x": f"file {b3(path.read_bytes())}"}


def test_a_file_that_was_just_written_is_not_remembered(tmp_path, disk):
    path, cache = tmp_path / "x", tmp_path / "cache.json"
    path.write_bytes(b"1")
    data_of([path], data_cache=cache)
    assert not cache.exists()


def test_a_damaged_cache_is_only_slower(tmp_path, disk):
    path, cache = write(tmp_path / "x", b"1"), tmp_path / "cache.json"
    expected = data_of([path], data_cache=cache)
    sound = cache.read_bytes()
    assert len(decode_cache(sound)) == 1
    for position in range(len(sound)):
        damaged = bytearray(sound)
        damaged[position] ^= 1
        again = decode_cache(bytes(damaged))
        assert len(again) == 0 or again.encode() == sound
    for damaged in (
        b"",
        b"{}",
        b"[]",
        b"null",
        sound[:-9],
        sound + b"x",
        b"\xff" * 100,
        b"[" * 100_000,
        sound.replace(b'"version": 1', b'"version": 2'),
    ):
        cache.unlink()
        cache.write_bytes(damaged)
        disk.read_paths.clear()
        assert data_of([path], data_cache=cache) == expected
        assert disk.read_paths == [str(path)]
        assert cache.read_bytes() == sound


def test_a_cache_that_cannot_be_read_or_written_changes_nothing(tmp_path, disk):
    path = write(tmp_path / "x", b"1")
    expected = data_of([path])
    (tmp_path / "directory").mkdir()
    for cache in (tmp_path / "no" / "such" / "cache", tmp_path / "directory", path / "below", tmp_path / ".."):
        assert data_of([path], data_cache=cache) == expected
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["directory", "x"]


def test_a_full_disk_leaves_the_old_cache_and_no_litter():
    disk = MemoryDisk()
    disk.make_directory("/run")
    cache = DigestCache()
    cache.add("full key", b3(b"1"))
    assert write_cache(disk, "/run/cache", cache)
    before = disk.contents()
    for kind in ("open_directory", "create", "write", "close", "rename"):
        disk.faults.fail(kind, errno.ENOSPC)
        assert not write_cache(disk, "/run/cache", DigestCache())
        assert disk.contents() == before
    for kind in ("open_directory", "open", "read"):
        disk.faults.fail(kind, errno.EIO)
        assert len(read_cache(disk, "/run/cache")) == 0
    assert len(read_cache(disk, "/run/cache")) == 1


def test_a_cache_is_bounded_and_keeps_what_was_used_last():
    cache = DigestCache()
    for number in range(MAX_ENTRIES + 5):
        cache.add(f"full {number}", b3(b"1"))
    assert cache.find("full 0")
    again = decode_cache(cache.encode())
    assert len(again) == MAX_ENTRIES
    assert again.find("full 0")
    assert not again.find("full 1")


def test_a_cache_can_be_written_once_its_directory_is_there(tmp_path, disk):
    path, cache = write(tmp_path / "x", b"1"), tmp_path / "run" / "cache.json"
    made = Fingerprint(data=[path], data_cache=cache, code=False)
    assert not cache.exists()
    cache.parent.mkdir()
    assert made.write_data_cache(cache)
    disk.read_paths.clear()
    assert Fingerprint(data=[path], data_cache=cache, code=False) == made
    assert disk.read_paths == []
    assert not Fingerprint(code=False).write_data_cache(cache)
