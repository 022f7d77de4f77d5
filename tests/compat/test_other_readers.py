"""Shards are plain safetensors: other tools open them without this library."""

import json

import pytest
import safetensors
import safetensors.numpy
import torch
from safetensors.torch import load_file, load_model

import ckptfmt
from tests.conformance.make_vectors import VECTORS

SHARDS = sorted((VECTORS / "good").glob("*/checkpoint/*.safetensors"))


@pytest.mark.parametrize("shard", SHARDS, ids=lambda shard: f"{shard.parents[1].name}/{shard.name}")
def test_every_shard_of_the_vectors_opens_in_safetensors(shard):
    data = shard.read_bytes()
    header_bytes = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:header_bytes])
    opened = dict(safetensors.deserialize(data))
    assert opened.keys() == header.keys() - {"__metadata__"}
    for key, entry in opened.items():
        begin, end = header[key]["data_offsets"]
        assert bytes(entry["data"]) == data[header_bytes + begin : header_bytes + end]


class Tied(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(3, 2)
        self.head = torch.nn.Linear(2, 3, bias=False)
        self.head.weight = self.embed.weight
        self.norm = torch.nn.BatchNorm1d(2)


def shard_of(path, section):
    (shard,) = path.glob(f"{section}-*.safetensors")
    return shard


def test_a_model_shard_loads_into_the_model_as_it_is(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    ckptfmt.save(str(tmp_path / "c"), {"model": model.state_dict()})
    fresh = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    fresh.load_state_dict(load_file(shard_of(tmp_path / "c", "model")))
    assert all(torch.equal(value, fresh.state_dict()[name]) for name, value in model.state_dict().items())


def test_ties_are_known_to_the_library_of_safetensors(tmp_path):
    model = Tied()
    ckptfmt.save(str(tmp_path / "c"), {"model": model.state_dict()})
    fresh = Tied()
    missing, unexpected = load_model(fresh, shard_of(tmp_path / "c", "model"))
    assert (list(missing), list(unexpected)) == ([], [])
    assert torch.equal(fresh.head.weight, model.head.weight)


def test_arrays_open_in_numpy_without_torch(tmp_path):
    import numpy

    state = {"arrays": {"grid": numpy.arange(6, dtype=numpy.int32).reshape(2, 3)}}
    ckptfmt.save(str(tmp_path / "c"), state)
    opened = safetensors.numpy.load_file(shard_of(tmp_path / "c", "arrays"))
    assert numpy.array_equal(opened["grid"], state["arrays"]["grid"])
