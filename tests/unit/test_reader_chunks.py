"""The reader's own work: tensors of several chunks, encoded slots, and what is checked when. Spec 9.3, 11."""

import itertools
import random
import struct

import numpy as np
import pytest

import ckptfmt
from ckptfmt.format.zstd_frame import compress
from tests.conformance.vector_kit import Edits, Ref, Shard, Slot, Tensor, build


def written(path, files):
    path.mkdir()
    for name, data in files.items():
        (path / name).write_bytes(data)
    return path


def cut_apart(generator, offset, shape):
    """Cut a box at random places until its parts are small."""
    axis = max(range(len(shape)), key=lambda axis: shape[axis]) if shape else 0
    if not shape or shape[axis] < 2 or generator.random() < 0.2:
        return [(offset, shape)]
    size = generator.randint(1, shape[axis] - 1)
    first, second, behind = list(shape), list(shape), list(offset)
    first[axis], second[axis], behind[axis] = size, shape[axis] - size, offset[axis] + size
    return cut_apart(generator, offset, first) + cut_apart(generator, behind, second)


def chunked(path, array, parts, *, shards=2):
    """A checkpoint of one tensor whose parts lie in several shards, in any order."""
    slots = [[] for _ in range(shards)]
    chunks = []
    for number, (offset, shape) in enumerate(parts):
        part = array[tuple(slice(begin, begin + size) for begin, size in zip(offset, shape, strict=True))]
        shard = number % shards
        chunks.append([shard, len(slots[shard]), list(offset), list(shape)])
        slots[shard].append(Slot(f"t@{number}", "I32", tuple(shape), np.ascontiguousarray(part).tobytes()))
    row = Tensor("model.t", "int32", array.shape, array.tobytes(), chunks)
    used = [Shard("model", part, number=number + 1) for number, part in enumerate(slots)]
    return written(path, build({"model": {"t": Ref(0, "numpy")}}, [row], used))


@pytest.mark.parametrize("shape", [(7,), (4, 5), (3, 1, 4), (2, 3, 4, 2), (1, 6), (6, 1)], ids=str)
@pytest.mark.parametrize("seed", range(6))
def test_chunks_that_tile_a_tensor_are_put_together(tmp_path, shape, seed):
    generator = random.Random(seed)
    array = np.arange(np.prod(shape), dtype="<i4").reshape(shape)
    parts = cut_apart(generator, [0] * len(shape), list(shape))
    generator.shuffle(parts)
    path = chunked(tmp_path / "c", array, parts)
    assert np.array_equal(ckptfmt.load(path)["model"]["t"], array)
    with ckptfmt.open_checkpoint(path) as checkpoint:
        assert np.array_equal(checkpoint.get_slice("model.t")[-1:], array[-1:])
    assert ckptfmt.verify(path).ok


@pytest.mark.parametrize("count", [300, 2000])
def test_many_chunks_that_no_straight_cut_separates_are_put_together(tmp_path, count):
    rings = count // 4
    size = 2 * rings + 1
    parts = [([rings, rings], [1, 1])]
    for ring in range(rings):
        length, first, last = size - 2 * ring - 1, ring, size - ring - 1
        parts += [([first, first], [1, length]), ([first, last], [length, 1])]
        parts += [([last, first + 1], [1, length]), ([first + 1, first], [length, 1])]
    array = np.arange(size * size, dtype="<i4").reshape(size, size)
    path = chunked(tmp_path / "c", array, parts)
    assert np.array_equal(ckptfmt.load(path)["model"]["t"], array)
    parts[-1] = ([0, 0], parts[-1][1])
    with pytest.raises(ckptfmt.CorruptError, match="overlap") as caught:
        ckptfmt.load(chunked(tmp_path / "d", array, parts))
    assert caught.value.rule == "E041"


def test_a_grid_of_many_chunks_is_put_together(tmp_path):
    array = np.arange(60 * 60, dtype="<i4").reshape(60, 60)
    parts = [([row * 2, column * 2], [2, 2]) for row, column in itertools.product(range(30), range(30))]
    path = chunked(tmp_path / "c", array, parts)
    assert np.array_equal(ckptfmt.load(path)["model"]["t"], array)
    with pytest.raises(ckptfmt.CorruptError, match="overlap"):
        ckptfmt.load(chunked(tmp_path / "d", array, [parts[1], *parts[1:]]))


def test_a_tensor_of_chunks_is_verified_chunk_by_chunk(tmp_path):
    array = np.arange(8, dtype="<i4")
    path = chunked(tmp_path / "c", array, [([0], [4]), ([4], [4])])
    shard = sorted(path.glob("model-00002*"))[0]
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    with pytest.raises(ckptfmt.CorruptError) as caught:
        ckptfmt.load(path)
    assert (caught.value.rule, caught.value.tensor, caught.value.path) == ("E040", "t@1", str(shard))


def encoded(path, frames, raw, **edits):
    slot = Slot("t", "U8", (len(frames),), frames, raw)
    row = Tensor("model.t", "float32", (len(raw) // 4,), raw, [[0, 0]])
    files = build({"model": {"t": Ref(0)}}, [row], [Shard("model", [slot])], requires=["codec:zstd"], edits=Edits(**edits))
    return written(path, files)


def test_an_encoded_tensor_is_decoded_and_belongs_to_the_caller(tmp_path):
    raw = struct.pack("<1000f", *range(1000))
    path = encoded(tmp_path / "c", compress(raw[:2000]) + compress(raw[2000:]), raw)
    tensor = ckptfmt.load(path)["model"]["t"]
    tensor += 1
    assert tensor[999] == 1000
    assert ckptfmt.load(path, verify=False)["model"]["t"][999] == 999
    with ckptfmt.open_checkpoint(path) as checkpoint:
        assert checkpoint.get_slice("model.t")[10:12].tolist() == [10, 11]
    assert ckptfmt.verify(path).ok


def test_an_encoded_tensor_that_decodes_to_something_else_is_refused_by_name(tmp_path):
    raw = struct.pack("<4f", 1, 2, 3, 4)
    path = encoded(tmp_path / "c", compress(bytes(16)), raw)
    with pytest.raises(ckptfmt.CorruptError, match=r"decoded bytes of 't'") as caught:
        ckptfmt.load(path)
    assert (caught.value.rule, caught.value.tensor) == ("E045", "t")
    (finding,) = ckptfmt.verify(path).findings
    assert (finding.rule, finding.tensor, finding.path) == ("E045", "t", caught.value.path)
    assert ckptfmt.verify(path, level="quick").ok


@pytest.mark.parametrize(
    ("frames", "text"), [(b"noise", "do not decompress"), (compress(bytes(12)), "size"), (compress(bytes(20)), "found more")]
)
def test_frames_that_are_not_what_they_declare_are_refused_by_name(tmp_path, frames, text):
    path = encoded(tmp_path / "c", frames, bytes(16))
    with pytest.raises(ckptfmt.CorruptError, match=text) as caught:
        ckptfmt.load(path)
    assert (caught.value.rule, caught.value.tensor) == ("E045", "t")
    assert caught.value.path.endswith(".safetensors")


def test_a_damaged_encoded_slot_is_found_before_it_is_decoded(tmp_path):
    path = encoded(tmp_path / "c", compress(bytes(16)), bytes(16))
    shard = next(path.glob("model*"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"\xff")
    assert [finding.rule for finding in ckptfmt.verify(path).findings] == ["E040"]
