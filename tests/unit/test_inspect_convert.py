"""ckpt-inspect convert between checkpoints and foreign files: the same tensors on both sides, and clear words where there is no way."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import ckptfmt

STATE = {"w": torch.arange(6.0).reshape(2, 3), "b": torch.ones(3, dtype=torch.bfloat16)}


@pytest.fixture
def checkpoint(tmp_path: Path) -> str:
    path = str(tmp_path / "checkpoint")
    ckptfmt.save(path, {"model": STATE, "optimizer": {"m": torch.zeros(3)}, "epoch": 3}, durable=False)
    return path


def assert_model(path: str) -> None:
    found = ckptfmt.load(path)["model"]
    assert found.keys() == STATE.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in STATE.items())
    assert ckptfmt.verify(path).ok


@pytest.mark.parametrize("value", [STATE, {"model": STATE, "epoch": 3}], ids=["state_dict", "training state"])
def test_a_torch_file_becomes_a_checkpoint(tmp_path, run, value):
    torch.save(value, tmp_path / "x.pt")
    status, out, _ = run("convert", str(tmp_path / "x.pt"), str(tmp_path / "c"))
    assert status == 0
    assert out.startswith(f"{tmp_path / 'c'}\n2 tensors (model), ")
    assert_model(str(tmp_path / "c"))


def test_a_pickled_model_is_refused_and_its_weights_taken_where_that_is_asked_for(tmp_path, run):
    source, target = str(tmp_path / "x.pt"), str(tmp_path / "c")
    torch.save(torch.nn.Linear(2, 2), source)
    status, _, err = run("convert", source, target)
    assert status == 2
    assert "asks for 1 names that are no plain data: torch.nn.modules.linear.Linear\n" in err
    assert "--objects-as-data takes" in err
    assert not os.path.exists(target)
    assert run("convert", source, target, "--objects-as-data")[0] == 0
    assert sorted(ckptfmt.load(target)["model"]) == ["bias", "weight"]


def test_a_checkpoint_goes_to_a_hugging_face_directory_and_back(tmp_path, run, checkpoint):
    target = str(tmp_path / "hf")
    status, out, _ = run("convert", checkpoint, target, "--to", "huggingface", "--max-shard-size", "10")
    assert status == 0
    assert "put the model's config.json beside them" in out
    index = json.loads((tmp_path / "hf" / "model.safetensors.index.json").read_text())
    assert index["weight_map"] == {"w": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    assert index["metadata"]["total_size"] == 30
    assert torch.equal(load_file(tmp_path / "hf" / index["weight_map"]["b"])["b"], STATE["b"])
    (tmp_path / "hf" / "config.json").write_text('{"model_type": "x", "layers": 2}')
    assert run("convert", target, str(tmp_path / "back"))[0] == 0
    assert_model(str(tmp_path / "back"))
    assert ckptfmt.load(tmp_path / "back")["config"] == {"model_type": "x", "layers": 2}
    assert run("convert", str(tmp_path / "back"), str(tmp_path / "again"), "--to", "huggingface")[0] == 0
    assert sorted(os.listdir(tmp_path / "again")) == ["config.json", "model.safetensors"]


def test_older_weights_in_a_hugging_face_directory_are_not_left_beside_new_ones(tmp_path, run, checkpoint):
    target = str(tmp_path / "hf")
    assert run("convert", checkpoint, target, "--to", "huggingface", "--max-shard-size", "10")[0] == 0
    status, _, err = run("convert", checkpoint, target, "--to", "huggingface")
    assert status == 2
    assert "exists already\n  Give another name, or --overwrite." in err
    assert run("convert", checkpoint, target, "--to", "huggingface", "--overwrite")[0] == 0
    assert os.listdir(target) == ["model.safetensors"]


def test_a_safetensors_file_of_another_writer_becomes_a_checkpoint(tmp_path, run):
    save_file(STATE, tmp_path / "x.safetensors", metadata={"format": "pt", "made_by": "me"})
    assert run("convert", str(tmp_path / "x.safetensors"), str(tmp_path / "c"))[0] == 0
    assert_model(str(tmp_path / "c"))
    assert ckptfmt.load(tmp_path / "c")["metadata"] == {"format": "pt", "made_by": "me"}


def test_an_npz_archive_goes_in_and_out(tmp_path, run, checkpoint):
    np.savez(tmp_path / "x.npz", x=np.arange(5), y=np.ones((2, 3), "f4"))
    assert run("convert", str(tmp_path / "x.npz"), str(tmp_path / "c"))[0] == 0
    np.testing.assert_array_equal(ckptfmt.load(tmp_path / "c")["x"], np.arange(5), strict=True)
    status, out, _ = run("convert", str(tmp_path / "c"), str(tmp_path / "y.npz"))
    assert (status, out) == (0, f"{tmp_path / 'y.npz'}\n2 tensors of the top of the state, 64 B\n")
    with np.load(tmp_path / "y.npz") as archive:
        np.testing.assert_array_equal(archive["y"], np.ones((2, 3), "f4"), strict=True)
    status, _, err = run("convert", checkpoint, str(tmp_path / "z.npz"))
    assert status == 2
    assert "b: numpy has no element type bfloat16\n  Write safetensors instead." in err


def test_an_npz_archive_of_objects_is_refused(tmp_path, run):
    np.savez(tmp_path / "x.npz", x=np.array([{}], dtype=object))
    status, _, err = run("convert", str(tmp_path / "x.npz"), str(tmp_path / "c"))
    assert status == 2
    assert "holds an array of objects, which is a pickle\n  Nothing was run." in err


def test_a_checkpoint_goes_back_to_torch_only_where_that_is_asked_for(tmp_path, run, checkpoint):
    status, out, _ = run("convert", checkpoint, str(tmp_path / "x.pt"))
    assert status == 0
    assert "a pickle again" in out
    found = torch.load(tmp_path / "x.pt", weights_only=True)
    assert torch.equal(found["model"]["w"], STATE["w"])
    assert found["epoch"] == 3


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"model.safetensors.index.json": "{"}, "not JSON"),
        ({"model.safetensors.index.json": "{}"}, "has no weight_map"),
        ({"model.safetensors.index.json": '{"weight_map": {"a": "../x"}}'}, "names 1 files that are not there, first ../x"),
        ({"model.safetensors": "\0" * 7}, "the file ends after 7 bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_damaged_hugging_face_directory_is_refused(tmp_path, run, files, message):
    (tmp_path / "hf").mkdir()
    for name, text in files.items():
        (tmp_path / "hf" / name).write_text(text)
    status, _, err = run("convert", str(tmp_path / "hf"), str(tmp_path / "c"))
    assert status == 2
    assert message in err
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--to", "checkpoint"], "a checkpoint cannot be converted to 'checkpoint'"),
        (["--to", "npz", "--objects-as-data"], "--objects-as-data: means nothing for this conversion"),
        (["--to", "torch", "--section", "model"], "--section: means nothing for this conversion"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_makes_no_sense_is_refused(tmp_path, run, checkpoint, options, message):
    status, _, err = run("convert", checkpoint, str(tmp_path / "x"), *options)
    assert status == 2
    assert message in err


def test_nothing_that_is_there_is_overwritten_unasked(tmp_path, run, checkpoint):
    torch.save(STATE, tmp_path / "x.pt")
    status, _, err = run("convert", str(tmp_path / "x.pt"), checkpoint)
    assert status == 2
    assert "exists already" in err
    assert ckptfmt.load(checkpoint)["epoch"] == 3
    assert run("convert", str(tmp_path / "x.pt"), checkpoint, "--overwrite")[0] == 0
    assert_model(checkpoint)
