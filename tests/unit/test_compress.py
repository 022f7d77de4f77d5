"""compress and decompress: the same state in fewer bytes, in place, and back again to the last byte. Spec 11.2, 11.3."""

import os
import shutil

import numpy as np
import pytest
import torch

import ckptfmt
from ckptfmt.checkpoint.spool import Spool
from tests.conformance import naive_reader
from tests.conformance.vector_kit import readable


def moments(rows, columns):
    size = torch.exp(2 * torch.randn(rows, 1) + 2 * torch.randn(1, columns) - 12)
    return size * torch.exp(0.3 * torch.randn(rows, columns))


def make_state():
    torch.manual_seed(0)
    master = {f"layer{index}": torch.randn(90, 100) * 0.02 for index in range(3)}
    return {
        "model": {name: tensor.bfloat16() for name, tensor in master.items()},
        "master": master,
        "half": {"layer1": master["layer1"].half()},
        "ema": {name: tensor.clone() for name, tensor in master.items()},
        "optimizer": {"exp_avg_sq": moments(90, 100), "step": torch.tensor(3.0), "names": ["a", "b"]},
        "extra": {"zeros": torch.zeros(50, 100), "noise": torch.randint(0, 256, (5_000,), dtype=torch.uint8), "none": torch.zeros(0, 3)},
        "array": np.arange(3_000),
        "mask": torch.rand(9_000) < 0.1,
        "complex": torch.randn(1_000, dtype=torch.complex64),
        "epoch": 3,
    }


def described(value):
    """Return what a state is to the bit, in plain values."""
    if isinstance(value, dict):
        return {key: described(item) for key, item in value.items()}
    if isinstance(value, torch.Tensor):
        return type(value), value.dtype, value.shape, value.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    return (value.dtype, value.shape, value.tobytes()) if isinstance(value, np.ndarray) else value


@pytest.fixture
def path(tmp_path):
    ckptfmt.save(tmp_path / "c", make_state(), step=7, metrics={"loss": 0.5}, fingerprint={"seed": 1})
    return tmp_path / "c"


def files_of(path):
    return {file.name: file.read_bytes() for file in path.iterdir()}


def test_what_was_compressed_loads_as_before_and_comes_back_to_the_byte(path):
    before, described_before = files_of(path), described(make_state())
    report = ckptfmt.compress(path)
    assert report.is_changed
    assert report.after_bytes == sum(map(len, files_of(path).values())) == report.info.size_bytes < 0.6 * report.before_bytes
    assert described(ckptfmt.load(path)) == described_before
    checked = ckptfmt.verify(path)
    assert (checked.ok, checked.findings) == (True, ())
    back = ckptfmt.decompress(path)
    assert (back.before_bytes, back.after_bytes) == (report.after_bytes, report.before_bytes)
    assert files_of(path) == before


def test_the_naive_reader_reads_what_was_compressed(path):
    before = readable(naive_reader.read(path))
    ckptfmt.compress(path)
    assert readable(naive_reader.read(path)) == before


def test_doing_it_twice_is_doing_it_once(path):
    ckptfmt.compress(path)
    before = files_of(path)
    assert not ckptfmt.compress(path).is_changed
    assert files_of(path) == before
    ckptfmt.decompress(path)
    before = files_of(path)
    report = ckptfmt.decompress(path)
    assert not report.is_changed
    assert report.after_bytes == report.before_bytes
    assert files_of(path) == before


def encodings_of(path):
    with ckptfmt.open_checkpoint(path) as checkpoint:
        tables = checkpoint.metadata.shards
        rows = {row.name: (row.chunks[0].shard, row.chunks[0].slot) for row in checkpoint.metadata.tensors}
        return {
            name: tables[shard].encodings[slot].codecs[0] if slot in tables[shard].encodings else None
            for name, (shard, slot) in rows.items()
        }


def test_equal_tensors_and_roundings_of_others_have_no_bytes_of_their_own(path):
    report = ckptfmt.compress(path)
    codecs = {name: codec and codec[0] for name, codec in encodings_of(path).items()}
    assert {codecs[f"model.layer{index}"] for index in range(3)} == {codecs["half.layer1"]} == {"rounded"}
    assert sorted(codecs[f"{section}.layer2"] for section in ("master", "ema")) == ["planes", "same"]
    assert report.sections["model"][1] < 1_000
    assert report.sections["half"][1] < 1_000


def test_tensors_that_gain_nothing_stay_as_they_are(path):
    ckptfmt.compress(path)
    codecs = encodings_of(path)
    assert codecs["extra.noise"] is codecs["optimizer.step"] is codecs["extra.none"] is None
    assert codecs["extra.zeros"][0] == "planes"


def test_a_checkpoint_without_anything_to_gain_is_not_touched(tmp_path):
    noise = torch.randint(0, 256, (50_000,), dtype=torch.uint8)
    ckptfmt.save(tmp_path / "c", {"noise": noise, "epoch": 3})
    before = files_of(tmp_path / "c")
    assert not ckptfmt.compress(tmp_path / "c").is_changed
    assert files_of(tmp_path / "c") == before
    ckptfmt.save(tmp_path / "empty", {})
    assert not ckptfmt.compress(tmp_path / "empty").is_changed


def test_what_the_manifest_says_stays(path):
    with ckptfmt.open_checkpoint(path) as checkpoint:
        before = checkpoint.info
    info = ckptfmt.compress(path).info
    for name in ("step", "metrics", "fingerprint", "created_at_utc", "tensor_count"):
        assert getattr(info, name) == getattr(before, name)
    assert info.digest != before.digest
    assert ckptfmt.decompress(path).info.digest == before.digest


def test_two_checkpoints_are_the_same_whether_or_not_they_are_compressed(path, tmp_path):
    shutil.copytree(path, tmp_path / "other")
    ckptfmt.compress(path)
    assert ckptfmt.diff(path, tmp_path / "other").same
    state = make_state()
    state["master"]["layer0"][5, 5] += 1
    ckptfmt.save(tmp_path / "other", state, step=7, metrics={"loss": 0.5}, fingerprint={"seed": 1}, overwrite=True)
    assert not ckptfmt.diff(path, tmp_path / "other").same


def test_shards_that_others_share_stay_shared(tmp_path):
    state = make_state()
    first = ckptfmt.save(tmp_path / "1", state, max_shard_size="150kB")
    state["optimizer"]["exp_avg_sq"] = state["optimizer"]["exp_avg_sq"] * 2
    ckptfmt.save(tmp_path / "2", state, base=first, max_shard_size="150kB")
    others = files_of(tmp_path / "1")
    report = ckptfmt.compress(tmp_path / "2")
    assert files_of(tmp_path / "1") == others
    assert report.is_changed
    assert report.unique_after_bytes < report.unique_before_bytes
    assert report.before_bytes - report.unique_before_bytes == report.after_bytes - report.unique_after_bytes > 0
    assert described(ckptfmt.load(tmp_path / "2")) == described(state)
    shutil.rmtree(tmp_path / "1")
    assert ckptfmt.verify(tmp_path / "2").ok
    assert ckptfmt.compress(tmp_path / "2").is_changed
    assert described(ckptfmt.load(tmp_path / "2")) == described(state)
    ckptfmt.decompress(tmp_path / "2")
    assert described(ckptfmt.load(tmp_path / "2")) == described(state)


def test_several_shards_and_chunks_without_rows_come_back_too(tmp_path):
    state = make_state()
    ckptfmt.save(tmp_path / "1", state)
    state["master"]["layer0"] += 1
    ckptfmt.save(tmp_path / "2", state, base=tmp_path / "1", max_shard_size="30kB")
    shutil.rmtree(tmp_path / "1")
    before = files_of(tmp_path / "2")
    assert ckptfmt.compress(tmp_path / "2").is_changed
    assert ckptfmt.verify(tmp_path / "2").ok
    ckptfmt.decompress(tmp_path / "2")
    assert files_of(tmp_path / "2") == before


def test_a_save_on_a_compressed_base_is_a_sound_one(path, tmp_path):
    ckptfmt.compress(path)
    ckptfmt.save(tmp_path / "next", make_state(), base=path)
    assert described(ckptfmt.load(tmp_path / "next")) == described(make_state())


def shard_of(path, section):
    return next(file for file in path.iterdir() if file.name.startswith(section))


def flip(file, position):
    data = bytearray(file.read_bytes())
    data[position] ^= 1
    os.chmod(file, 0o644)
    file.write_bytes(data)


def test_a_damaged_checkpoint_is_not_made_sound_by_compressing_it(path):
    flip(shard_of(path, "optimizer"), -50)
    before = files_of(path)
    with pytest.raises(ckptfmt.CorruptError) as caught:
        ckptfmt.compress(path)
    assert caught.value.rule == "E040"
    assert files_of(path) == before


def test_a_damaged_source_is_told_of_each_tensor_that_is_made_from_it(path):
    ckptfmt.compress(path)
    flip(shard_of(path, "master"), -5_000)
    findings = ckptfmt.verify(path).findings
    assert {finding.rule for finding in findings} == {"E040"}
    damaged = {finding.tensor for finding in findings}
    assert damaged == {"layer2"}
    assert len(findings) == 3
    before = files_of(path)
    with pytest.raises(ckptfmt.CorruptError):
        ckptfmt.decompress(path)
    assert files_of(path) == before
    with pytest.raises(ckptfmt.CorruptError) as caught:
        ckptfmt.load(path, only="model.layer2")
    assert caught.value.rule == "E040"
    assert described(ckptfmt.load(path, only="model.layer1"))


@pytest.mark.parametrize("damage", ["name", "header", "digest"])
def test_a_shard_that_cannot_be_made_again_is_refused_before_anything_is_written(path, damage, monkeypatch):
    from ckptfmt.checkpoint import encoded_shard
    from ckptfmt.format.encodings import OriginalShard

    changes = {"name": {"name": "other"}, "header": {"header": b"\\x08" + bytes(7) + b"{}".ljust(56)}, "digest": {"digest": bytes(32)}}

    def damaged(name, header, digest):
        return OriginalShard(**{"name": name, "header": header, "digest": digest, **changes[damage]})

    monkeypatch.setattr(encoded_shard, "OriginalShard", damaged)
    ckptfmt.compress(path)
    before = files_of(path)
    if damage == "name":
        assert ckptfmt.decompress(path).is_changed
        return
    with pytest.raises(ckptfmt.CheckpointError):
        ckptfmt.decompress(path)
    assert files_of(path) == before


def test_what_does_not_decode_to_what_was_there_is_not_kept(path, monkeypatch):
    from ckptfmt.format.byte_planes import PlanesEncoder

    encode_parts = PlanesEncoder.encode_parts

    def wrong(self, block, raw, source):
        return encode_parts(self, block, memoryview(bytes(raw[:-1]) + bytes([raw[-1] ^ 1])), source)

    monkeypatch.setattr(PlanesEncoder, "encode_parts", wrong)
    before = files_of(path)
    with pytest.raises(ckptfmt.CorruptError) as caught:
        ckptfmt.compress(path)
    assert caught.value.rule == "E045"
    assert files_of(path) == before


def test_what_is_too_much_for_memory_waits_in_a_file(path, monkeypatch):
    expected = ckptfmt.compress(path).after_bytes
    ckptfmt.decompress(path)
    monkeypatch.setattr("ckptfmt.checkpoint.spool.MEMORY_BYTES", 1)
    monkeypatch.setattr("ckptfmt.checkpoint.slot_encoding.PIECE_BYTES", 1_000)
    written = []
    write = Spool._write
    monkeypatch.setattr(Spool, "_write", lambda self, data: (written.append(1), write(self, data)))
    assert ckptfmt.compress(path).after_bytes == expected
    assert len(written) > 10
    assert described(ckptfmt.load(path)) == described(make_state())
    assert not [name for name in files_of(path) if name.startswith(".")]


def test_higher_levels_are_taken_and_others_refused(path):
    sizes = []
    for level in (1, 3, 19):
        sizes.append(ckptfmt.compress(path, level=level).after_bytes)
        ckptfmt.decompress(path)
    assert sizes[2] <= sizes[1] * 1.01
    for level in (0, 23, True, "3", 2.5):
        with pytest.raises(ValueError, match="level="):
            ckptfmt.compress(path, level=level)


@pytest.mark.parametrize("function", [ckptfmt.compress, ckptfmt.decompress])
def test_there_must_be_a_checkpoint(function, tmp_path):
    with pytest.raises(ckptfmt.CheckpointNotFoundError):
        function(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ckptfmt.IncompleteError):
        function(tmp_path / "empty")


@pytest.mark.parametrize("function", [ckptfmt.compress, ckptfmt.decompress])
def test_a_checkpoint_that_something_writes_is_left_alone(function, path):
    from ckptfmt.disk.local import LocalDisk

    directory = LocalDisk().open_directory(str(path))
    directory.try_lock()
    with pytest.raises(ckptfmt.RunLockedError):
        function(path)
    directory.close()
