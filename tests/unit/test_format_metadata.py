"""The tensor index: rows name existing slots, sizes agree with shapes, chunks tile their tensors. Spec 7, 9, 11."""

import itertools
import math
import random
import time

import pytest

from ckptfmt.errors import CorruptError, FormatError, LimitError
from ckptfmt.format import metadata as metadata_module
from ckptfmt.format.metadata import Chunk, Encoding, Metadata, ShardTable, TensorRow, check_codecs, decode_metadata, encode_metadata
from ckptfmt.format.packed import pack, unpack
from ckptfmt.format.tiling import find_overlap

DIGEST = bytes(range(32))
TABLE = ShardTable(64, ["w", "b"], [16, 4], DIGEST + DIGEST)
ROW = TensorRow("model.w", "float32", (2, 2), 16, (Chunk(0, 0, (0, 0), (2, 2)),))
SOUND = Metadata({"epoch": 3}, [ROW], [TABLE])


def decoded(metadata):
    return decode_metadata(encode_metadata(metadata), where="m")


def rule_of(content):
    with pytest.raises(FormatError) as caught:
        decode_metadata(pack(content), where="m")
    return caught.value.rule


def content(**members):
    return {name: value for name, value in (unpack(encode_metadata(SOUND), where="m") | members).items() if value is not ...}


def with_shard(**members):
    shard = {"header_size_bytes": 64, "keys": ["w"], "sizes": [16], "digests": DIGEST} | members
    return content(shards=[{name: value for name, value in shard.items() if value is not ...}])


def with_row(*row, sizes=(16,)):
    shard = {"header_size_bytes": 64, "keys": [str(size) for size in sizes], "sizes": list(sizes), "digests": DIGEST * len(sizes)}
    return content(tensors=[list(row)], shards=[shard])


def test_metadata_is_read_as_it_was_written():
    assert decoded(SOUND) == SOUND


def test_an_empty_state_has_an_index_without_rows():
    assert decoded(Metadata({}, [], [])) == Metadata({}, [], [])


def test_encodings_are_kept_in_the_order_of_their_slots():
    encodings = {1: Encoding((("zstd", {}),), 4, DIGEST), 0: Encoding((("some", {"n": 4}), ("zstd", {})), 16, DIGEST)}
    metadata = Metadata(None, [ROW], [ShardTable(64, ["w", "b"], [9, 7], DIGEST * 2, encodings)])
    assert decoded(metadata) == metadata


def test_chunks_are_kept_in_their_order():
    chunks = (Chunk(0, 1, (1, 0), (1, 1)), Chunk(0, 0, (0, 0), (1, 1)))
    row = TensorRow("t", "float32", (2, 1), 8, chunks)
    metadata = Metadata(None, [row], [ShardTable(128, ["a", "b"], [4, 4], DIGEST * 2)])
    assert decoded(metadata) == metadata


def test_a_table_knows_where_its_slots_lie():
    assert TABLE.offsets() == [64, 80, 84]
    assert TABLE.digest(1) == DIGEST


def test_unknown_members_are_named():
    assert decode_metadata(pack(content(zz=1, aa=2)), where="m").unknown_members == ("aa", "zz")


def test_metadata_over_the_limit_is_not_written(monkeypatch):
    monkeypatch.setattr(metadata_module, "MAX_METADATA_RAW_BYTES", 100)
    with pytest.raises(LimitError, match="E023"):
        encode_metadata(SOUND)


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        1,
        *(content(**{name: ...}) for name in ("tree", "tensors", "shards")),
        content(tensors={}),
        content(shards=None),
        content(shards=[[]]),
    ],
    ids=lambda value: str(value)[:40],
)
def test_the_content_has_three_members(value):
    assert rule_of(value) == "E025"


@pytest.mark.parametrize(
    "members",
    [
        *({name: ...} for name in ("header_size_bytes", "keys", "sizes", "digests")),
        *({"header_size_bytes": size} for size in (0, 63, 100, -64, "64", 64.0)),
        *({"keys": keys} for keys in ("w", [1], [], ["w", "b"])),
        *({"sizes": sizes} for sizes in ([-1], [1.0], [True], ["1"], [])),
        *({"digests": digests} for digests in ([], "x", b"", DIGEST[:-1], DIGEST * 2)),
        {"encodings": {}},
        *({"encodings": [row]} for row in (None, [], [0, [], 16, DIGEST], [0, [["zstd", {}]], 16])),
        *({"encodings": [[slot, [["zstd", {}]], 16, DIGEST]]} for slot in (-1, 1, "0", None)),
        *(
            {"encodings": [[0, codecs, 16, DIGEST]]}
            for codecs in (None, [[]], [["zstd"]], [["zstd", None]], [[1, {}]], [["zstd", {}], "x"])
        ),
        *({"encodings": [[0, [["zstd", {}]], size, DIGEST]]} for size in (-1, 2**48, 1.0)),
        *({"encodings": [[0, [["zstd", {}]], 16, digest]]} for digest in ("x", b"", DIGEST + b"x")),
        {"encodings": [[0, [["zstd", {}]], 16, DIGEST]] * 2},
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_shard_table_is_complete(members):
    assert rule_of(with_shard(**members)) == "E025"


@pytest.mark.parametrize(
    "row",
    [
        (),
        ("t", "float32", [4]),
        ("t", "float32", [4], [[0, 0]], None),
        (1, "float32", [4], [[0, 0]]),
        ("t", 1, [4], [[0, 0]]),
        ("t", "float32", [4], None),
        *(("t", "float32", [4], [chunk]) for chunk in (None, [], [0], [0, 0, [0]], [0, 0, [0], [4], 1])),
        *(("t", "float32", [4], [[shard, slot]]) for shard, slot in ((1, 0), (-1, 0), (0, 1), (0, -1), ("0", 0), (0, None), (True, 0))),
    ],
    ids=str,
)
def test_a_row_names_slots_that_are_there(row):
    assert rule_of(with_row(*row)) == "E025"


@pytest.mark.parametrize(
    ("row", "rule"),
    [
        (("", "float32", [4], [[0, 0]]), "E035"),
        (("a\n", "float32", [4], [[0, 0]]), "E035"),
        (("x" * 513, "float32", [4], [[0, 0]]), "E035"),
        (("t", "float32", 4, [[0, 0]]), "E036"),
        (("t", "float32", [-4], [[0, 0]]), "E036"),
        (("t", "float32", [4, *[1] * 64], [[0, 0]]), "E036"),
        (("t", "float33", [4], [[0, 0]]), "E042"),
        (("t", "numpy:|O8", [2], [[0, 0]]), "E042"),
        (("t", "float32", [5], [[0, 0]]), "E043"),
        (("t", "float64", [4], [[0, 0]]), "E043"),
        (("t", "float32", [2**47, 2**47], [[0, 0]]), "E043"),
        (("t", "float32", [8], [[0, 0, [0], [4]]]), "E041"),
        (("t", "float32", [4], [[0, 0], [0, 0]]), "E041"),
        (("t", "float32", [4], []), "E041"),
        (("t", "float32", [4], [[0, 0, [0, 0], [4, 1]]]), "E041"),
        (("t", "float32", [4], [[0, 0, [0], [4, 1]]]), "E041"),
        (("t", "float32", [4], [[0, 0, [1], [4]]]), "E041"),
        (("t", "float32", [4], [[0, 0, [-1], [4]]]), "E041"),
        (("t", "float32", [4], [[0, 0, None, [4]]]), "E041"),
        (("t", "float32", [0], [[0, 0, [0], [4]]]), "E041"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_row_that_breaks_a_rule_is_refused(row, rule):
    assert rule_of(with_row(*row)) == rule


def test_no_two_rows_have_one_name():
    row = ["t", "float32", [4], [[0, 0]]]
    other = ["u", "float32", [4], [[0, 0]]]
    assert rule_of(content(tensors=[other, row, row])) == "E044"
    assert len(decode_metadata(pack(content(tensors=[row, other])), where="m").tensors) == 2


@pytest.mark.parametrize(
    ("row", "sizes"),
    [
        (("t", "float32", [0], []), ()),
        (("t", "float32", [3, 0], [[0, 0]]), (0,)),
        (("t", "float32", [0], [[0, 0], [0, 1, [0], [0]]]), (0, 0)),
        (("t", "float32", [], [[0, 0]]), (4,)),
        (("t", "float32", [], [[0, 0, [], []]]), (4,)),
        (("t", "numpy:|S0", [7], [[0, 0]]), (0,)),
        (("t", "float32", [2], [[0, 0, [0], [1]], [0, 1, [1], [1]], [0, 2, [1], [0]]]), (4, 4, 0)),
        (("t", "float32", [2], [[0, 0, [0], [1]], [0, 0, [1], [1]]]), (4,)),
    ],
    ids=str,
)
def test_unusual_rows_are_read(row, sizes):
    assert decode_metadata(pack(with_row(*row, sizes=sizes)), where="m").tensors[0].shape == tuple(row[2])


def test_an_encoded_slot_has_the_size_of_what_it_decodes_to():
    shard = {"header_size_bytes": 64, "keys": ["w"], "sizes": [3], "digests": DIGEST, "encodings": [[0, [["zstd", {}]], 16, DIGEST]]}
    assert decode_metadata(pack(content(shards=[shard])), where="m").shards[0].encodings[0].raw_size_bytes == 16
    assert rule_of(content(shards=[shard | {"encodings": [[0, [["zstd", {}]], 17, DIGEST]]}])) == "E043"


def test_codecs_are_required_by_name():
    encoded = ShardTable(64, ["w"], [3], DIGEST, {0: Encoding((("b", {}), ("zstd", {}), ("a", {})), 16, DIGEST)})
    metadata = Metadata(None, [], [TABLE, encoded])
    assert check_codecs(metadata, ["codec:zstd", "codec:a", "codec:b", "other"], where="m") is None
    error = check_codecs(metadata, ["codec:zstd"], where="m")
    assert isinstance(error, CorruptError)
    assert (error.rule, error.found) == ("E046", "a, b")
    assert check_codecs(Metadata(None, [], [TABLE]), [], where="m") is None


def tiled(chunks, shape):
    rows = [[0, index, list(offset), list(size)] for index, (offset, size) in enumerate(chunks)]
    sizes = [math.prod(size) for _, size in chunks]
    return with_row("t", "uint8", list(shape), rows, sizes=sizes)


WHEEL = [((0, 0), (1, 2)), ((0, 2), (2, 1)), ((2, 1), (1, 2)), ((1, 0), (2, 1)), ((1, 1), (1, 1))]


def test_a_tiling_that_no_straight_cut_separates_is_read():
    assert decode_metadata(pack(tiled(WHEEL, (3, 3))), where="m").tensors[0].size_bytes == 9


def test_an_overlap_inside_such_a_tiling_is_found():
    shifted = [*WHEEL[:-1], ((0, 1), (1, 1))]
    assert rule_of(tiled(shifted, (3, 3))) == "E041"


def test_overlaps_are_found_wherever_the_chunks_lie():
    generator = random.Random(0)
    for _ in range(200):
        shape = tuple(generator.randint(1, 4) for _ in range(generator.randint(1, 3)))
        cells = list(itertools.product(*map(range, shape)))
        chunks = [Chunk(0, 0, cell, (1,) * len(shape)) for cell in cells]
        generator.shuffle(chunks)
        assert find_overlap(chunks) is None
        twice = generator.choice(chunks)
        found = find_overlap([*chunks, twice])
        assert found is not None
        assert found[0].offset == found[1].offset == twice.offset


@pytest.mark.parametrize("grid", [(300, 300), (90_000,), (45, 45, 45)], ids=str)
def test_a_large_grid_is_checked_in_about_linear_time(grid):
    chunks = [Chunk(0, 0, tuple(4 * index for index in cell), (4,) * len(grid)) for cell in itertools.product(*map(range, grid))]
    random.Random(0).shuffle(chunks)
    started = time.perf_counter()
    assert find_overlap(chunks) is None
    assert time.perf_counter() - started < 5
