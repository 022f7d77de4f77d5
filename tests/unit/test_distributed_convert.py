"""Directories of torch.distributed.checkpoint to our format and back, and what is refused of them."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex

import ckptfmt
from ckptfmt.adapters.torch_distributed import from_dcp, to_dcp

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is")
STATE = {
    "model": {
        "layer.weight": torch.arange(12.0).reshape(3, 4).t(),
        "half": torch.tensor(2.5, dtype=torch.bfloat16),
        "none": torch.empty(0, 3),
    },
    "optimizer": {"state": {"0": {"step": torch.tensor(3)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
    "pair": (1, torch.ones(2)),
    "epoch": 4,
}


def same(found: Any, expected: Any) -> bool:
    if isinstance(expected, torch.Tensor):
        return found.dtype == expected.dtype and torch.equal(found, expected)
    if isinstance(expected, dict):
        return list(found) == list(expected) and all(same(found[key], value) for key, value in expected.items())
    if isinstance(expected, (list, tuple)):
        return type(found) is type(expected) and all(map(same, found, expected))
    return bool(found == expected)


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    dcp.save(STATE, storage_writer=dcp.FileSystemWriter(tmp_path / "dcp"), no_dist=True)
    return tmp_path / "dcp"


def test_a_directory_of_dcp_becomes_a_checkpoint(foreign: Path, tmp_path: Path) -> None:
    info = from_dcp(foreign, tmp_path / "c", step=5)
    assert (info.step, info.tensor_count) == (5, 5)
    assert same(ckptfmt.load(tmp_path / "c"), STATE)
    assert ckptfmt.verify(tmp_path / "c").findings == ()


def test_a_checkpoint_becomes_a_directory_that_dcp_loads(tmp_path: Path) -> None:
    ckptfmt.save(tmp_path / "c", STATE)
    to_dcp(tmp_path / "c", tmp_path / "dcp")
    target: Any = {
        "model": {"layer.weight": torch.zeros(4, 3), "half": torch.tensor(0, dtype=torch.bfloat16), "none": torch.ones(0, 3)},
        "optimizer": {"state": {"0": {"step": torch.tensor(0)}}, "param_groups": [{"lr": None, "params": None}]},
        "pair": None,
        "epoch": None,
    }
    dcp.load(target, storage_reader=dcp.FileSystemReader(tmp_path / "dcp"), no_dist=True)
    assert same(target, STATE)
    from_dcp(tmp_path / "dcp", tmp_path / "again")
    assert same(ckptfmt.load(tmp_path / "again"), STATE)
    with pytest.raises(ckptfmt.CheckpointExistsError):
        to_dcp(tmp_path / "c", tmp_path / "dcp")


def test_a_directory_without_metadata_is_no_checkpoint_of_dcp(tmp_path: Path) -> None:
    with pytest.raises(ckptfmt.CheckpointNotFoundError, match=r"no \.metadata"):
        from_dcp(tmp_path, tmp_path / "c")


class _Evil:
    def __reduce__(self) -> Any:
        return os.mkdir, ("ran",)


@pytest.mark.parametrize("where", ["metadata", "value"])
def test_code_in_a_directory_is_refused_by_name_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    monkeypatch.chdir(tmp_path)
    foreign = tmp_path / "dcp"
    dcp.save({"epoch": _Evil() if where == "value" else 1}, storage_writer=dcp.FileSystemWriter(foreign), no_dist=True)
    if where == "metadata":
        (foreign / ".metadata").write_bytes(pickle.dumps(_Evil()))
    with pytest.raises(ckptfmt.UnsupportedTypeError, match=r"posix\.mkdir"):
        from_dcp(foreign, tmp_path / "c")
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "c").exists()


def rewritten(foreign: Path, change: Any) -> None:
    metadata: Metadata = pickle.loads((foreign / ".metadata").read_bytes())
    change(metadata)
    (foreign / ".metadata").write_bytes(pickle.dumps(metadata))


def _elsewhere(metadata: Metadata) -> None:
    metadata.storage_data[MetadataIndex("epoch")] = _StorageInfo("../../etc/passwd", 0, 10)


def _too_long(metadata: Metadata) -> None:
    place = metadata.storage_data[MetadataIndex("epoch")]
    metadata.storage_data[MetadataIndex("epoch")] = _StorageInfo(place.relative_path, place.offset, 10**9)


def _other_shape(metadata: Metadata) -> None:
    metadata.state_dict_metadata["model.layer.weight"].size = torch.Size([40, 3])  # type: ignore[union-attr]


def _nothing(metadata: Metadata) -> None:
    metadata.storage_data = None


def _wrong_class(metadata: Metadata) -> None:
    metadata.state_dict_metadata["epoch"] = 5  # type: ignore[assignment]


@pytest.mark.parametrize("change", [_elsewhere, _too_long, _other_shape, _nothing, _wrong_class], ids=lambda change: change.__name__)
def test_a_directory_that_contradicts_itself_is_refused(foreign: Path, tmp_path: Path, change: Any) -> None:
    rewritten(foreign, change)
    with pytest.raises(ckptfmt.CorruptError):
        from_dcp(foreign, tmp_path / "c")
    assert not (tmp_path / "c" / "manifest.json").exists()


def test_a_directory_cut_off_anywhere_is_refused(foreign: Path, tmp_path: Path) -> None:
    data = (foreign / ".metadata").read_bytes()
    for size in range(0, len(data), 37):
        (foreign / ".metadata").write_bytes(data[:size])
        with pytest.raises(ckptfmt.CorruptError):
            from_dcp(foreign, tmp_path / "c")
