"""Shards are plain safetensors files: the library opens each of them and finds the right values under the right names."""

import json

import numpy as np
import pytest
import safetensors
import safetensors.numpy
import safetensors.torch
import torch

import ckptfmt

TORCH_TYPES = """bool uint8 int8 int16 int32 int64 uint16 uint32 uint64 float16 bfloat16 float32 float64 complex64 float8_e4m3fn float8_e5m2
    float8_e4m3fnuz float8_e5m2fnuz""".split()


def shards_of(path, section):
    return sorted(path.glob(f"{section}-*.safetensors"))


class Tied(torch.nn.Module):
    """A language model in small: the weight of its head is that of its embedding."""

    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(5, 3)
        self.norm = torch.nn.BatchNorm1d(3)
        self.head = torch.nn.Linear(3, 5, bias=False)
        self.head.weight = self.embedding.weight


def same(model, other):
    return all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())


def test_a_model_shard_goes_into_load_state_dict(tmp_path):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
    ckptfmt.save(tmp_path / "c", {"model": model, "epoch": 1})
    (shard,) = shards_of(tmp_path / "c", "model")
    state = safetensors.torch.load_file(shard)
    assert sorted(state) == sorted(model.state_dict())
    other = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
    other.load_state_dict(state)
    assert same(model, other)


def test_a_model_with_tied_weights_goes_into_load_model(tmp_path):
    torch.manual_seed(0)
    model, other = Tied(), Tied()
    ckptfmt.save(tmp_path / "c", {"model": model})
    (shard,) = shards_of(tmp_path / "c", "model")
    missing, unexpected = safetensors.torch.load_model(other, shard)
    assert (list(missing), unexpected) == ([], [])
    assert same(model, other)
    with safetensors.safe_open(shard, "pt") as file:
        assert file.metadata() == {"format": "pt", "head.weight": "embedding.weight"}


def test_several_shards_together_hold_the_model(tmp_path):
    model = torch.nn.Sequential(*[torch.nn.Linear(10, 10) for _ in range(5)])
    ckptfmt.save(tmp_path / "c", {"model": model}, max_shard_size=1000)
    shards = shards_of(tmp_path / "c", "model")
    assert len(shards) > 2
    state = {}
    for shard in shards:
        state |= safetensors.torch.load_file(shard)
    other = torch.nn.Sequential(*[torch.nn.Linear(10, 10) for _ in range(5)])
    other.load_state_dict(state)
    assert same(model, other)


@pytest.mark.parametrize("name", TORCH_TYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (2, 0, 3), (1, 2, 1)], ids=str)
def test_every_type_that_safetensors_has_is_stored_as_itself(tmp_path, name, shape):
    dtype = getattr(torch, name)
    numbers = torch.arange(torch.Size(shape).numel()).reshape(shape)
    tensor = numbers.to(dtype) if name != "bool" else numbers % 2 == 0
    ckptfmt.save(tmp_path / "c", {"model": {"t": tensor}})
    (shard,) = shards_of(tmp_path / "c", "model")
    with safetensors.safe_open(shard, "pt") as file:
        assert file.keys() == ["t"]
        assert file.get_slice("t").get_shape() == list(shape)
    loaded = safetensors.torch.load_file(shard)["t"]
    assert (loaded.dtype, loaded.shape) == (dtype, tensor.shape)
    assert torch.equal(loaded.view(torch.uint8) if loaded.dim() else loaded.reshape(1).view(torch.uint8), bytes_of(tensor, loaded.dim()))


def bytes_of(tensor, rank):
    return (tensor if rank else tensor.reshape(1)).view(torch.uint8)


@pytest.mark.parametrize("tensor", [torch.tensor([1 + 2j], dtype=torch.complex128), torch.ones(3).to(torch.float8_e8m0fnu)], ids=str)
def test_other_types_are_stored_as_their_bytes(tmp_path, tensor):
    ckptfmt.save(tmp_path / "c", {"model": {"t": tensor}})
    (shard,) = shards_of(tmp_path / "c", "model")
    loaded = safetensors.torch.load_file(shard)["t"]
    assert loaded.dtype == torch.uint8
    assert bytes(loaded.tolist()) == bytes(tensor.view(torch.uint8).flatten().tolist())


def test_arrays_of_numpy_are_found_by_the_library_for_numpy(tmp_path):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    ckptfmt.save(tmp_path / "c", {"arrays": {"a": array, "strided": array.T, "b": np.arange(3)}})
    (shard,) = shards_of(tmp_path / "c", "arrays")
    loaded = safetensors.numpy.load_file(shard)
    assert np.array_equal(loaded["b"], np.arange(3))
    assert np.array_equal(loaded["a"], array)


def test_data_begins_aligned_and_each_tensor_to_its_element(tmp_path):
    state = {
        "m": {
            "odd": torch.ones(3, dtype=torch.uint8),
            "wide": torch.ones(2, dtype=torch.float64),
            "half": torch.ones(1, dtype=torch.float16),
        }
    }
    ckptfmt.save(tmp_path / "c", state)
    (shard,) = shards_of(tmp_path / "c", "m")
    data = shard.read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    assert begin % 64 == 0
    header = json.loads(data[8:begin])
    assert [header[name]["data_offsets"] for name in ("wide", "half", "odd")] == [[0, 16], [16, 18], [18, 21]]
    loaded = safetensors.torch.load(data)
    assert [loaded[name].tolist() for name in ("wide", "half", "odd")] == [[1, 1], [1], [1, 1, 1]]


def test_strange_names_are_stored_so_that_the_library_reads_them(tmp_path):
    names = ["a\x1b[2Jb", "line\nbreak", "x" * 2000, "", "__metadata__", "ünï", '"quoted\\"', "a.b", "日本"]
    state = {"model": {name: torch.full((1,), float(position)) for position, name in enumerate(names)}}
    ckptfmt.save(tmp_path / "c", state)
    (shard,) = shards_of(tmp_path / "c", "model")
    loaded = safetensors.torch.load_file(shard)
    assert sorted(tensor.item() for tensor in loaded.values()) == list(map(float, range(len(names))))
    assert {"ünï", '"quoted\\"', "a.b", "日本"} <= set(loaded)
    assert all(len(name.encode()) <= 512 for name in loaded)
    assert list(ckptfmt.load(tmp_path / "c")["model"]) == names


def test_sections_never_share_a_shard(tmp_path):
    ckptfmt.save(tmp_path / "c", {"a": {"t": torch.ones(1)}, "A": {"t": torch.ones(2)}, "a b": {"t": torch.ones(3)}, "top": torch.ones(4)})
    found = {shard.name.rpartition("-")[0]: list(safetensors.torch.load_file(shard)) for shard in (tmp_path / "c").glob("*.safetensors")}
    assert found == {"a-00001": ["t"], "a-00002": ["t"], "a_b-00001": ["t"], "state-00001": ["top"]}


def test_every_shard_of_a_checkpoint_with_a_base_opens(tmp_path):
    state = {"model": {"a": torch.ones(100), "b": torch.ones(10)}}
    ckptfmt.save(tmp_path / "a", state)
    state["model"]["b"] = torch.zeros(10)
    ckptfmt.save(tmp_path / "b", state, base=tmp_path / "a")
    latest = {}
    for shard in shards_of(tmp_path / "b", "model"):
        latest |= safetensors.torch.load_file(shard)
    assert latest["b"].tolist() == [0] * 10
    assert latest["a"].tolist() == [1] * 100
