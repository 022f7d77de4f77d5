"""One tensor found without decoding the others is what decoding everything gives; where that is not sure, nothing is found. Spec 12.2."""

import json
import random

import pytest

from ckptfmt.errors import FormatError
from ckptfmt.format.metadata import Chunk, Encoding, Metadata, ShardTable, TensorRow, decode_metadata, encode_metadata
from ckptfmt.format.metadata_scan import find_one
from ckptfmt.format.packed import pack, unpack
from ckptfmt.format.tree_walk import ABSENT, find_tensor, iter_tensors, tensor_ids
from ckptfmt.format.zstd_frame import decompress
from tests.conformance.make_vectors import VECTORS


def ref(number):
    return {"$tensor": [number, "torch", {}]}


TREES = {
    "maps": {"model": {"a": {"b": ref(0)}, "a.b": ref(1), "c": ref(2)}, "step": 3, "other": ref(3)},
    "state_dict": {"model": {"$state_dict": [["w", ref(0), "b", ref(1)], {"": {"version": 1}}]}, "x": ref(2)},
    "ordered": {
        "model": {"$odict": ["w", ref(0), "b", ref(1)]},
        "optimizer": {"state": {"$dict": [0, {"avg": ref(2)}, 1, {"avg": ref(3)}]}},
    },
    "mixed keys": {"$dict": ["a", ref(0), 1, ref(1), "1", ref(2)]},
    "lists": {"a": [ref(0), [ref(1), {"k": ref(2)}]], "b": {"$tuple": [ref(3)]}},
    "one member": {"model": {"$x": {"$dict": ["$y", ref(0)]}, "z": ref(1)}},
    "bare": ref(2),
    "list": [ref(0), ref(1)],
    "empty names": {"": {"": ref(0), "a": ref(1)}, "a": {"": ref(2)}},
    "tagged": {"n": {"$namespace": ["simple", {"lr": 1, "w": ref(1)}]}, "r": {"$registered": ["p", [ref(0)]]}},
    "sparse": {"s": {"$sparse": ["coo", [2], {"indices": ref(0), "values": ref(1)}, {}]}, "d": ref(2)},
    "deep": {"a": {"b": {"c": {"d": {"e": {"f": {"g": {"h": {"i": {"j": ref(0)}, "k": ref(1)}}}}}}}}},
}
NAMES = ["nothing", "model", "model.", "a.b.c", "1.1", "model.w.x", "", "."]


def metadata(tree, count=4):
    rows, shards = [], []
    for shard in range(2):
        numbers = range(shard, count, 2)
        keys = [f"k{number}" for number in numbers]
        shards.append(ShardTable(64 * (shard + 2), keys, [4 * (number + 1) for number in numbers], bytes(range(len(keys) * 32))))
        for slot, number in enumerate(numbers):
            shape = (number + 1,)
            rows.append((number, TensorRow(f"t{number}", "float32", shape, 4 * (number + 1), (Chunk(shard, slot, (0,), shape),))))
    return encode_metadata(Metadata(tree, [row for _, row in sorted(rows)], shards))


def check(raw, name):
    """Compare what is found with what decoding everything gives; return whether it was found."""
    found = find_one(raw, name, where="m")
    whole = decode_metadata(raw, where="m")
    leaf = find_tensor(whole.tree, name)
    if found is None:
        return False
    (number,) = tensor_ids(found.leaf)
    assert found.leaf == leaf
    assert found.row == whole.tensors[number]
    assert found.table == whole.shards[found.row.chunks[0].shard]
    return True


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
def test_what_is_found_is_what_decoding_everything_gives(tree):
    raw = metadata(tree)
    names = {".".join(path): node for path, node in reversed(list(iter_tensors(tree)))}
    for name, node in names.items():
        assert check(raw, name) == (len(tensor_ids(node)) == 1)
    for name in NAMES:
        if name not in names:
            assert find_one(raw, name, where="m") is None


def test_every_tensor_of_every_good_vector_is_found_or_left_to_the_whole_index():
    found = 0
    for case in sorted((VECTORS / "good").iterdir()):
        manifest = json.loads((case / "checkpoint" / "manifest.json").read_text("utf-8"))
        entry = manifest["metadata"]
        raw = decompress((case / "checkpoint" / entry["name"]).read_bytes(), raw_size_bytes=entry["raw_size_bytes"], where="m")
        for path, _ in iter_tensors(unpack(raw, where="m")["tree"]):
            found += check(raw, ".".join(path))
    assert found > 50


def changed(change):
    content = unpack(metadata(TREES["maps"]), where="m")
    change(content)
    return pack(content)


def set_row(content, member, value):
    content["tensors"][0][member] = value


@pytest.mark.parametrize(
    "change",
    [
        lambda content: set_row(content, 0, "n\n"),
        lambda content: set_row(content, 1, "float99"),
        lambda content: set_row(content, 2, [-1]),
        lambda content: set_row(content, 2, [2]),
        lambda content: set_row(content, 3, [[0, 9]]),
        lambda content: set_row(content, 3, [[9, 0]]),
        lambda content: set_row(content, 3, [[-1, 0]]),
        lambda content: set_row(content, 3, [["0", 0]]),
        lambda content: set_row(content, 3, []),
        lambda content: set_row(content, 3, [None]),
        lambda content: content["tensors"].clear(),
        lambda content: content["shards"][0].pop("digests"),
        lambda content: content["shards"][0].update(header_size_bytes=1),
        lambda content: content["shards"][0]["sizes"].__setitem__(1, -4),
        lambda content: content["tree"]["model"]["a"].update(b=ref(4)),
        lambda content: content.pop("tree"),
        lambda content: content.update(shards=1),
        lambda content: content.update(tensors={}),
    ],
)
def test_what_breaks_a_rule_is_left_to_the_whole_index(change):
    assert find_one(changed(change), "model.a.b", where="m") is None


def test_chunked_and_encoded_tensors_are_left_to_the_whole_index():
    raw = changed(lambda content: set_row(content, 3, [[0, 0, [0], [1]]]))
    assert find_one(raw, "model.a.b", where="m") is None
    content = decode_metadata(metadata(TREES["maps"]), where="m")
    content.shards[0].encodings[0] = Encoding((("zstd", {}),), 4, bytes(32))
    raw = encode_metadata(content)
    assert find_one(raw, "model.a.b", where="m") is None
    assert check(raw, "model.a.b") is False
    assert check(raw, "model.c")


def test_bytes_that_are_damaged_anywhere_never_give_another_tensor():
    raw = metadata(TREES["state_dict"])
    whole = find_one(raw, "model.b", where="m")
    generator = random.Random(1)
    for _ in range(1500):
        broken = bytearray(raw)
        broken[generator.randrange(len(raw))] = generator.randrange(256)
        for part in (bytes(broken), raw[: generator.randrange(len(raw))]):
            found = find_one(part, "model.b", where="m")
            try:
                decoded = decode_metadata(part, where="m")
            except FormatError:
                continue
            leaf = find_tensor(decoded.tree, "model.b")
            if found is not None:
                assert (found.leaf, found.row) == (leaf, decoded.tensors[tensor_ids(leaf)[0]])
            elif leaf is not ABSENT:
                assert leaf != whole.leaf or decoded.tensors[1] != whole.row


def test_hostile_depth_and_declared_lengths_find_nothing():
    for hostile in (b"\xdf\xff\xff\xff\xff", b"\x83\xa4tree" + b"\x91" * 100_000, b"\xdd\xff\xff\xff\xff" * 1000, b"", b"\x80", b"\xc1"):
        assert find_one(hostile, "a", where="m") is None
    raw = pack({"tree": {"a": ref(0), "b": 1}, "tensors": [], "shards": []})
    for position in range(len(raw)):
        assert find_one(raw[:position] + b"\xdd\xff\xff\xff\xff" + raw[position:], "a", where="m") is None
