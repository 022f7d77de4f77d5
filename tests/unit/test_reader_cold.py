"""What is not cached is read past the cache: the same bytes, the same errors and the same independence as of what is mapped. Spec 12."""

import errno
import gc
import os
import random

import numpy as np
import pytest

import ckptfmt
from ckptfmt.checkpoint import slot_pass
from ckptfmt.disk import direct_reads, local_files
from ckptfmt.disk.local_files import LocalReadableFile
from tests.conformance.describing import described
from tests.conformance.make_vectors import VECTORS

SIZES = [0, 1, 63, 4095, 4096, 4097, 8191, 8192, 8193, 20_000, 65_536, 100_001]
WAYS = ["mapped", "direct", "refused", "short", "buffered"]


@pytest.fixture(params=WAYS)
def way(request, monkeypatch):
    """Read in one of the ways, in pieces so small that tensors end before, at and behind their borders."""
    read_in(request.param, monkeypatch)
    return request.param


def read_in(way, monkeypatch):
    monkeypatch.setattr(slot_pass, "PIECE_BYTES", 8192)
    monkeypatch.setattr(slot_pass, "WANTED_BYTES", 16_384)
    monkeypatch.setattr(slot_pass, "BATCH_BYTES", 12_000)
    real_preadv = os.preadv
    ask = LocalReadableFile.is_cold

    def is_cold(file, offset_bytes, size_bytes):
        ask(file, offset_bytes, size_bytes)
        return True

    def refuse(number, buffers, offset, *flags):
        if os.readlink(f"/proc/self/fd/{number}") and is_direct(number):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return real_preadv(number, buffers, offset, *flags)

    monkeypatch.setattr(local_files, "MIN_DIRECT_READ_BYTES", 1)
    monkeypatch.setattr(LocalReadableFile, "is_cold", (lambda file, offset_bytes, size_bytes: False) if way == "mapped" else is_cold)
    if way == "refused":
        monkeypatch.setattr(os, "preadv", refuse)
    elif way == "short":
        monkeypatch.setattr(os, "preadv", lambda number, buffers, offset: real_preadv(number, [buffers[0][:4096]], offset))
    elif way == "buffered":
        monkeypatch.setattr(direct_reads, "reopen_direct", lambda number: None)


def is_direct(number):
    with open(f"/proc/self/fdinfo/{number}") as lines:
        flags = next(int(line.split()[1], 8) for line in lines if line.startswith("flags:"))
    return bool(flags & os.O_DIRECT)


def make_state(seed=0):
    generator = np.random.default_rng(seed)
    sizes = [*SIZES, *generator.integers(0, 30_000, 20)]
    return {"model": {f"t{number}": generator.integers(0, 256, size, dtype=np.uint8) for number, size in enumerate(sizes)}}


def save(path, state=None, **options):
    ckptfmt.save(path, state or make_state(), durable=False, **options)
    return path


def is_same(state, other):
    return state["model"].keys() == other["model"].keys() and all(
        np.array_equal(value, other["model"][name]) for name, value in state["model"].items()
    )


def damage(path, name, seed=0):
    """Change one byte of a tensor in its shard."""
    with ckptfmt.open_checkpoint(path) as checkpoint:
        row = next(row for row in checkpoint.metadata.tensors if row.name == name)
        chunk = row.chunks[0]
        begin = checkpoint.metadata.shards[chunk.shard].offsets()[chunk.slot]
        file = path / checkpoint.manifest.shards[chunk.shard].name
    at = begin + random.Random(seed).randrange(row.size_bytes)
    os.chmod(file, 0o600)
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("verify", [True, False])
def test_every_way_of_reading_gives_the_bytes_that_were_saved(tmp_path, way, seed, verify):
    state = make_state(seed)
    save(tmp_path / "c", state, max_shard_size="300kB")
    assert is_same(ckptfmt.load(tmp_path / "c", verify=verify), state)
    some = ckptfmt.load(tmp_path / "c", only=["model.t1", "model.t1?"], verify=verify)
    assert set(some["model"]) == {name for name in state["model"] if name == "t1" or (len(name) == 3 and name[1] == "1")}
    assert all(np.array_equal(value, state["model"][name]) for name, value in some["model"].items())
    with ckptfmt.open_checkpoint(tmp_path / "c", verify=verify) as checkpoint:
        for name, value in state["model"].items():
            assert np.array_equal(checkpoint.get_tensor(f"model.{name}"), value)
            assert np.array_equal(checkpoint.get_slice(f"model.{name}")[3:], value[3:])
    assert ckptfmt.verify(tmp_path / "c").verified_bytes == sum(value.nbytes for value in state["model"].values())


@pytest.mark.parametrize("damaged", [["t1"], ["t9"], ["t11"], ["t11", "t3"], ["t2", "t10", "t31"]], ids=" ".join)
def test_every_way_of_reading_finds_the_same_damage(tmp_path, monkeypatch, damaged):
    path = save(tmp_path / "c", max_shard_size="200kB")
    for number, name in enumerate(damaged):
        damage(path, f"model.{name}", number)
    found = {}
    for way in WAYS:
        with monkeypatch.context() as patch:
            read_in(way, patch)
            with pytest.raises(ckptfmt.CorruptError) as caught:
                ckptfmt.load(path)
            with ckptfmt.open_checkpoint(path) as checkpoint, pytest.raises(ckptfmt.CorruptError) as one:
                checkpoint.get_tensor(f"model.{damaged[0]}")
            findings = sorted((finding.rule, finding.tensor, finding.message) for finding in ckptfmt.verify(path).findings)
            found[way] = (str(caught.value), caught.value.rule, str(one.value), findings)
            assert ckptfmt.load(path, verify=False)["model"]
    assert len(found["mapped"][3]) == len(damaged)
    assert found == dict.fromkeys(WAYS, found["mapped"])


def test_what_was_read_belongs_to_the_caller(tmp_path, way):
    state = make_state()
    path = save(tmp_path / "c", state)
    first = ckptfmt.load(path)
    for value in first["model"].values():
        value[...] = 7
    assert is_same(ckptfmt.load(path), state)
    with ckptfmt.open_checkpoint(path) as checkpoint:
        kept = checkpoint.get_tensor("model.t10")
        checkpoint.load()
        assert checkpoint.store._read == {}
    assert np.array_equal(kept, state["model"]["t10"])
    assert ckptfmt.verify(path).ok


def test_a_slot_that_was_read_is_read_and_verified_again_when_it_is_asked_for_again(tmp_path, monkeypatch):
    read_in("direct", monkeypatch)
    path = save(tmp_path / "c")
    with ckptfmt.open_checkpoint(path) as checkpoint:
        checkpoint.get_tensor("model.t9")[...] = 0
        file = checkpoint.manifest.shards[0].name
        assert np.array_equal(checkpoint.get_tensor("model.t9"), make_state()["model"]["t9"])
        os.chmod(path / file, 0o600)
        with open(path / file, "r+b") as stream:
            stream.seek(-30_000, os.SEEK_END)
            stream.write(bytes(30_000))
        with pytest.raises(ckptfmt.CorruptError, match="E040"):
            checkpoint.load()


def test_a_file_that_becomes_shorter_while_it_is_read_is_an_error_of_the_system(tmp_path, monkeypatch):
    read_in("direct", monkeypatch)
    path = save(tmp_path / "c")
    with ckptfmt.open_checkpoint(path) as checkpoint:
        file = path / checkpoint.manifest.shards[0].name
        os.chmod(file, 0o600)
        os.truncate(file, 50_000)
        with pytest.raises(OSError, match="shrank") as caught:
            checkpoint.load()
        assert caught.value.filename == str(file)


def test_an_error_of_the_device_passes_through_with_its_path(tmp_path, monkeypatch):
    path = save(tmp_path / "c")
    read_in("direct", monkeypatch)
    real_preadv = os.preadv

    def fail(number, buffers, offset):
        if offset >= 65_536:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real_preadv(number, buffers, offset)

    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(OSError, match="Input/output") as caught:
        ckptfmt.load(path)
    assert caught.value.filename.endswith(".safetensors")
    assert caught.value.errno == errno.EIO
    with pytest.raises(OSError, match="Input/output"):
        ckptfmt.verify(path)


def test_no_descriptor_is_left_open(tmp_path, way):
    path = save(tmp_path / "c")
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    ckptfmt.load(path)
    ckptfmt.verify(path)
    damage(path, "model.t9")
    with pytest.raises(ckptfmt.CorruptError):
        ckptfmt.load(path)
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("cores", [1, 2, 7])
def test_the_number_of_cores_changes_nothing(tmp_path, monkeypatch, way, cores):
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    state = make_state(cores)
    assert is_same(ckptfmt.load(save(tmp_path / "c", state)), state)


CASES = sorted(case for kind in ("good", "warn", "bad") for case in (VECTORS / kind).iterdir())


def outcome_of(call):
    try:
        value = call()
    except ckptfmt.CheckpointError as error:
        return type(error).__name__, str(error)
    return described(value)


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CASES])
def test_every_vector_reads_the_same_from_the_device(monkeypatch, case):
    path = next((entry for entry in case.iterdir() if entry.is_dir()), case)
    found = []
    for way in ("mapped", "direct"):
        with monkeypatch.context() as patch:
            read_in(way, patch)
            report = ckptfmt.verify(path)
            messages = sorted(finding.message for finding in report.findings)
            found.append((messages, report.verified_bytes, outcome_of(lambda: ckptfmt.load(path))))
    assert found[0] == found[1]
