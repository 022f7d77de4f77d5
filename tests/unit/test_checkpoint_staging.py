"""The commit, one step at a time: whom it refuses, which names it takes, what it sweeps, and what it leaves when it fails."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any

import pytest

from ckptfmt.checkpoint.directory import read_manifest
from ckptfmt.checkpoint.staging import SLACK_BYTES, Staging
from ckptfmt.disk.memory import MemoryDisk
from ckptfmt.disk.recording import MadeDirectory, RecordingDisk, Renamed, SyncedDirectory, SyncedFile, Unlinked
from ckptfmt.errors import (
    CheckpointExistsError,
    CorruptError,
    DurabilityUnknownError,
    NotEnoughSpaceError,
    RunLockedError,
)
from ckptfmt.format.digest import digest_of, format_digest
from ckptfmt.format.layout import MANIFEST_NAME, temporary_name
from ckptfmt.format.manifest import FileEntry, Manifest, MetadataEntry, ShardEntry, decode_manifest, encode_manifest

PATH = "/runs/step"
DATA = b"data of a shard"
DIGEST_HEX = digest_of(DATA).hex()
LITTER = [temporary_name("model-00001", "0" * 32), "metadata-01234567.msgpack.zst", "model-00007-0123456789abcdef.safetensors"]
FOREIGN = ["notes.txt", ".hidden", "model.sig", "model-00001-of-00002.safetensors", ".x.tmp"]


@pytest.fixture
def disk() -> MemoryDisk:
    made = MemoryDisk()
    made.make_directory("/runs")
    return made


def stage(disk: Any, path: str = PATH, *, overwrite: bool = False, durable: bool = True) -> Staging:
    return Staging(disk, path, overwrite=overwrite, durable=durable)


def write_shard(staging: Staging, data: bytes = DATA, *, stem: str = "model-00001", digest_hex: str = "") -> ShardEntry:
    file = staging.create(stem, size_bytes=len(data))
    temporary = staging.last_created
    file.write(data)
    name = staging.seal(file, temporary, stem=stem, digest_hex=digest_hex or digest_of(data).hex(), suffix=".safetensors")
    return ShardEntry(name, len(data), format_digest(digest_of(data)), "model", 1)


def manifest_of(*shards: ShardEntry, step: int = 0) -> Manifest:
    """Return a manifest that names these shards, and as its metadata the first of them."""
    first = shards[0]
    metadata = MetadataEntry(first.name, first.size_bytes, first.digest, 1)
    encoded = encode_manifest(Manifest("2026-11-21T00:00:00.000000Z", "test", step, {}, None, metadata, list(shards[1:]), len(shards), 0))
    return decode_manifest(encoded, where="test")


def commit(staging: Staging, *shards: ShardEntry, step: int = 0) -> Manifest:
    manifest = manifest_of(*shards, step=step)
    staging.publish(encode_manifest(manifest), digest=manifest.digest)
    return manifest


def save(disk: Any, data: bytes = DATA, *, path: str = PATH, overwrite: bool = False, durable: bool = True) -> Manifest:
    with stage(disk, path, overwrite=overwrite, durable=durable) as staging:
        return commit(staging, write_shard(staging, data))


def names(disk: Any, path: str = PATH) -> list[str]:
    directory = disk.open_directory(path)
    try:
        return list(directory.names())
    finally:
        directory.close()


def put(disk: Any, *names: str, content: bytes = b"litter", path: str = PATH) -> None:
    directory = disk.open_directory(path)
    for name in names:
        file = directory.create(name, size_bytes=len(content))
        file.write(content)
        file.close()
    directory.close()


def visible(disk: Any, path: str = PATH) -> Manifest:
    directory = disk.open_directory(path)
    try:
        return read_manifest(directory)
    finally:
        directory.close()


def test_leaving_without_a_commit_leaves_nothing(disk: MemoryDisk) -> None:
    with stage(disk) as staging:
        write_shard(staging)
        staging.create("model-00002", size_bytes=1).write(b"x")
    assert disk.contents() == {"/runs": None}


def test_a_directory_that_was_there_stays_when_a_save_fails(disk: MemoryDisk) -> None:
    disk.make_directory(PATH)
    with stage(disk) as staging:
        write_shard(staging)
    assert disk.contents() == {"/runs": None, PATH: None}


def test_a_new_directory_in_which_somebody_put_a_file_stays(disk: MemoryDisk) -> None:
    with stage(disk):
        put(disk, "notes.txt")
    assert names(disk) == ["notes.txt"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError, OSError])
def test_any_exception_removes_what_was_written(error: type[BaseException], disk: MemoryDisk) -> None:
    save(disk)
    before = disk.contents()

    def fail() -> None:
        with stage(disk, overwrite=True) as staging:
            write_shard(staging, b"new")
            raise error

    with pytest.raises(error):
        fail()
    assert disk.contents() == before


def test_an_interrupt_right_after_the_commit_keeps_the_commit(disk: MemoryDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    save(disk)

    def interrupted() -> None:
        with stage(disk, overwrite=True) as staging:
            rename = staging.directory.rename

            def rename_and_interrupt(source: str, target: str) -> None:
                rename(source, target)
                if target == MANIFEST_NAME:
                    raise KeyboardInterrupt

            monkeypatch.setattr(staging.directory, "rename", rename_and_interrupt)
            commit(staging, write_shard(staging, b"new"), step=7)

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert visible(disk).step == 7
    assert set(names(disk)) > {file.name for file in visible(disk).files()}
    save(disk, b"next", overwrite=True)
    assert len(names(disk)) == 2


def test_what_stands_in_the_way_is_named(disk: MemoryDisk) -> None:
    save(disk)
    with pytest.raises(CheckpointExistsError, match=r"/runs/step: a checkpoint is stored here already \(step 0, 2026-11-21T") as caught:
        stage(disk)
    assert caught.value.path == PATH
    put(disk, "file", path="/runs")
    with pytest.raises(NotADirectoryError):
        stage(disk, "/runs/file")
    with pytest.raises(NotADirectoryError):
        stage(disk, "/runs/file/step")


def test_a_second_writer_is_refused_until_the_first_is_done(disk: MemoryDisk) -> None:
    with stage(disk) as staging:
        with pytest.raises(RunLockedError, match="/runs/step: another process or thread") as caught:
            stage(disk, overwrite=True)
        assert caught.value.path == PATH
        commit(staging, write_shard(staging))
    save(disk, overwrite=True)


def test_a_damaged_checkpoint_is_replaced_only_on_demand_and_swept_only_after_the_commit(disk: MemoryDisk) -> None:
    disk.make_directory(PATH)
    put(disk, MANIFEST_NAME, "model-00001-01234567.safetensors", content=b"?")
    with pytest.raises(CheckpointExistsError, match="a damaged checkpoint is stored here"):
        stage(disk)
    with stage(disk, overwrite=True) as staging:
        assert names(disk) == [MANIFEST_NAME, "model-00001-01234567.safetensors"]
        shard = write_shard(staging)
        commit(staging, shard)
    assert names(disk) == [MANIFEST_NAME, shard.name]


def test_litter_is_swept_after_a_sync_and_other_files_stay(disk: MemoryDisk) -> None:
    manifest = save(disk)
    put(disk, *LITTER, *FOREIGN)
    recording = RecordingDisk(disk)
    with stage(recording, overwrite=True):
        assert set(names(disk)) == {MANIFEST_NAME, *(file.name for file in manifest.files()), *FOREIGN}
    last = recording.records[-len(LITTER) - 1 :]
    assert last[0] == SyncedDirectory(PATH)
    assert [record.name for record in last[1:] if isinstance(record, Unlinked)] == sorted(LITTER)


def test_without_litter_nothing_is_synced_before_the_first_file(disk: MemoryDisk) -> None:
    save(disk)
    recording = RecordingDisk(disk)
    with stage(recording, overwrite=True):
        assert SyncedDirectory(PATH) not in recording.records


def test_litter_that_somebody_else_removes_is_no_error(disk: MemoryDisk) -> None:
    disk.make_directory(PATH)
    put(disk, *LITTER)
    disk.faults.fail("unlink", errno.ENOENT)
    save(disk)
    assert visible(disk).step == 0


def test_without_locks_unknown_files_may_be_another_writers_and_stay(disk: MemoryDisk) -> None:
    save(disk)
    put(disk, *LITTER)
    disk.faults.fail("lock", errno.ENOLCK, times=None)
    manifest = save(disk, b"new", overwrite=True)
    assert visible(disk).digest == manifest.digest
    assert set(LITTER) < set(names(disk))
    disk.faults.clear()
    save(disk, b"newer", overwrite=True)
    assert len(names(disk)) == 2


def test_names_grow_where_shorter_ones_are_taken(disk: MemoryDisk) -> None:
    with stage(disk) as staging:
        entries = [write_shard(staging, data, digest_hex=DIGEST_HEX) for data in (b"a", b"b", b"c", b"d")]
        assert [entry.name for entry in entries] == [f"model-00001-{DIGEST_HEX[:length]}.safetensors" for length in (8, 16, 32, 64)]
        with pytest.raises(CheckpointExistsError, match="every name for this file is taken"):
            write_shard(staging, b"e", digest_hex=DIGEST_HEX)
    assert disk.contents() == {"/runs": None}


def test_a_file_of_the_previous_checkpoint_is_never_replaced(disk: MemoryDisk) -> None:
    (old, *_) = save(disk).files()
    with stage(disk, overwrite=True) as staging:
        new = write_shard(staging, b"other", digest_hex=DIGEST_HEX)
        assert new.name == f"model-00001-{DIGEST_HEX[:16]}.safetensors"
        assert disk.contents()[f"{PATH}/{old.name}"] == DATA
        commit(staging, new)
    assert names(disk) == [MANIFEST_NAME, new.name]


@pytest.mark.parametrize("missing_bytes", [1, SLACK_BYTES])
def test_a_save_that_does_not_fit_with_some_slack_is_refused(missing_bytes: int) -> None:
    disk = MemoryDisk(capacity_bytes=100 + SLACK_BYTES)
    with stage(disk, "/step") as staging:
        staging.check_space(100)
        with pytest.raises(NotEnoughSpaceError, match=f"needed {100 + missing_bytes + SLACK_BYTES:,} bytes") as caught:
            staging.check_space(100 + missing_bytes)
        assert (caught.value.path, caught.value.errno) == ("/step", errno.ENOSPC)
        assert f"at least {missing_bytes:,} bytes" in str(caught.value)


@pytest.fixture
def base(disk: MemoryDisk) -> Iterator[Any]:
    save(disk, path="/runs/base")
    opened = disk.open_directory("/runs/base")
    yield opened
    opened.close()


def entry_of(disk: MemoryDisk, path: str = "/runs/base") -> FileEntry:
    return visible(disk, path).metadata


def test_a_file_of_a_base_is_linked_under_its_name(disk: MemoryDisk, base: Any) -> None:
    entry = entry_of(disk)
    with stage(disk) as staging:
        assert staging.adopt(base, entry) == entry.name
        assert staging.shared_bytes(entry.name) == len(DATA)
        assert names(disk) == [entry.name]
    assert PATH not in disk.contents()
    assert names(disk, "/runs/base") == [MANIFEST_NAME, entry.name]


def test_a_file_of_a_base_gets_a_longer_name_where_its_own_is_taken(disk: MemoryDisk, base: Any) -> None:
    entry = entry_of(disk)
    with stage(disk) as staging:
        write_shard(staging, b"other", digest_hex=DIGEST_HEX)
        assert staging.adopt(base, entry) == f"model-00001-{DIGEST_HEX[:16]}.safetensors"


def test_a_file_that_the_previous_checkpoint_has_as_well_is_kept(disk: MemoryDisk, base: Any) -> None:
    save(disk)
    with stage(disk, overwrite=True) as staging:
        assert staging.adopt(base, entry_of(disk)) == entry_of(disk).name
        assert staging.shared_bytes(entry_of(disk).name) == 0
    assert disk.faults.calls["link"] == 0
    assert names(disk) == [MANIFEST_NAME, entry_of(disk).name]


@pytest.mark.parametrize("content", [None, b"", DATA + b"!"], ids=["missing", "empty", "longer"])
def test_a_file_of_a_base_that_is_damaged_is_not_linked(content: bytes | None, disk: MemoryDisk, base: Any) -> None:
    entry = entry_of(disk)
    base.unlink(entry.name)
    if content is not None:
        put(disk, entry.name, content=content, path="/runs/base")
    with stage(disk) as staging:
        with pytest.raises(CorruptError, match=entry.name):
            staging.adopt(base, entry)
        assert names(disk) == []


def test_a_damaged_file_of_the_previous_checkpoint_is_not_kept(disk: MemoryDisk, base: Any) -> None:
    save(disk)
    entry = entry_of(disk)
    directory = disk.open_directory(PATH)
    directory.unlink(entry.name)
    put(disk, entry.name, content=b"short")
    with stage(disk, overwrite=True) as staging:
        name = staging.adopt(base, entry)
        assert name == f"model-00001-{DIGEST_HEX[:16]}.safetensors"
        assert disk.contents()[f"{PATH}/{name}"] == DATA


def test_where_links_do_not_work_nothing_is_taken_over(disk: MemoryDisk, base: Any) -> None:
    disk.faults.fail("link", errno.EXDEV, times=None)
    with stage(disk) as staging:
        assert staging.adopt(base, entry_of(disk)) is None
        assert names(disk) == []


def test_the_steps_of_a_commit_stand_in_the_order_of_the_specification(disk: MemoryDisk) -> None:
    (old, *_) = save(disk).files()
    recording = RecordingDisk(disk)
    save(recording, b"new", overwrite=True)
    kinds = [type(record).__name__ for record in recording.records if not isinstance(record, SyncedDirectory) or record.directory == PATH]
    assert kinds == [
        *("Created", "Wrote", "SyncedFile", "Renamed", "SyncedDirectory"),
        *("Created", "Wrote", "SyncedFile", "Renamed", "SyncedDirectory"),
        "Unlinked",
    ]
    assert recording.records[-1] == Unlinked(PATH, old.name)
    assert [record.target for record in recording.records if isinstance(record, Renamed)][-1] == MANIFEST_NAME


def test_without_durability_the_order_is_the_same_and_nothing_is_synced(disk: MemoryDisk) -> None:
    recording = RecordingDisk(disk)
    save(recording, durable=False)
    put(disk, *LITTER)
    save(recording, b"new", durable=False, overwrite=True)
    assert not [record for record in recording.records if isinstance(record, SyncedFile | SyncedDirectory)]
    assert [record for record in recording.records if isinstance(record, MadeDirectory)] == [MadeDirectory(PATH)]
    assert len(names(disk)) == 2


def test_a_commit_that_the_disk_does_not_confirm_is_visible_and_removes_nothing(disk: MemoryDisk) -> None:
    (old, *_) = save(disk).files()

    def overwrite() -> None:
        with stage(disk, overwrite=True) as staging:
            shard = write_shard(staging, b"new")
            disk.faults.fail("sync_directory", errno.EIO, nth=2)
            commit(staging, shard, step=7)

    with pytest.raises(DurabilityUnknownError, match="/runs/step: the checkpoint is committed, but the disk did not confirm it") as caught:
        overwrite()
    assert caught.value.path == PATH
    assert visible(disk).step == 7
    assert old.name in names(disk)
    save(disk, b"next", overwrite=True)
    assert len(names(disk)) == 2


@pytest.mark.parametrize("fault", ["unlink", "names", "open"])
def test_old_files_that_cannot_be_removed_after_the_commit_are_left_to_the_next_save(fault: Any, disk: MemoryDisk) -> None:
    save(disk)
    with stage(disk, overwrite=True) as staging:
        shard = write_shard(staging, b"new")
        disk.faults.fail(fault, errno.EACCES, times=None)
        commit(staging, shard, step=7)
    disk.faults.clear()
    assert visible(disk).step == 7
    assert len(names(disk)) == 3
    save(disk, b"next", overwrite=True)
    assert len(names(disk)) == 2
