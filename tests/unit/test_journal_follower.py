"""Following a journal: everything once, in order, reading only what is new."""

from __future__ import annotations

import pytest

from ckptfmt.disk.memory import MemoryDisk
from ckptfmt.disk.memory_files import MemoryReadableFile
from ckptfmt.errors import CheckpointNotFoundError, CorruptError
from ckptfmt.run.journal import Journal
from ckptfmt.run.journal_follower import JournalFollower, JournalUpdate

PATH = "/journal"


class Reader:
    """A follower and what it has given out."""

    def __init__(self, disk: MemoryDisk) -> None:
        self.follower = JournalFollower(disk, PATH)
        self.values: list[object] = []

    def poll(self) -> JournalUpdate:
        update = self.follower.poll()
        if update.is_restarted:
            self.values = []
        self.values += [value for _, value in update.records]
        return update


def test_each_record_is_given_out_once_over_several_sessions() -> None:
    disk = MemoryDisk()
    journal = Journal.open_for_append(disk, PATH)
    reader = Reader(disk)
    assert reader.poll() == JournalUpdate([], False)
    for session in range(4):
        for index in range(3):
            number = journal.append([session, index], flush=index == session)
            if index != 1:
                assert reader.poll().records[-1] == (number, [session, index])
        if session % 2:
            journal.close()
        journal = Journal.open_for_append(disk, PATH)
    assert reader.values == [[session, index] for session in range(4) for index in range(3)]
    assert reader.poll() == JournalUpdate([], False)


def test_several_sessions_between_two_polls_are_caught_up() -> None:
    disk = MemoryDisk()
    for session in range(5):
        Journal.open_for_append(disk, PATH).append(session)
        if session == 0:
            reader = Reader(disk)
            reader.poll()
    assert not reader.poll().is_restarted
    assert reader.values == [0, 1, 2, 3, 4]


def test_a_poll_reads_no_more_than_what_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = MemoryDisk()
    journal = Journal.open_for_append(disk, PATH)
    for index in range(1000):
        journal.append([index, "x" * 100])
    journal.flush()
    reader = Reader(disk)
    reader.poll()
    read_bytes = []
    read = MemoryReadableFile.read
    monkeypatch.setattr(MemoryReadableFile, "read", lambda *arguments: read_bytes.append(len(read(*arguments))) or read(*arguments))
    journal.append("new")
    reader.poll()
    assert 0 < sum(read_bytes) < 100
    read_bytes.clear()
    reader.poll()
    assert sum(read_bytes) == 0
    journal = Journal.open_for_append(disk, PATH)
    read_bytes.clear()
    journal.append("of the next session")
    reader.poll()
    assert 0 < sum(read_bytes) < 5000
    assert reader.values[1000:] == ["new", "of the next session"]


def test_a_compaction_restarts_the_follower() -> None:
    disk = MemoryDisk()
    with Journal.open_for_append(disk, PATH) as journal:
        reader = Reader(disk)
        journal.append(1)
        journal.append(2)
        reader.poll()
        journal.compact(["both"])
        journal.append(3)
        assert reader.poll() == JournalUpdate([(3, "both"), (4, 3)], True)
        journal.append(4)
        assert reader.poll() == JournalUpdate([(5, 4)], False)


def test_a_record_that_is_half_there_is_given_out_when_it_is_whole() -> None:
    disk = MemoryDisk()
    journal = Journal.open_for_append(disk, PATH)
    journal.append(1)
    reader = Reader(disk)
    reader.poll()
    inode = next(iter(disk._store.growing))
    before = bytes(disk._store.growing[inode])
    journal.append("second")
    whole = bytes(disk._store.growing[inode])
    for size in range(len(before), len(whole)):
        disk._store.growing[inode] = bytearray(whole[:size])
        assert reader.poll() == JournalUpdate([], False)
    disk._store.growing[inode] = bytearray(whole)
    assert reader.poll() == JournalUpdate([(2, "second")], False)


def test_damage_behind_which_records_were_acknowledged_is_raised_again_and_again() -> None:
    disk = MemoryDisk()
    journal = Journal.open_for_append(disk, PATH)
    journal.append("one", flush=True)
    reader = Reader(disk)
    reader.poll()
    for value in ("two", "three", "four"):
        journal.append(value, flush=True)
    inode = next(iter(disk._store.growing))
    disk._store.growing[inode] = bytearray(bytes(disk._store.growing[inode]).replace(b"two", b"owt"))
    for _ in range(2):
        with pytest.raises(CorruptError, match="E054"):
            reader.poll()
    disk._store.growing[inode] = bytearray(bytes(disk._store.growing[inode]).replace(b"owt", b"two"))
    reader.poll()
    assert reader.values == ["one", "two", "three", "four"]


def test_only_what_exists_can_be_followed() -> None:
    with pytest.raises(CheckpointNotFoundError):
        JournalFollower(MemoryDisk(), PATH)
