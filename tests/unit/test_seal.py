"""Sealed directories: every change of what was sealed is noticed, and what came later is nobody's damage."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

import ckptfmt
from ckptfmt.checkpoint.seal import SEAL_NAME, check_seal, seal_directory
from ckptfmt.disk.memory import MemoryDisk
from ckptfmt.format import canonical_json
from ckptfmt.format.digest import ZEROED, digest_of, format_digest


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoint-3"
    (path / "inner" / "deep").mkdir(parents=True)
    (path / "weights.bin").write_bytes(bytes(range(256)) * 100)
    (path / "empty").write_bytes(b"")
    (path / "inner" / "deep" / "x").write_bytes(b"x")
    seal_directory(path)
    return path


def test_a_sealed_directory_verifies_and_names_its_files(sealed: Path) -> None:
    document = json.loads((sealed / SEAL_NAME).read_bytes())
    assert [entry["name"] for entry in document["files"]] == ["empty", "inner/deep/x", "weights.bin"]
    assert check_seal(sealed) == document["digest"]


def test_sealing_again_replaces_the_seal(sealed: Path) -> None:
    (sealed / "more").write_bytes(b"more")
    assert check_seal(sealed)
    seal_directory(sealed)
    assert "more" in (sealed / SEAL_NAME).read_text()
    assert sorted(path.name for path in sealed.iterdir()) == [SEAL_NAME, "empty", "inner", "more", "weights.bin"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda path: (path / "weights.bin").write_bytes(b"\x01" + (path / "weights.bin").read_bytes()[1:]),
            "weights.bin: digest differs: seal",
        ),
        (lambda path: (path / "weights.bin").write_bytes(b"short"), "weights.bin: size differs: seal 25600 bytes, file 5 bytes"),
        (lambda path: (path / "inner/deep/x").unlink(), "inner/deep/x: missing"),
        (lambda path: ((path / "empty").unlink(), (path / "empty").symlink_to("weights.bin")), "empty: missing, or no regular file"),
    ],
    ids=["changed", "cut off", "missing", "a link"],
)
def test_a_changed_file_is_named(sealed: Path, damage, message: str) -> None:
    damage(sealed)
    with pytest.raises(ckptfmt.CorruptError, match=message):
        check_seal(sealed)


def test_every_changed_byte_of_the_seal_is_noticed(sealed: Path) -> None:
    seal = sealed / SEAL_NAME
    whole = bytearray(seal.read_bytes())
    seal.chmod(0o644)
    for position in range(len(whole)):
        whole[position] ^= 1
        seal.write_bytes(whole)
        with pytest.raises((ckptfmt.CorruptError, ckptfmt.UnsupportedVersionError)):
            check_seal(sealed)
        whole[position] ^= 1
    for size in range(len(whole)):
        seal.write_bytes(whole[:size])
        with pytest.raises(ckptfmt.CorruptError):
            check_seal(sealed)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"version": [2, 0]}, ckptfmt.UnsupportedVersionError),
        ({"format": "other"}, ckptfmt.CorruptError),
        ({"more": 1}, ckptfmt.CorruptError),
        ({"files": [{"name": "../secret", "size_bytes": 1, "digest": ZEROED}]}, ckptfmt.CorruptError),
        ({"files": [{"name": "/etc/passwd", "size_bytes": 1, "digest": ZEROED}]}, ckptfmt.CorruptError),
        ({"files": [1]}, ckptfmt.CorruptError),
    ],
    ids=str,
)
def test_a_hostile_seal_is_refused(sealed: Path, change: dict[str, object], error: type[Exception]) -> None:
    document = {**json.loads((sealed / SEAL_NAME).read_bytes()), **change, "digest": ZEROED}
    document["digest"] = format_digest(digest_of(canonical_json.encode(document)))
    (sealed / SEAL_NAME).chmod(0o644)
    (sealed / SEAL_NAME).write_bytes(canonical_json.encode(document))
    with pytest.raises(error):
        check_seal(sealed)


def test_a_directory_without_a_seal_is_not_whole(tmp_path: Path) -> None:
    with pytest.raises(ckptfmt.IncompleteError, match=f"not sealed: no {SEAL_NAME}"):
        check_seal(tmp_path)
    with pytest.raises(ckptfmt.CheckpointNotFoundError):
        check_seal(tmp_path / "nothing")


def test_links_are_not_sealed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    with pytest.raises(OSError, match="link"):
        seal_directory(tmp_path)
    assert not (tmp_path / SEAL_NAME).exists()


def test_whatever_fails_while_sealing_leaves_no_seal_or_a_whole_one() -> None:
    for nth in range(1, 60):
        disk = MemoryDisk()
        disk.make_directory("/d")
        directory = disk.open_directory("/d")
        file = directory.create("weights", size_bytes=3)
        file.write(b"abc")
        file.close()
        disk.faults.fail("any", errno.EIO, nth=nth)
        try:
            seal_directory("/d", disk=disk)
        except OSError:
            disk.faults.clear()
            if SEAL_NAME in directory.names():
                assert check_seal("/d", disk=disk)
            continue
        disk.faults.clear()
        assert check_seal("/d", disk=disk)
        return
    raise AssertionError("sealing never succeeded")
