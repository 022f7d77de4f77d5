"""Which shards of a base a save takes over, and what becomes of the tensors in them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from ckptfmt.checkpoint.delete import delete_checkpoint
from ckptfmt.checkpoint.directory import read_manifest
from ckptfmt.checkpoint.encoding import compress_checkpoint, decompress_checkpoint
from ckptfmt.checkpoint.info import CheckpointInfo
from ckptfmt.checkpoint.reader import OpenCheckpoint
from ckptfmt.checkpoint.source_digests import hash_all
from ckptfmt.checkpoint.verify import verify_checkpoint
from ckptfmt.checkpoint.writer import SaveOptions, write_checkpoint
from ckptfmt.disk.memory import MemoryDisk
from ckptfmt.errors import CheckpointNotFoundError, CorruptError
from ckptfmt.format.digest import digest_of
from ckptfmt.format.manifest import Manifest
from ckptfmt.state.tree import encode_state

KIBI = 1024


@pytest.fixture
def disk() -> MemoryDisk:
    return MemoryDisk()


def save(
    disk: MemoryDisk, path: str, state: Any, *, base: str | None = None, limit: int = 2**31, overwrite: bool = False
) -> CheckpointInfo:
    options = SaveOptions(step=None, metrics={}, fingerprint=None, overwrite=overwrite, base=base, max_shard_size_bytes=limit, durable=True)
    return write_checkpoint(disk, path, encode_state(state), options)


def load(disk: MemoryDisk, path: str) -> Any:
    with OpenCheckpoint(disk, path) as checkpoint:
        return checkpoint.load()


def manifest_of(disk: MemoryDisk, path: str) -> Manifest:
    directory = disk.open_directory(path)
    try:
        return read_manifest(directory)
    finally:
        directory.close()


def shard_names(disk: MemoryDisk, path: str) -> list[str]:
    return [shard.name for shard in manifest_of(disk, path).shards]


def shared(disk: MemoryDisk, path: str) -> list[str]:
    """Return the shards that have more than one name."""
    directory = disk.open_directory(path)
    return [name for name in shard_names(disk, path) if directory.open(name).link_count > 1]


def array(seed: int, size_bytes: int = KIBI) -> Any:
    return np.random.default_rng(seed).integers(0, 255, size=size_bytes).astype("u1")


def assert_same(found: Any, expected: Any) -> None:
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        if isinstance(value, dict):
            assert_same(found[key], value)
        else:
            np.testing.assert_array_equal(found[key], value, strict=True)


def test_what_is_unchanged_is_linked_and_only_the_rest_is_written(disk: MemoryDisk) -> None:
    save(disk, "/a", {"model": {"w": array(1)}, "optimizer": {"m": array(2)}})
    state = {"model": {"w": array(1)}, "optimizer": {"m": array(3)}}
    info = save(disk, "/b", state, base="/a")
    assert_same(load(disk, "/b"), state)
    (linked,) = shared(disk, "/b")
    assert linked.startswith("model-00001-")
    assert linked in shard_names(disk, "/a")
    assert info.size_bytes - info.unique_bytes == next(entry.size_bytes for entry in manifest_of(disk, "/b").shards if entry.name == linked)


@pytest.mark.parametrize(
    ("changed", "is_linked"), [((), True), ((0,), True), ((0, 1), True), ((0, 1, 2), False), ((0, 1, 2, 3), False)], ids=str
)
def test_a_shard_is_linked_if_at_least_half_of_its_bytes_are_used(changed: tuple[int, ...], is_linked: bool, disk: MemoryDisk) -> None:
    save(disk, "/a", {"model": {str(index): array(index) for index in range(4)}})
    state = {"model": {str(index): array(index + 10 * (index in changed)) for index in range(4)}}
    save(disk, "/b", state, base="/a")
    assert bool(shared(disk, "/b")) == is_linked
    assert_same(load(disk, "/b"), state)


def test_new_shards_are_numbered_behind_the_linked_ones(disk: MemoryDisk) -> None:
    save(disk, "/a", {"model": {str(index): array(index) for index in range(4)}}, limit=KIBI)
    state = {"model": {str(index): array(index + 10 * (index == 1)) for index in range(4)}}
    save(disk, "/b", state, base="/a", limit=KIBI)
    assert [name.split("-")[1] for name in shard_names(disk, "/b")] == ["00001", "00003", "00004", "00005"]
    assert_same(load(disk, "/b"), state)


@pytest.mark.parametrize(
    "other",
    [
        {"model": {"renamed": array(1)}},
        {"moved": {"w": array(1)}},
        {"model": {"w": array(1).view("i1")}},
        {"model": {"w": array(1).reshape(2, -1)}},
        {"model": {"w": array(1)[:-1]}},
        {"model": {"w": array(2)}},
    ],
    ids=["key", "section", "dtype", "shape", "size", "content"],
)
def test_a_tensor_that_differs_in_anything_is_written(other: Any, disk: MemoryDisk) -> None:
    save(disk, "/a", {"model": {"w": array(1)}})
    save(disk, "/b", other, base="/a")
    assert shared(disk, "/b") == []
    assert_same(load(disk, "/b"), other)


def test_links_go_on_from_checkpoint_to_checkpoint_and_outlive_the_first(disk: MemoryDisk) -> None:
    frozen = array(0, 8 * KIBI)
    save(disk, "/0", {"frozen": {"w": frozen}, "head": {"w": array(1)}})
    for step in range(1, 6):
        save(disk, f"/{step}", {"frozen": {"w": frozen}, "head": {"w": array(step + 1)}}, base=f"/{step - 1}")
        directory = disk.open_directory(f"/{step - 1}")
        for name in directory.names():
            directory.unlink(name)
    assert_same(load(disk, "/5"), {"frozen": {"w": frozen}, "head": {"w": array(6)}})


def test_a_checkpoint_may_be_its_own_base(disk: MemoryDisk) -> None:
    save(disk, "/a", {"model": {"w": array(1)}, "epoch": {"n": array(2)}})
    before = shard_names(disk, "/a")
    state = {"model": {"w": array(1)}, "epoch": {"n": array(3)}}
    save(disk, "/a", state, base="/a", overwrite=True)
    assert before[0] in shard_names(disk, "/a")
    assert_same(load(disk, "/a"), state)


def test_stale_slots_of_a_linked_shard_are_not_part_of_the_state(disk: MemoryDisk) -> None:
    save(disk, "/a", {"model": {"kept": array(1, 2 * KIBI), "gone": array(2)}})
    state = {"model": {"kept": array(1, 2 * KIBI)}}
    save(disk, "/b", state, base="/a")
    assert shared(disk, "/b")
    assert_same(load(disk, "/b"), state)
    save(disk, "/c", {"model": {"kept": array(1, 2 * KIBI), "gone": array(2)}}, base="/b")
    assert_same(load(disk, "/c"), {"model": {"kept": array(1, 2 * KIBI), "gone": array(2)}})


def test_empty_tensors_are_linked_and_written_without_ado(disk: MemoryDisk) -> None:
    state = {"model": {"empty": np.empty((0, 3)), "scalar": np.array(1.5)}}
    save(disk, "/a", state)
    save(disk, "/b", state, base="/a")
    assert_same(load(disk, "/b"), state)


def test_two_tensors_of_the_same_content_stay_two(disk: MemoryDisk) -> None:
    state = {"model": {"a": array(1), "b": array(1)}}
    save(disk, "/a", state)
    save(disk, "/b", state, base="/a")
    assert_same(load(disk, "/b"), state)


@pytest.mark.parametrize("number", [18, 1, 13, 38, 95])
def test_where_links_are_refused_the_shard_is_copied(number: int, disk: MemoryDisk) -> None:
    save(disk, "/a", {"model": {"w": array(1)}})
    disk.faults.fail("link", number, times=None)
    info = save(disk, "/b", {"model": {"w": array(1)}}, base="/a")
    assert shard_names(disk, "/a") == shard_names(disk, "/b")
    assert shared(disk, "/b") == []
    assert_same(load(disk, "/b"), {"model": {"w": array(1)}})
    assert info.unique_bytes == info.size_bytes


def test_a_base_that_is_missing_or_damaged_is_an_error_and_nothing_is_written(disk: MemoryDisk) -> None:
    with pytest.raises(CheckpointNotFoundError):
        save(disk, "/b", {"model": {"w": array(1)}}, base="/a")
    save(disk, "/a", {"model": {"w": array(1)}})
    directory = disk.open_directory("/a")
    directory.unlink(manifest_of(disk, "/a").metadata.name)
    with pytest.raises(CorruptError):
        save(disk, "/b", {"model": {"w": array(1)}}, base="/a")
    assert "/b" not in disk.contents()


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_digests_come_in_the_order_of_the_tensors(threads: int) -> None:
    contents = [os.urandom(size_bytes) for size_bytes in (2**21, 0, 1, 2**21, 2**20)]

    def digests() -> Iterator[bytes]:
        return iter(hash_all(list(map(len, contents)), lambda index: digest_of(contents[index]), threads=threads))

    assert list(digests()) == [digest_of(content) for content in contents]


def test_an_error_while_hashing_reaches_the_caller() -> None:
    def fail(index: int) -> bytes:
        raise ValueError(f"tensor {index}")

    with pytest.raises(ValueError, match="tensor 0"):
        hash_all([2**22, 1], fail, threads=2)


def compressible(seed: int, count: int = 4000) -> Any:
    return np.random.default_rng(seed).standard_normal(count).astype("f4")


def test_a_shard_that_is_compressed_by_itself_is_linked_and_stays_encoded(disk: MemoryDisk) -> None:
    state = {"backbone": {"w": compressible(0)}, "head": {"w": compressible(1)}}
    save(disk, "/a", state)
    compress_checkpoint(disk, "/a", level=3)
    changed = {**state, "head": {"w": compressible(2)}}
    info = save(disk, "/b", changed, base="/a")
    assert [name.split("-")[0] for name in shared(disk, "/b")] == ["backbone"]
    assert manifest_of(disk, "/b").requires == ("codec:planes",)
    assert info.unique_bytes < info.size_bytes - 10_000
    # From there it is linked on, and each of them can go.
    save(disk, "/c", {**state, "head": {"w": compressible(3)}}, base="/b")
    decompress_checkpoint(disk, "/a")
    delete_checkpoint(disk, "/b")
    for path, expected in (("/a", state), ("/c", {**state, "head": {"w": compressible(3)}})):
        assert verify_checkpoint(disk, path).ok
        found = load(disk, path)
        assert all(np.array_equal(found[name]["w"], part["w"]) for name, part in expected.items())
    # The shard of before can be made again from there too.
    decompress_checkpoint(disk, "/c")
    assert manifest_of(disk, "/c").requires == ()
    digests = {shard.section: shard.digest for shard in manifest_of(disk, "/a").shards}
    assert {shard.section: shard.digest for shard in manifest_of(disk, "/c").shards}["backbone"] == digests["backbone"]


def test_what_is_frozen_in_an_encoded_shard_is_hashed_and_linked(disk: MemoryDisk) -> None:
    state = {"backbone": {"w": compressible(0, 40_000)}}
    save(disk, "/a", state)
    compress_checkpoint(disk, "/a", level=3)
    options = SaveOptions(None, {}, None, overwrite=False, base="/a", max_shard_size_bytes=2**31, durable=True, frozen=("backbone.*",))
    write_checkpoint(disk, "/b", encode_state(state), options)
    assert shared(disk, "/b") == shard_names(disk, "/b")
    other = {"backbone": {"w": compressible(1, 40_000)}}
    write_checkpoint(disk, "/c", encode_state(other), options)
    assert shared(disk, "/c") == []
    assert np.array_equal(load(disk, "/c")["backbone"]["w"], other["backbone"]["w"])


def test_shards_whose_slots_are_made_from_others_are_written_anew(disk: MemoryDisk) -> None:
    weights = compressible(0)
    state = {"ema": {"w": weights}, "model": {"w": weights.copy()}}
    save(disk, "/a", state)
    compress_checkpoint(disk, "/a", level=3)
    save(disk, "/b", state, base="/a")
    assert [name.split("-")[0] for name in shared(disk, "/b")] == ["ema"]
    assert manifest_of(disk, "/b").requires == ("codec:planes",)
    assert np.array_equal(load(disk, "/b")["model"]["w"], weights)
    save(disk, "/near", {"ema": {"w": weights * np.float32(1.0001)}})
    compress_checkpoint(disk, "/near", level=3, base="/a")
    assert "codec:delta" in manifest_of(disk, "/near").requires
    save(disk, "/c", {"ema": {"w": weights * np.float32(1.0001)}}, base="/near")
    assert shared(disk, "/c") == []
    assert manifest_of(disk, "/c").requires == ()
