"""Snapshots: every tensor is copied at once, into memory that is used again only when nothing refers to it any more."""

import gc
import os
import threading

import numpy as np
import pytest
import torch

import ckptfmt
from ckptfmt.checkpoint import snapshot as snapshots
from ckptfmt.checkpoint.snapshot import snapshot
from ckptfmt.state import memory_copy
from ckptfmt.state.memory_copy import MIN_PARALLEL_BYTES, address_of, copy_all
from ckptfmt.state.tree import encode_state

LARGE = MIN_PARALLEL_BYTES * 3 + 17


@pytest.fixture(autouse=True)
def idle(monkeypatch):
    """Begin without a buffer from other tests."""
    monkeypatch.setattr(snapshots, "_IDLE", snapshots._IdleBuffer())


def make_state(value, size=LARGE):
    whole = np.arange(size, dtype=np.uint8) + np.uint8(value)
    strided = torch.arange(200_000, dtype=torch.int32).reshape(400, 500).t() + value
    return {"large": torch.from_numpy(whole.copy()), "small": whole[:5].copy(), "none": torch.empty(0), "strided": strided}


def taken(state):
    return snapshot(encode_state(state))


def contents(copied):
    return [bytes(source.memory()) for source in copied.tensors]


def addresses(copied):
    return [address_of(source.memory()) for source in copied.tensors if source.size_bytes]


def expected(state):
    arrays = [np.asarray(value) for value in state.values()]
    return [np.ascontiguousarray(array).tobytes() for array in arrays]


@pytest.mark.parametrize("cores", [1, 2, 8])
@pytest.mark.parametrize("piece_bytes", [MIN_PARALLEL_BYTES // 3, 16 * 2**20])
def test_every_tensor_is_copied(monkeypatch, cores, piece_bytes):
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    monkeypatch.setattr(memory_copy, "_PIECE_BYTES", piece_bytes)
    state = make_state(3)
    copied = taken(state)
    before = expected(state)
    for value in state.values():
        value[...] = 0
    assert contents(copied) == before


def test_memory_is_used_again_once_no_tensor_lies_in_it_any_more():
    first = taken(make_state(1))
    where = addresses(first)
    last = first.tensors[-1]
    kept = bytes(last.memory())
    del first
    second = taken(make_state(2))
    other = addresses(second)
    assert not set(other) & set(where)
    assert bytes(last.memory()) == kept
    del second, last
    gc.collect()
    third = taken(make_state(3))
    assert addresses(third) in (where, other)
    assert contents(third) == expected(make_state(3))


def test_of_several_buffers_one_waits_and_only_for_what_fits():
    small, large = taken(make_state(1)), taken(make_state(2, 2 * LARGE))
    where = addresses(large)
    del small, large
    again = taken(make_state(3, 2 * LARGE - 100))
    assert addresses(again)[0] == where[0]
    assert contents(again) == expected(make_state(3, 2 * LARGE - 100))
    del again
    assert snapshots._IDLE._buffer is not None
    held_bytes = len(snapshots._IDLE._buffer)
    tiny = taken({"w": torch.ones(3)})
    assert snapshots._IDLE._buffer is None
    del tiny
    assert 0 < len(snapshots._IDLE._buffer) < held_bytes


def test_saves_that_overlap_do_not_share_memory(tmp_path, monkeypatch):
    gate = threading.Event()
    write = ckptfmt.checkpoint.saving.write_checkpoint

    def held(*arguments):
        assert gate.wait(20)
        return write(*arguments)

    monkeypatch.setattr(ckptfmt.checkpoint.saving, "write_checkpoint", held)
    state = make_state(0)
    handles = []
    for number in range(4):
        state["large"] += 1
        state["strided"] += 1
        handles.append(ckptfmt.async_save(tmp_path / str(number), state))
    gate.set()
    for number, handle in enumerate(handles):
        handle.result()
        loaded = ckptfmt.load(tmp_path / str(number))
        assert torch.equal(loaded["large"], make_state(number + 1)["large"])
        assert torch.equal(loaded["strided"], make_state(number + 1)["strided"])


def test_a_failed_save_gives_its_memory_back(tmp_path):
    ckptfmt.save(tmp_path / "c", {})
    handle = ckptfmt.async_save(tmp_path / "c", make_state(1))
    with pytest.raises(ckptfmt.CheckpointExistsError):
        handle.result()
    del handle
    gc.collect()
    assert snapshots._IDLE._buffer is not None


@pytest.mark.parametrize("size_bytes", [0, 1, MIN_PARALLEL_BYTES - 1, MIN_PARALLEL_BYTES, LARGE])
def test_memory_is_copied_whether_it_can_be_written_or_not(size_bytes):
    content = os.urandom(size_bytes)
    copies = [(memoryview(bytearray(size_bytes)), memoryview(source)) for source in (content, bytearray(content))]
    copy_all(copies)
    assert [bytes(target) for target, _ in copies] == [content, content]


def test_memory_of_another_size_is_not_copied():
    with pytest.raises(ValueError, match="3 bytes"):
        copy_all([(memoryview(bytearray(3)), memoryview(b"four"))])


def test_an_address_is_that_of_the_memory():
    array = np.zeros(10, np.uint8)
    assert address_of(memoryview(array)) == array.__array_interface__["data"][0]
    assert address_of(memoryview(array)[3:]) == array.__array_interface__["data"][0] + 3
    with pytest.raises(BufferError):
        address_of(memoryview(array)[::2])
