"""Tensors that share memory share it again after loading; tensors that do not, do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ckptfmt.state.ties import Extent, plan_shared_rows
from ckptfmt.state.tree import encode_state
from tests.unit.test_state_exactness import Stored, assert_same, round_trip


def keys(state: Any) -> list[tuple[tuple[str, ...], list[tuple[str, ...]]]]:
    return [(source.keys, list(source.aliases)) for source in encode_state(state).tensors]


def test_tied_weights_are_stored_once_under_their_first_name() -> None:
    class Tied(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = torch.nn.Embedding(5, 3)
            self.head = torch.nn.Linear(3, 5, bias=False)
            self.head.weight = self.embedding.weight

    state = {"model": Tied()}
    assert keys(state) == [(("model", "embedding.weight"), [("model", "head.weight")])]
    loaded = round_trip(state)["model"]
    loaded["embedding.weight"][0, 0] = 99.0
    assert loaded["head.weight"][0, 0] == 99.0


def test_tied_parameters_stay_one_object() -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    loaded = round_trip([parameter, parameter, parameter.data])
    assert loaded[0] is loaded[1]
    assert type(loaded[2]) is torch.Tensor
    assert loaded[2].data_ptr() == loaded[0].data_ptr()


def test_views_of_a_stored_tensor_are_views_again() -> None:
    base = torch.arange(24.0).view(4, 6)
    state = {
        "row": base[1],
        "base": base,
        "column": base[:, 2],
        "transposed": base.t(),
        "flat": base.view(-1),
        "integers": base.view(torch.int32),
        "expanded": base[0, 0].expand(7),
        "again": base,
    }
    assert keys(state) == [(("base",), [("again",)])]
    loaded = round_trip(state)
    assert_same(state, loaded)
    loaded["base"].fill_(1.0)
    for name, tensor in loaded.items():
        expected = 0x3F80_0000 if name == "integers" else 1
        assert bool((tensor == expected).all()), name
        assert tensor.stride() == state[name].stride()


def test_overlapping_views_without_a_common_base_share_a_stored_range() -> None:
    base = torch.arange(20.0)
    state = {"a": {"x": base[2:10]}, "y": base[5:15], "z": base[16:]}
    stored = Stored(state)
    sources = [(source.keys, source.dtype, source.shape) for source in stored.encoded.tensors]
    assert sources == [(("a", "x", "__storage__"), "uint8", (52,)), (("z",), "float32", (4,))]
    loaded = stored.load()
    assert_same(state, loaded)
    loaded["a"]["x"][3] = -1.0
    assert loaded["y"][0] == -1.0


def test_range_begins_so_that_every_view_is_aligned() -> None:
    base = torch.arange(40, dtype=torch.uint8)
    state = [base[2:10], base[8:40].view(torch.float64), base[5:7]]
    stored = Stored(state)
    assert [source.shape for source in stored.encoded.tensors] == [(40,)]
    loaded = stored.load()
    assert_same(state, loaded)
    loaded[1].fill_(0.0)
    assert loaded[0].tolist() == [2, 3, 4, 5, 6, 7, 0, 0]


def test_columns_of_one_matrix_share_it() -> None:
    state = list(torch.arange(12.0).view(3, 4).chunk(2, dim=1))
    stored = Stored(state)
    assert [source.size_bytes for source in stored.encoded.tensors] == [48]
    assert_same(state, stored.load())


def test_neighbours_in_one_buffer_are_independent() -> None:
    flat = torch.arange(12.0)
    state = [flat[:5], flat[5:], torch.empty(0)]
    assert [source.shape for source in encode_state(state).tensors] == [(5,), (7,), (0,)]
    loaded = round_trip(state)
    assert loaded[0].untyped_storage().data_ptr() != loaded[1].untyped_storage().data_ptr()


def test_empty_tensors_are_no_ties() -> None:
    assert len(encode_state([torch.empty(0), torch.empty(0), np.empty(0), np.empty(0)]).tensors) == 4


def test_equal_tensors_are_no_ties() -> None:
    assert len(encode_state([torch.ones(3), torch.ones(3)]).tensors) == 2


def test_strided_tensor_that_is_referenced_twice_is_stored_once() -> None:
    base = torch.arange(12.0).view(3, 4)
    for tensor in (base[:, ::2], base[0, 0].expand(3), base.t(), torch.view_as_complex(base.view(3, 2, 2)).conj()):
        state = [tensor, tensor.detach()]
        assert len(encode_state(state).tensors) == 1
        loaded = round_trip(state)
        assert_same(state, loaded)
        assert loaded[0].data_ptr() == loaded[1].data_ptr()


def test_channels_last_tensor_and_its_view_share_a_range() -> None:
    tensor = torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last)
    state = [tensor, tensor[1]]
    loaded = round_trip(state)
    assert_same(state, loaded)
    loaded[0].zero_()
    assert not loaded[1].any()
    assert loaded[0].stride() == tensor.stride()


def test_a_tensor_and_its_transpose_are_stored_as_the_contiguous_one() -> None:
    base = torch.arange(6.0).view(2, 3)
    assert keys({"t": base.t(), "b": base}) == [(("b",), [])]


def test_rows_are_numbered_by_first_appearance() -> None:
    base = torch.arange(6.0)
    state = {"view": base[:2], "other": torch.ones(1), "base": base}
    tree = encode_state(state).tree
    assert [tree[name]["$tensor"][0] for name in state] == [0, 1, 0]
    assert keys(state) == [(("base",), []), (("other",), [])]


def test_arrays_share_memory_again() -> None:
    base = np.arange(24.0).reshape(4, 6)
    state = {"base": base, "row": base[1], "reversed": base[::-1, ::-2], "again": base, "octets": base.view("u1"), "fortran": base.T}
    stored = Stored(state)
    assert len(stored.rows) == 1
    loaded = stored.load()
    assert_same(state, loaded)
    loaded["base"][:] = 1.0
    assert all((array == 1).all() for name, array in loaded.items() if name != "octets")
    assert [array.strides for array in loaded.values()] == [array.strides for array in state.values()]


def test_fields_of_records_are_views_where_their_strides_allow() -> None:
    records = np.zeros(3, [("a", "<i4"), ("b", "<i4")])
    packed = np.zeros(3, [("a", "<i4"), ("b", "i1")])
    assert len(encode_state([records, records["a"], records["b"]]).tensors) == 1
    assert len(encode_state([packed, packed["a"]]).tensors) == 2
    state = [records, records["b"], packed["a"]]
    loaded = round_trip(state)
    assert_same(state, loaded)
    loaded[0]["b"] = 7
    assert loaded[1].tolist() == [7, 7, 7]


def test_overlapping_arrays_share_a_stored_range() -> None:
    base = np.arange(10, dtype="i2")
    state = [base[:6], base[::-1][:7]]
    stored = Stored(state)
    assert [(source.keys, source.shape) for source in stored.encoded.tensors] == [(("0", "__storage__"), (20,))]
    loaded = stored.load()
    assert_same(state, loaded)
    loaded[0][5] = 77
    assert loaded[1][4] == 77


def test_arrays_and_tensors_are_stored_apart() -> None:
    array = np.ones(3, dtype="f4")
    assert len(encode_state([array, torch.from_numpy(array)]).tensors) == 2


def test_tensors_over_one_array_are_tied() -> None:
    array = np.ones(3, dtype="f4")
    loaded = round_trip([torch.from_numpy(array), torch.from_numpy(array)[1:]])
    loaded[0][1] = 5.0
    assert loaded[1][0] == 5.0


def extent(start: int, stop: int, identity: Any = None, **options: Any) -> Extent:
    fields = {"space": "s", "address": start, "is_row_major": True, "origin": 0, "alignment": 1, **options}
    return Extent(start=start, stop=stop, dtype=identity or "uint8", shape=(stop - start,), strides=(1,), **fields)


def test_plan_joins_ranges_through_others() -> None:
    rows = plan_shared_rows([extent(0, 10), extent(20, 30), extent(5, 25), extent(30, 40)])
    assert [(row.exact, row.views, row.start, row.stop) for row in rows] == [([], [(0, 0), (1, 20), (2, 5)], 0, 30)]


def test_plan_keeps_spaces_apart() -> None:
    assert plan_shared_rows([extent(0, 10), extent(0, 10, space="t")]) == []


def test_plan_takes_the_first_that_covers_all() -> None:
    (row,) = plan_shared_rows([extent(2, 4), extent(0, 10, "one"), extent(0, 10, "other")])
    assert row.exact == [1]
    assert row.views == [(0, 2), (2, 0)]


def test_plan_that_finds_no_aligned_beginning_ties_only_equals() -> None:
    extents = [extent(1, 9, alignment=8, origin=1), extent(4, 12, alignment=8), extent(4, 12, alignment=8)]
    assert [(row.exact, row.views) for row in plan_shared_rows(extents)] == [([1, 2], [])]


@pytest.mark.parametrize("count", [0, 1])
def test_plan_of_nothing_is_empty(count: int) -> None:
    assert plan_shared_rows([extent(0, 4)] * count) == []
