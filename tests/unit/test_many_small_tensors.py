"""Work that is done for many tensors at once gives what it gives one by one, and finds the same damage."""

from __future__ import annotations

import ctypes
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ckptfmt
from ckptfmt.checkpoint import metadata_file, neighbours
from ckptfmt.checkpoint.source_digests import SMALL_BYTES, digest_source, digest_sources
from ckptfmt.errors import CorruptError
from ckptfmt.format.digest import digest_of, digests_of
from ckptfmt.state.source_columns import SourceColumns
from ckptfmt.state.ties import find_intersecting
from ckptfmt.state.torch_tensors import element_names
from ckptfmt.state.tree import encode_state

MANY = neighbours.MIN_NEIGHBOURS + 6


def bytes_of(tensor: torch.Tensor) -> bytes:
    """Return the bytes of a tensor's values in C order, for every element type."""
    plain = tensor.detach()
    if plain.is_conj() or plain.is_neg():
        plain = plain.resolve_conj().resolve_neg()
    size_bytes = plain.numel() * plain.element_size()
    return ctypes.string_at(plain.data_ptr(), size_bytes) if plain.is_contiguous() else bytes_of(plain.clone().contiguous())


def saved(path: Path, state: Any) -> Any:
    ckptfmt.save(path, state, durable=False)
    assert ckptfmt.verify(path).ok
    return ckptfmt.load(path)


@pytest.mark.parametrize("dtype", element_names(), ids=str)
def test_many_tensors_of_every_element_type_come_back_as_they_were(tmp_path: Path, dtype: torch.dtype) -> None:
    name, itemsize = element_names()[dtype]
    generator = np.random.default_rng(len(name))
    tensors = {str(index): torch.frombuffer(bytearray(generator.bytes(6 * itemsize)), dtype=dtype) for index in range(MANY)}
    if name == "bool":
        tensors = {key: torch.frombuffer(bytearray([1, 0, 1, 1, 0, 0]), dtype=dtype) for key in tensors}
    loaded = saved(tmp_path / "c", {"model": tensors})["model"]
    assert list(loaded) == list(tensors)
    for key, tensor in tensors.items():
        assert loaded[key].dtype == dtype
        assert bytes_of(loaded[key]) == bytes_of(tensor)


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.randn(3, dtype=torch.complex64).conj(),
        lambda: torch.randn(1, dtype=torch.complex64).conj().imag,
        lambda: torch._neg_view(torch.randn(5)),
        lambda: torch.randn(4, requires_grad=True),
        lambda: torch.nn.Parameter(torch.randn(2, 3)),
        lambda: torch.nn.Parameter(torch.randn(2, 3), requires_grad=False),
        lambda: torch.nn.Buffer(torch.randn(2)),
        lambda: torch.tensor(3.5),
        lambda: torch.randn(2, 1, 3),
        lambda: torch.randn(2, 1, 3).transpose(1, 2),
        lambda: torch.randn(3, 2).t(),
        lambda: torch.empty(0, 3),
        lambda: torch.randn(6)[::2],
        lambda: torch.randn(1).expand(4),
    ],
    ids=(
        "conjugate negated-imaginary negated grad parameter frozen-parameter buffer "
        "scalar unit-axis permuted-unit transposed empty strided expanded"
    ).split(),
)
def test_many_tensors_of_one_kind_keep_values_strides_and_kind(tmp_path: Path, make: Any) -> None:
    tensors = [make() for _ in range(MANY)]
    loaded = saved(tmp_path / "c", {"model": tensors})["model"]
    for tensor, found in zip(tensors, loaded, strict=True):
        assert type(found) is type(tensor)
        assert found.requires_grad == tensor.requires_grad
        assert getattr(found, "_is_buffer", False) == getattr(tensor, "_is_buffer", False)
        assert found.shape == tensor.shape
        assert torch.equal(found, tensor)
    first = loaded[0].detach()
    if first.numel():
        first.fill_(9)
        assert not torch.equal(first, loaded[1].detach())


def test_loaded_tensors_have_storages_and_version_counters_of_their_own(tmp_path: Path) -> None:
    loaded = saved(tmp_path / "c", {"model": {str(index): torch.full((4,), index) for index in range(MANY)}})["model"]
    one, other = loaded["0"], loaded["1"]
    assert one.untyped_storage().nbytes() == one.nbytes
    assert not one._is_view()
    one.add_(1)
    assert (one._version, other._version) == (1, 0)


def test_rows_are_in_the_order_of_the_tree_however_containers_mix(tmp_path: Path) -> None:
    def tensor(number: int) -> torch.Tensor:
        return torch.tensor([number])

    state = {
        "deep": {"a": tensor(0), "b": tensor(1)},
        "mixed": {"x": tensor(2), "plain": 1.5, "list": [tensor(3), [tensor(4)], tensor(5)], "y": tensor(6)},
        "ordered": OrderedDict(a=tensor(7), b=tensor(8)),
        "$key": tensor(9),
        "array": np.array([10]),
        "pairs": {1: tensor(11), "two": tensor(12)},
    }
    sources = encode_state(state).tensors
    assert [int.from_bytes(b"".join(source.blocks(64)), "little") for source in sources] == list(range(13))
    assert sources[3].keys == ("mixed", "list", "0")
    assert [source.keys for source in sources[0:2]] == [("deep", "a"), ("deep", "b")]
    assert saved(tmp_path / "c", state)["mixed"]["list"][1][0].item() == 4


def test_ties_among_many_plain_tensors_are_kept(tmp_path: Path) -> None:
    tensors = {str(index): torch.full((4,), float(index)) for index in range(MANY)}
    tensors["tied"] = tensors["7"]
    tensors["part"] = tensors["9"][1:3]
    loaded = saved(tmp_path / "c", {"model": tensors})["model"]
    loaded["7"][0] = 70.0
    loaded["9"][1] = 90.0
    assert loaded["tied"][0] == 70.0
    assert loaded["part"][0] == 90.0
    assert loaded["8"].tolist() == [8.0] * 4


def test_ranges_that_may_intersect_are_found() -> None:
    assert find_intersecting([], []) == []
    assert find_intersecting([8, 0, 4], [12, 4, 8]) == []
    assert find_intersecting([0, 20, 5, 30], [10, 30, 25, 40]) == [0, 1, 2]
    assert set(find_intersecting([0, 10, 30, 50], [40, 20, 35, 60])) >= {0, 1, 2}


@pytest.mark.parametrize("position", [0, 1, MANY // 2, MANY - 1])
def test_damage_among_neighbours_is_named_and_nothing_is_handed_out(tmp_path: Path, position: int) -> None:
    info = ckptfmt.save(tmp_path / "c", {"m": {f"t{index:03}": torch.full((4,), index) for index in range(MANY)}})
    (shard,) = Path(info.path).glob("*.safetensors")
    content = bytearray(shard.read_bytes())
    begin = len(content) - MANY * 32
    for damaged in {position, MANY - 1}:
        content[begin + damaged * 32] ^= 1
    shard.chmod(0o644)
    shard.write_bytes(content)
    with pytest.raises(CorruptError) as caught:
        ckptfmt.load(info)
    assert (caught.value.rule, caught.value.tensor) == ("E040", f"t{position:03}")
    assert len(ckptfmt.load(info, verify=False)["m"]) == MANY


def test_arrays_that_lie_side_by_side_are_ready_too(tmp_path: Path) -> None:
    arrays = [np.arange(index, index + 4, dtype="u2") for index in range(MANY)]
    loaded = saved(tmp_path / "c", arrays)
    for array, found in zip(arrays, loaded, strict=True):
        np.testing.assert_array_equal(array, found)
        found[0] = 9
    assert loaded[1][1] == 2


@pytest.mark.parametrize("large", [SMALL_BYTES, SMALL_BYTES + 4, 2**21])
def test_digests_of_many_sources_are_those_of_each(large: int) -> None:
    shapes = [(1,), (2, 2), (), (large // 4,), (1,), (1,)] * 30
    sources = SourceColumns.of(encode_state([torch.randn(shape) for shape in shapes] + [np.ones(3), np.ones((2, 3)).T]).tensors)
    expected = [digest_source(source) for source in sources]
    assert digest_sources(sources, {}) == expected
    assert digest_sources(sources, {5: b"known" * 6 + b"!!"})[5] == b"known" * 6 + b"!!"


def test_digests_of_parts_are_those_of_each_part() -> None:
    data = memoryview(bytes(range(256)))
    assert digests_of(data, [3, 0, 253]) == digest_of(data[:3]) + digest_of(b"") + digest_of(data[3:])
    assert digests_of(data, []) == b""


def test_the_index_that_was_written_last_serves_only_its_own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = {"m": {str(index): torch.full((4,), index) for index in range(MANY)}}
    base = ckptfmt.save(tmp_path / "a", state)
    decoded: Counter[str] = Counter()
    plain = metadata_file.decode_metadata

    def counting(raw: bytes, *, where: str) -> Any:
        decoded[Path(where).parent.name] += 1
        return plain(raw, where=where)

    monkeypatch.setattr(metadata_file, "decode_metadata", counting)
    state["m"]["3"] += 1
    ckptfmt.save(tmp_path / "b", state, base=base)
    assert not decoded
    third = ckptfmt.save(tmp_path / "c", state, base=base)
    assert decoded == {"a": 1}
    assert third.unique_bytes < third.size_bytes
    (damaged,) = (tmp_path / "c").glob("metadata-*")
    damaged.chmod(0o644)
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    with pytest.raises(CorruptError, match="E020"):
        ckptfmt.save(tmp_path / "d", state, base=third)
