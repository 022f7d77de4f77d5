"""Files of torch.save, of today and of old, come out as they went in, and nothing of them is run."""

from __future__ import annotations

import argparse
import pathlib
import zipfile
from collections import OrderedDict
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch

import ckptfmt
from ckptfmt.adapters.torch_file import load_torch_file

LAYOUTS = pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "before 1.6"])


def written(path: pathlib.Path, value: Any, *, is_zip: bool = True) -> pathlib.Path:
    torch.save(value, path, _use_new_zipfile_serialization=is_zip)
    return path


def trained() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    return model, optimizer


@LAYOUTS
def test_a_training_state_comes_out_equal(tmp_path: pathlib.Path, is_zip: bool) -> None:
    model, optimizer = trained()
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3, "rng": torch.get_rng_state()}
    found = load_torch_file(written(tmp_path / "x.pt", state, is_zip=is_zip))
    assert type(found["model"]) is OrderedDict
    assert found["model"]._metadata == state["model"]._metadata
    assert all(torch.equal(found["model"][name], tensor) for name, tensor in state["model"].items())
    assert found["epoch"] == 3
    assert torch.equal(found["rng"], state["rng"])
    other, other_optimizer = trained()
    other.load_state_dict(found["model"])
    other_optimizer.load_state_dict(found["optimizer"])
    for one, two in zip(optimizer.state_dict()["state"].values(), other_optimizer.state_dict()["state"].values(), strict=True):
        assert all(torch.equal(one[name], two[name]) for name in one)


VALUES = {
    "numpy": np.arange(6).reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "big endian": np.arange(3, dtype=">f8"),
    "record": np.array([(1, 2.5), (3, 4.5)], [("a", "<i4"), ("b", ">f8")]),
    "dates": np.array(["2026-01-02", "2026-01-03"], "M8[D]"),
    "scalar": np.float32(0.1),
    "date": np.datetime64("2026-01-02T03:04:05", "s"),
    "text": np.array(["a", "bcd"]),
    "empty": np.empty((0, 3)),
    "namespace": argparse.Namespace(lr=0.1, layers=[1, 2]),
    "path": pathlib.Path("/data/train"),
    "size": torch.Size([2, 3]),
    "dtype": torch.bfloat16,
    "device": torch.device("cuda:1"),
    "layout": torch.sparse_coo,
}


@pytest.mark.parametrize("name", VALUES)
@LAYOUTS
def test_values_beside_tensors_come_out_equal(tmp_path: pathlib.Path, name: str, is_zip: bool) -> None:
    value = VALUES[name]
    (found,) = load_torch_file(written(tmp_path / "x.pt", [value], is_zip=is_zip))
    assert type(found) is type(value)
    if isinstance(value, np.ndarray):
        np.testing.assert_array_equal(found, value, strict=True)
    else:
        assert found == value


DTYPES = [
    *(torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.bool, torch.complex64, torch.complex128, torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn, torch.float8_e5m2),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tensors_of_every_element_type_come_out_equal(tmp_path: pathlib.Path, dtype: torch.dtype) -> None:
    tensor = torch.randint(0, 2, (3, 5)).to(dtype)
    (found,) = load_torch_file(written(tmp_path / "x.pt", [tensor]))
    assert found.dtype == dtype
    assert torch.equal(found.view(torch.uint8), tensor.view(torch.uint8))


@LAYOUTS
def test_views_share_memory_as_they_did(tmp_path: pathlib.Path, is_zip: bool) -> None:
    tensor = torch.arange(12.0).reshape(3, 4)
    found = load_torch_file(written(tmp_path / "x.pt", [tensor, tensor.T, tensor[1:], tensor.clone()], is_zip=is_zip))
    found[0].fill_(7)
    assert [int(each.sum()) for each in found] == [84, 84, 56, 66]
    assert found[1].stride() == (1, 4)


def test_parameters_stay_parameters_and_tensors_keep_their_flags(tmp_path: pathlib.Path) -> None:
    state = {"p": torch.nn.Parameter(torch.ones(2), requires_grad=False), "t": torch.ones(2, requires_grad=True), "0-d": torch.tensor(3.0)}
    found = load_torch_file(written(tmp_path / "x.pt", state))
    assert type(found["p"]) is torch.nn.Parameter
    assert [found[name].requires_grad for name in ("p", "t", "0-d")] == [False, True, False]
    assert found["0-d"].shape == ()


def test_the_file_is_not_changed_by_what_is_done_to_its_tensors(tmp_path: pathlib.Path) -> None:
    path = written(tmp_path / "x.pt", [torch.ones(1000)])
    before = path.read_bytes()
    load_torch_file(path)[0].zero_()
    assert path.read_bytes() == before


class Config:
    def __init__(self) -> None:
        self.rate = 0.1


def test_a_pickled_model_is_refused_with_the_names_of_its_classes(tmp_path: pathlib.Path) -> None:
    path = written(tmp_path / "x.pt", {"model": torch.nn.Sequential(torch.nn.Linear(2, 2)), "config": Config()})
    with pytest.raises(ckptfmt.UnsupportedTypeError) as caught:
        load_torch_file(path)
    names = f"torch.nn.modules.container.Sequential, torch.nn.modules.linear.Linear, {__name__}.Config"
    assert f"x.pt: asks for 3 names that are no plain data: {names}\n" in str(caught.value)


def test_weights_can_be_had_from_a_pickled_model_whose_code_is_gone(tmp_path: pathlib.Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Sequential(torch.nn.BatchNorm1d(4)))
    model.register_buffer("mask", torch.ones(2), persistent=False)
    path = written(tmp_path / "x.pt", {"model": model, "config": Config()})
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data.replace(b"torch.nn.modules", b"my_old_package__"))
    found = load_torch_file(path, objects_as_data=True)
    assert found["config"] == {"__class__": f"{__name__}.Config", "rate": 0.1}
    expected = model.state_dict()
    assert list(found["model"]) == list(expected)
    assert all(torch.equal(found["model"][name], expected[name]) for name in expected)


def test_a_program_of_torchscript_is_refused(tmp_path: pathlib.Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("x/data.pkl", b"\x80\x02N.")
        archive.writestr("x/constants.pkl", b"\x80\x02).")
    with pytest.raises(ckptfmt.UnsupportedTypeError, match="holds a TorchScript program, which is code"):
        load_torch_file(tmp_path / "x.pt")


@LAYOUTS
def test_every_truncation_is_refused_by_a_typed_error(tmp_path: pathlib.Path, is_zip: bool) -> None:
    whole = written(tmp_path / "x.pt", {"w": torch.arange(20.0)}, is_zip=is_zip).read_bytes()
    for size in range(0, len(whole), 7):
        (tmp_path / "cut.pt").write_bytes(whole[:size])
        with pytest.raises(ckptfmt.CheckpointError):
            load_torch_file(tmp_path / "cut.pt")


@LAYOUTS
def test_every_changed_byte_is_refused_by_a_typed_error_or_gives_plain_data(tmp_path: pathlib.Path, is_zip: bool) -> None:
    whole = bytearray(written(tmp_path / "x.pt", {"w": torch.arange(6.0).reshape(2, 3), "n": [1, "a"]}, is_zip=is_zip).read_bytes())
    for position in range(0, len(whole), 3):
        whole[position] ^= 0x55
        (tmp_path / "bad.pt").write_bytes(whole)
        with suppress(ckptfmt.CheckpointError):
            load_torch_file(tmp_path / "bad.pt")
        whole[position] ^= 0x55


@pytest.mark.parametrize(
    ("size", "stride", "offset"), [((4,), (1,), 1), ((2, 2), (3, 1), 0), ((2**61,), (0,), -1), ((1,), (1,), 2**62)], ids=str
)
def test_a_tensor_outside_its_storage_is_refused(tmp_path: pathlib.Path, size: Any, stride: Any, offset: int) -> None:
    from ckptfmt.adapters.torch_names import _rebuild_tensor, storage_of

    storage = storage_of(memoryview(bytearray(16)), torch.float32)
    with pytest.raises(ValueError, match="a tensor of"):
        _rebuild_tensor(storage, offset, size, stride)


def test_other_files_are_told_apart(tmp_path: pathlib.Path) -> None:
    (tmp_path / "x.pt").write_bytes(b"\x80\x04]." + b"\0" * 100)
    with pytest.raises(ckptfmt.CorruptError, match=r"not a file of torch\.save"):
        load_torch_file(tmp_path / "x.pt")
    with pytest.raises(ckptfmt.CheckpointNotFoundError, match="no such file"):
        load_torch_file(tmp_path / "y.pt")
    with pytest.raises(ckptfmt.CheckpointNotFoundError, match="not a regular file"):
        load_torch_file(tmp_path)
