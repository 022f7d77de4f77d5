"""What every disk must do when it reads into memory of the caller: the rest of the contract of ckptfmt.disk.protocol."""

from __future__ import annotations

import pytest

from ckptfmt.disk.protocol import Directory
from tests.contract.disk_harness import put


def test_ranges_are_read_into_memory_of_the_caller(directory: Directory) -> None:
    put(directory, "file", b"0123456789")
    reader = directory.open("file")
    memory = bytearray(b"..........")
    assert reader.read_into(2, memoryview(memory)[1:5]) == 4
    assert memory == b".2345....."
    assert reader.read_into(7, memoryview(memory)) == 3
    assert memory == b"78945....."
    assert reader.read_into(10, memoryview(memory)) == 0
    assert reader.read_into(0, memoryview(memory)[:0]) == 0
    reader.close()


def test_what_is_small_is_not_cold(directory: Directory) -> None:
    put(directory, "file", b"0123456789")
    reader = directory.open("file")
    assert not reader.is_cold(0, 10)
    reader.close()


def test_nothing_is_read_after_closing(directory: Directory) -> None:
    put(directory, "file", b"0123456789")
    reader = directory.open("file")
    reader.close()
    with pytest.raises(ValueError, match="already closed"):
        reader.read_into(0, memoryview(bytearray(3)))
