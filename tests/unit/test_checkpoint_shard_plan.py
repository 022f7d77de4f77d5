"""Which tensor goes where: sections, cuts, order in a shard, and the names that are made storable."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from ckptfmt.checkpoint import shard_plan
from ckptfmt.checkpoint.shard_plan import MAX_SECTIONS, ShardPlan, TensorPlan, name_tensors, plan_shards
from ckptfmt.format.dtypes import alignment_bytes
from ckptfmt.format.layout import DATA_ALIGNMENT_BYTES, MAX_NAME_BYTES, is_tensor_name
from ckptfmt.format.shard_header import StoredEntry, decode_header

Described = tuple[tuple[str, ...], tuple[tuple[str, ...], ...], str, tuple[int, ...], int]


def tensor(*path: str, dtype: str = "float32", count: int = 4, ties: tuple[tuple[str, ...], ...] = ()) -> Described:
    itemsize = {"float64": 8, "float32": 4, "int16": 2, "uint8": 1, "complex128": 16}[dtype]
    return path, ties, dtype, (count,), count * itemsize


def named(*described: Described) -> TensorPlan:
    paths, ties, dtypes, shapes, sizes = zip(*described, strict=True)
    return name_tensors(paths, {row: further for row, further in enumerate(ties) if further}, dtypes, shapes, sizes)


def planned(*described: Described, limit: int = 2**31) -> list[ShardPlan]:
    return plan_shards(named(*described), range(len(described)), max_shard_size_bytes=limit)


def keys(*described: Described, limit: int = 2**31) -> list[tuple[str, Sequence[str]]]:
    """Return the section and the keys in slot order of each shard."""
    return [(plan.section, plan.keys) for plan in planned(*described, limit=limit)]


def test_a_section_is_the_first_key_and_what_stands_at_the_top_has_none() -> None:
    assert keys(tensor("model", "a", "w"), tensor("top"), tensor("optimizer", "m"), tensor("model", "b")) == [
        ("model", ["a.w", "b"]),
        ("", ["top"]),
        ("optimizer", ["m"]),
    ]


def test_a_state_that_is_one_tensor_is_called_state() -> None:
    plan = named(tensor())
    assert (plan.sections, plan.keys, plan.names) == ([""], ["state"], ["state"])


def test_names_are_whole_paths_and_keys_are_paths_below_the_section() -> None:
    plan = named(tensor("model", "layer", "0", "weight"))
    assert (plan.keys, plan.names) == (["layer.0.weight"], ["model.layer.0.weight"])


def test_with_very_many_sections_all_share_one() -> None:
    few = [tensor(f"section{number}", "w") for number in range(MAX_SECTIONS)]
    assert len(keys(*few)) == MAX_SECTIONS
    many = [*few, tensor("one more", "w")]
    ((section, found),) = keys(*many)
    assert section == ""
    assert found == [".".join(path) for path, *_ in many]


@pytest.mark.parametrize(
    ("sizes", "limit", "groups"),
    [
        ([10, 10, 10], 30, [[0, 1, 2]]),
        ([10, 10, 11], 30, [[0, 1], [2]]),
        ([10, 10, 10], 10, [[0], [1], [2]]),
        ([10, 10, 10], 1, [[0], [1], [2]]),
        ([100, 10, 100], 50, [[0], [1], [2]]),
        ([0, 0, 0], 1, [[0, 1, 2]]),
        ([30, 0, 0, 1], 30, [[0, 1, 2], [3]]),
    ],
)
def test_a_section_is_cut_at_the_limit_and_larger_tensors_stand_alone(sizes: list[int], limit: int, groups: list[list[int]]) -> None:
    described = [tensor("model", str(index), dtype="uint8", count=size) for index, size in enumerate(sizes)]
    assert keys(*described, limit=limit) == [("model", [str(index) for index in group]) for group in groups]


def test_the_limit_counts_each_section_by_itself() -> None:
    described = [tensor(section, str(index), dtype="uint8", count=10) for index in range(2) for section in ("a", "b")]
    assert keys(*described, limit=20) == [("a", ["0", "1"]), ("b", ["0", "1"])]


def test_a_section_is_cut_before_its_header_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_plan, "SPLIT_HEADER_BYTES", 1_000)
    plans = planned(*[tensor("model", "k" * 100 + str(index), count=0) for index in range(20)])
    assert [len(plan.rows) for plan in plans] == [2] * 10
    assert all(len(plan.header) <= 1_000 for plan in plans)


def test_larger_alignment_comes_first_and_otherwise_the_order_of_the_state() -> None:
    dtypes = ["uint8", "float32", "int16", "complex128", "float64", "float32", "uint8"]
    (plan,) = planned(*[tensor("m", str(index), dtype=dtype, count=3) for index, dtype in enumerate(dtypes)])
    assert plan.keys == ["3", "4", "1", "5", "2", "0", "6"]
    offset = len(plan.header)
    for row, size_bytes in zip(plan.rows, plan.sizes, strict=True):
        assert offset % alignment_bytes(dtypes[row]) == 0
        offset += size_bytes
    assert offset == plan.size_bytes


def test_the_planned_header_is_what_the_reader_expects() -> None:
    (plan,) = planned(tensor("m", "a"), tensor("m", "b", dtype="uint8", count=0))
    assert len(plan.header) % DATA_ALIGNMENT_BYTES == 0
    assert decode_header(plan.header, file_size_bytes=plan.size_bytes, where="planned") == [
        StoredEntry("a", "F32", (4,), 16),
        StoredEntry("b", "U8", (0,), 0),
    ]


def test_ties_of_the_same_section_stand_in_the_header_and_others_do_not() -> None:
    (plan,) = planned(tensor("m", "a", ties=(("m", "b"), ("other", "c"), ("m", "x\ny"), ("top",))))
    assert json.loads(plan.header[8:])["__metadata__"] == {"format": "pt", "b": "a"}


@pytest.mark.parametrize(
    "key",
    ["", "a\nb", "\x00", "\x7f", "\x9f", "__metadata__", "k" * (MAX_NAME_BYTES + 1), "ä" * MAX_NAME_BYTES, "\ud800", "\u0301" * 400],
    ids=ascii,
)
def test_a_key_that_cannot_be_stored_becomes_one_that_can_and_stays_apart(key: str) -> None:
    described = [tensor("m", key), tensor("m", key + "x"), tensor("m", "plain")]
    plan = named(*described)
    assert all(map(is_tensor_name, [*plan.keys, *plan.names]))
    assert len(set(plan.keys)) == 3
    assert plan.keys[2] == "plain"
    planned(*described)


def test_the_same_path_twice_gives_two_names() -> None:
    plan = named(tensor("m", "a", "b"), tensor("m", "a.b"), tensor("m", "a.b#2"), tensor("m", "a.b"))
    assert plan.keys == ["a.b", "a.b#2", "a.b#2#2", "a.b#3"]
    assert len(set(plan.names)) == 4


def test_the_same_very_long_path_many_times_gives_as_many_names() -> None:
    plan = named(*[tensor("m", "k" * length) for length in (509, 510, 511, 512, 513) for _ in range(12)])
    assert len(set(plan.keys)) == len(set(plan.names)) == 60
    assert all(map(is_tensor_name, [*plan.keys, *plan.names]))


def test_names_do_not_depend_on_the_process() -> None:
    described = [tensor("m", "a\nb"), tensor("m", "k" * 600), tensor("m", "k" * 600)]
    assert named(*described) == named(*described)


def test_nothing_gives_no_shards() -> None:
    assert plan_shards(name_tensors([], {}, [], [], []), [], max_shard_size_bytes=1) == []
