"""Tensors and small values of torch: every element type, layout and memory order comes back, or is refused by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ckptfmt.errors import CorruptError, LimitError, UnsupportedTypeError
from ckptfmt.format.dtypes import SIZES
from ckptfmt.state.tensors import TensorMemory
from ckptfmt.state.torch_tensors import ELEMENT_TYPES
from ckptfmt.state.torch_values import DTYPE_NAMES, LAYOUT_NAMES, MEMORY_FORMAT_NAMES
from ckptfmt.state.tree import decode_leaf, decode_state, encode_state
from tests.unit.test_state_exactness import Stored, assert_same, round_trip, tensor_bytes

ALL_DTYPES = sorted({value for value in vars(torch).values() if isinstance(value, torch.dtype)}, key=str)
STORED_DTYPES = [dtype for dtype in ALL_DTYPES if str(dtype).removeprefix("torch.") in ELEMENT_TYPES]

pytestmark = [
    # Warnings of torch about its own types, which these tests make on purpose.
    pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental:UserWarning"),
    pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning"),
    pytest.mark.filterwarnings("ignore:Sparse .* tensor support is in beta:UserWarning"),
]


def filled(dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
    count = torch.Size(shape).numel()
    size = SIZES[str(dtype).removeprefix("torch.")]
    if not count:
        return torch.empty(shape, dtype=dtype)
    values = torch.arange(count * size, dtype=torch.int64).mul(37).remainder(256).to(torch.uint8)
    if dtype is torch.bool:
        values = values.remainder(2)
    return torch.frombuffer(bytearray(values.tolist()), dtype=dtype).view(shape)


@pytest.mark.parametrize("dtype", ALL_DTYPES, ids=str)
def test_every_element_type_of_torch_comes_back_or_is_refused_by_name(dtype: torch.dtype) -> None:
    if dtype not in STORED_DTYPES:
        with pytest.raises(UnsupportedTypeError, match=f"quantized tensors \\({dtype}\\)") as caught:
            encode_state({"a": torch.empty(2, dtype=dtype)})
        assert caught.value.path == "a"
        return
    for shape in [(), (0,), (3,), (2, 3), (2, 0, 4), (1, 1), (1,)]:
        tensor = filled(dtype, shape)
        stored = Stored([tensor])
        (source,) = stored.encoded.tensors
        assert source.dtype == str(dtype).removeprefix("torch.")
        assert source.memory() is not None
        (loaded,) = stored.load()
        assert_same(tensor, loaded)
        assert loaded.stride() == tensor.stride()


def test_only_quantized_types_are_refused() -> None:
    assert {str(dtype) for dtype in ALL_DTYPES} - {str(dtype) for dtype in STORED_DTYPES} == {
        "torch.qint8",
        "torch.quint8",
        "torch.qint32",
        "torch.quint4x2",
        "torch.quint2x4",
    }


@pytest.mark.parametrize("dtype", STORED_DTYPES, ids=str)
def test_strided_tensor_of_every_element_type_is_gathered(dtype: torch.dtype) -> None:
    tensor = filled(dtype, (4, 6))
    for view in (tensor[:, ::2], tensor[1:, 1:5], tensor.expand(2, 4, 6)[:, 1:], tensor.select(1, 2)):
        stored = Stored(view, block_bytes=20)
        assert stored.encoded.tensors[0].memory() is None
        loaded = stored.load()
        assert_same(view, loaded)
        assert loaded.is_contiguous()


@pytest.mark.parametrize("dtype", STORED_DTYPES, ids=str)
def test_memory_order_of_every_element_type_is_kept(dtype: torch.dtype) -> None:
    tensor = filled(dtype, (4, 6, 2)).permute(2, 0, 1)
    loaded = round_trip(tensor)
    assert_same(tensor, loaded)
    assert loaded.stride() == tensor.stride()


def test_channels_last_is_kept_also_where_an_axis_has_one_element() -> None:
    for shape in [(2, 3, 4, 5), (2, 1, 4, 4), (1, 3, 4, 4), (2, 3, 1, 1), (1, 1, 1, 1)]:
        tensor = torch.rand(shape).to(memory_format=torch.channels_last)
        loaded = round_trip(tensor)
        assert_same(tensor, loaded)
        assert loaded.stride() == tensor.stride()
        assert loaded.is_contiguous(memory_format=torch.channels_last)


def test_odd_strides_of_axes_of_one_element_are_not_kept() -> None:
    tensor = torch.rand(1, 3).as_strided((1, 3), (17, 1))
    stored = Stored(tensor)
    assert stored.encoded.tensors[0].memory() is not None
    assert stored.load().stride() == (3, 1)


def test_pieces_stay_within_their_size_and_make_no_copy_of_the_whole() -> None:
    tensor = torch.arange(100_000, dtype=torch.int32).view(100, 1000).t()
    blocks = [len(block) for block in encode_state(tensor).tensors[0].blocks(4096)]
    assert max(blocks) <= 4096
    assert sum(blocks) == tensor.nbytes


def test_contiguous_tensors_lend_their_memory() -> None:
    tensor = torch.zeros(4)
    memory = encode_state({"a": tensor[1:]}).tensors[0].memory()
    assert memory is not None
    tensor[1] = 1.0
    assert bytes(memory[:4]) == b"\x00\x00\x80\x3f"


def test_loaded_tensors_are_on_the_memory_that_was_given() -> None:
    data = memoryview(bytearray(16))
    loaded = decode_leaf({"$tensor": [0, "torch", {}]}, lambda number: TensorMemory("float32", (2, 2), data))
    loaded[0, 0] = 1.0
    assert bytes(data[:4]) == b"\x00\x00\x80\x3f"


def test_conjugated_and_negated_tensors_are_stored_as_their_values() -> None:
    tensor = torch.tensor([1 + 2j, 3 - 4j])
    state = [tensor.conj(), tensor.conj().imag, tensor.conj().resolve_conj(), torch.tensor([1 + 2j], dtype=torch.complex32).conj()]
    assert state[1].is_neg()
    loaded = round_trip(state)
    assert_same(state, loaded)
    assert not loaded[0].is_conj()
    assert not loaded[1].is_neg()


def test_parameters_buffers_and_gradients_are_kept() -> None:
    state = {
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "frozen": torch.nn.Parameter(torch.ones(2), requires_grad=False),
        "integers": torch.nn.Parameter(torch.ones(2, dtype=torch.int8), requires_grad=False),
        "buffer": torch.nn.Buffer(torch.ones(2)),
        "leaf": torch.ones(2, requires_grad=True),
        "computed": torch.ones(2, requires_grad=True) * 2,
        "empty": torch.nn.Parameter(torch.empty(0)),
    }
    loaded = round_trip(state)
    assert_same(state, loaded)
    assert loaded["computed"].is_leaf


def test_state_dict_of_a_model_and_optimizer_loads_back() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.rand(5, 3)).sum().backward()
    optimizer.step()
    loaded = round_trip({"model": model, "optimizer": optimizer})
    assert_same(model.state_dict(), loaded["model"])
    assert_same(optimizer.state_dict(), loaded["optimizer"])
    model.load_state_dict(loaded["model"])
    optimizer.load_state_dict(loaded["optimizer"])


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("layout", ["to_sparse", "to_sparse_csr", "to_sparse_csc", "bsr", "bsc", "uncoalesced", "empty", "hybrid"])
def test_sparse_tensors_come_back(layout: str, requires_grad: bool) -> None:
    dense = torch.tensor([[0.0, 1, 0, 2], [0, 0, 0, 0], [3, 0, 0, 0], [0, 0, 4, 5]])
    made = {
        "bsr": lambda: dense.to_sparse_bsr((2, 2)),
        "bsc": lambda: dense.to_sparse_bsc((2, 2)),
        "uncoalesced": lambda: torch.sparse_coo_tensor([[1, 1]], [1.0, 2.0], (3,), check_invariants=True),
        "empty": lambda: torch.sparse_coo_tensor(torch.zeros(1, 0, dtype=torch.int64), torch.zeros(0), (3,), check_invariants=True),
        "hybrid": lambda: dense.to_sparse(1),
    }
    tensor = made[layout]() if layout in made else getattr(dense, layout)()
    tensor.requires_grad_(requires_grad)
    stored = Stored({"a": tensor})
    assert all(source.keys[0] == "a" for source in stored.encoded.tensors)
    loaded = stored.load()["a"]
    assert_same(tensor.detach(), loaded.detach())
    assert loaded.requires_grad == requires_grad
    if tensor.layout is torch.sparse_coo:
        assert loaded.is_coalesced() == tensor.is_coalesced()


@pytest.mark.parametrize("dtype", ALL_DTYPES, ids=str)
def test_dtype_objects_come_back(dtype: torch.dtype) -> None:
    assert round_trip(dtype) is dtype


def test_small_values_come_back() -> None:
    state = {
        "size": [torch.Size([]), torch.Size([2, 0])],
        "layout": [value for value in vars(torch).values() if isinstance(value, torch.layout)],
        "format": [value for value in vars(torch).values() if isinstance(value, torch.memory_format)],
        "device": [torch.device("cpu"), torch.device("cuda", 3), torch.device("meta"), torch.device("mps")],
        torch.float32: torch.device("cpu"),
    }
    assert_same(state, round_trip(state))


def test_closed_tables_hold_all_that_torch_has() -> None:
    assert {str(dtype).removeprefix("torch.") for dtype in ALL_DTYPES} == DTYPE_NAMES
    assert {str(v).removeprefix("torch.") for v in vars(torch).values() if isinstance(v, torch.layout)} == LAYOUT_NAMES
    assert {str(v).removeprefix("torch.") for v in vars(torch).values() if isinstance(v, torch.memory_format)} == MEMORY_FORMAT_NAMES


def test_generator_continues_where_it_was() -> None:
    generator = torch.Generator().manual_seed(7)
    torch.rand(700, generator=generator)
    loaded = round_trip({"a": generator})["a"]
    assert torch.equal(torch.rand(5, generator=generator), torch.rand(5, generator=loaded))


def test_generator_state_with_a_position_outside_of_its_words_is_refused() -> None:
    generator = torch.Generator().manual_seed(7)
    torch.rand(5, generator=generator)
    for offset, value in ((16, 600), (16, 2**40), (8, 0), (8, 625)):
        stored = Stored(generator)
        dtype, shape, data = stored.rows[0]
        changed = bytearray(data)
        changed[offset : offset + 4] = (value % 2**32).to_bytes(4, "little")
        if value >= 2**32:
            changed[offset : offset + 8] = value.to_bytes(8, "little")
        stored.rows[0] = (dtype, shape, bytes(changed))
        with pytest.raises(CorruptError, match="state of a generator"):
            stored.load()


class MyTensor(torch.Tensor):
    pass


def in_transform() -> torch.Tensor:
    kept = []
    torch.func.vmap(lambda row: kept.append(row) or row)(torch.ones(3, 2))  # type: ignore[func-returns-value]
    return kept[0]


def freed() -> torch.Tensor:
    tensor = torch.ones(3)
    tensor.untyped_storage().resize_(0)
    return tensor


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: torch.ones(2).as_subclass(MyTensor), "MyTensor"),
        (lambda: torch.ones(2, device="meta"), "meta device"),
        (lambda: torch.nn.UninitializedParameter(), "UninitializedParameter"),
        (lambda: torch.ones(2).untyped_storage(), "UntypedStorage"),
        (lambda: torch.ones(3, 3).to_mkldnn(), "mkldnn"),
        (lambda: torch.nested.nested_tensor([torch.ones(2)]), "nested"),
        (lambda: torch.nn.Parameter(torch.eye(2).to_sparse()), "sparse Parameter"),
        (lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8), "quantized"),
        (in_transform, "transform"),
        (freed, "freed"),
        (lambda: torch._to_functional_tensor(torch.ones(3)), "wraps"),
        (lambda: {torch.ones(1): 1}, "key"),
        (lambda: {torch.ones(1)}, "set"),
        (lambda: {(1, torch.ones(1)): 1}, "key"),
        (lambda: torch, "module"),
    ],
)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype:UserWarning")
def test_what_has_no_bytes_of_its_own_is_refused_by_name(make: Any, what: str) -> None:
    with pytest.raises(UnsupportedTypeError, match=what) as caught:
        encode_state({"a": [make()]})
    assert caught.value.path == "a[0]"


def test_fake_tensors_are_refused() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        fake = torch.ones(2)
    with pytest.raises(UnsupportedTypeError, match="FakeTensor"):
        encode_state(fake)


def test_zero_tensors_without_memory_are_zeros() -> None:
    assert_same(torch.zeros(3), round_trip(torch._efficientzerotensor((3,))))


def test_limits_of_axes_are_checked() -> None:
    for tensor in (torch.empty([1] * 65), torch.empty(1).expand(2**48), torch.empty(0, 2**50)):
        with pytest.raises(LimitError) as caught:
            encode_state({"a": tensor})
        assert caught.value.rule == "E036"
        assert caught.value.path == "a"
    assert_same(torch.ones([1] * 64), round_trip(torch.ones([1] * 64)))


def test_a_default_device_does_not_disturb() -> None:
    with torch.device("meta"):
        loaded = Stored([torch.ones(2, device="cpu"), torch.eye(3, device="cpu").t()[1:]]).load()
    assert [tensor.device.type for tensor in loaded] == ["cpu", "cpu"]


def test_loading_to_another_device_moves_all_references_together() -> None:
    tensor = torch.arange(6.0).view(2, 3)
    state = [tensor, tensor[1], torch.nn.Parameter(tensor), torch.empty(0), torch.rand(2, 3, 2, 2).to(memory_format=torch.channels_last)]
    loaded = round_trip(state, device="meta")
    assert {one.device.type for one in loaded} == {"meta"}
    assert [one.shape for one in loaded] == [one.shape for one in state]
    assert [one.stride() for one in loaded] == [one.stride() for one in state]
    assert loaded[1].storage_offset() == 3


def row(dtype: str, shape: tuple[int, ...], size: int) -> Any:
    return lambda number: [TensorMemory(dtype, shape, memoryview(bytearray(size)))][number]


@pytest.mark.parametrize(
    ("kind", "attributes", "rule"),
    [
        ("torch", {"strides": [3, 2]}, "E028"),
        ("torch", {"strides": [1, 2], "view": [0, "uint8", [1], [1]]}, "E027"),
        ("torch", {"grad": False}, "E027"),
        ("torch", {"grad": 1}, "E027"),
        ("parameter", {"grad": True}, "E027"),
        ("torch", {"other": 1}, "E027"),
        ("torch", {"view": [0, "uint8", [2], [-1]]}, "E028"),
        ("torch", {"view": [1, "uint8", [2], [-1]]}, "E028"),
        ("torch", {"view": [1, "float32", [1], [1]]}, "E028"),
        ("torch", {"view": [21, "uint8", [4], [1]]}, "E028"),
        ("torch", {"view": [0, "float64", [4], [1]]}, "E028"),
        ("torch", {"view": [0, "uint8", [2**47, 2**47], [0, 0]]}, "E027"),
        ("torch", {"view": [0, "int8", [1], [1]], "grad": True}, "E027"),
        ("torch", {"view": [0, "numpy:<M8[ns]", [1], [1]]}, "E027"),
        ("torch", {"view": [0, "float3", [1], [1]]}, "E042"),
        ("torch", {"view": [0, "numpy:|V0", [], []]}, "E027"),
        ("what", {}, "E027"),
        (5, {}, "E027"),
        ("torch", [], "E027"),
    ],
    ids=str,
)
def test_attributes_out_of_range_are_refused_before_memory_is_touched(kind: Any, attributes: Any, rule: str) -> None:
    with pytest.raises(CorruptError) as caught:
        decode_state([{"$tensor": [0, kind, attributes]}], row("float32", (2, 3), 24))
    assert caught.value.rule == rule
    assert caught.value.path == "[0]" or caught.value.path == "state[0]"


def test_references_that_disagree_about_memory_order_are_refused() -> None:
    nodes = [{"$tensor": [0, "torch", {"strides": [1, 2]}]}, {"$tensor": [0, "torch", {}]}]
    for tree in (nodes, nodes[::-1], [nodes[0], {"$tensor": [0, "torch", {"view": [0, "uint8", [1], [1]]}]}]):
        with pytest.raises(CorruptError, match="differ in strides") as caught:
            decode_state(tree, row("float32", (2, 3), 24))
        assert caught.value.rule == "E028"


def test_element_types_of_other_libraries_are_refused_for_torch() -> None:
    for dtype, size in (("numpy:<M8[ns]", 8), ("float6_e2m3fn", 1)):
        with pytest.raises(CorruptError, match="none of torch"):
            decode_state({"$tensor": [0, "torch", {}]}, row(dtype, (1,), size))


@pytest.mark.parametrize(
    "payload",
    [
        ["coo", [3], {"indices": 1, "values": 2}, {}],
        ["coo", [3], {}, {}],
        ["coo", [-1], {"indices": None, "values": None}, {}],
        ["what", [3], {}, {}],
        ["csr", [3, 3], {"indices": None, "values": None}, {}],
        ["coo", [3], {"indices": {"$tensor": [0, "torch", {}]}, "values": {"$tensor": [1, "torch", {}]}}, {"coalesced": 1}],
        ["coo", [3], {"indices": {"$tensor": [0, "torch", {}]}, "values": {"$tensor": [1, "torch", {}]}}, {"other": True}],
        ["coo", [3], {"indices": {"$tensor": [0, "torch", {}]}, "values": {"$tensor": [1, "torch", {}]}}, {"coalesced": True}],
        ["coo", [1], {"indices": {"$tensor": [0, "torch", {}]}, "values": {"$tensor": [1, "torch", {}]}}, {}],
        ["coo", [3], {"indices": {"$tensor": [1, "torch", {}]}, "values": {"$tensor": [0, "torch", {}]}}, {}],
        ["coo", [2**47, 2**47], {"indices": {"$tensor": [0, "torch", {}]}, "values": {"$tensor": [1, "torch", {}]}}, {}],
    ],
    ids=str,
)
def test_sparse_parts_that_do_not_fit_are_refused(payload: Any) -> None:
    indices = torch.tensor([[2, 1]]).view(torch.uint8).view(-1)
    rows = [
        TensorMemory("int64", (1, 2), memoryview(bytearray(indices.tolist()))),
        TensorMemory("float32", (2,), memoryview(bytearray(8))),
    ]
    with pytest.raises(CorruptError):
        decode_state({"$sparse": payload}, rows.__getitem__)


def test_row_bytes_are_compared_without_kernels() -> None:
    assert tensor_bytes(torch.tensor([1, 2], dtype=torch.uint8)) == b"\x01\x02"
