"""ckptfmt.open_checkpoint: single tensors, slices and the outline, with nothing else read."""

import gc
import os
import shutil

import numpy as np
import pytest
import torch

import ckptfmt
from tests.conformance.describing import described


def make_state():
    weight = torch.arange(12.0).reshape(3, 4)
    return {
        "model": {"w": weight, "tied": weight, "row": weight[1], "p": torch.nn.Parameter(torch.arange(6.0))},
        "array": np.arange(24, dtype=">i4").reshape(2, 3, 4),
        "sparse": torch.eye(3).to_sparse(),
        "none": torch.zeros(0, 5),
        "epoch": 3,
        "seen": ({1, 2}, [b"x", np.float32(1.5)]),
    }


@pytest.fixture
def path(tmp_path):
    ckptfmt.save(tmp_path / "c", make_state(), step=5)
    return tmp_path / "c"


NAMES = ["model.w", "model.tied", "model.row", "model.p", "array", "sparse", "none"]


def test_keys_are_the_paths_of_all_tensors_in_the_order_of_the_state(path):
    with ckptfmt.open_checkpoint(path) as checkpoint:
        assert checkpoint.keys() == NAMES


def test_each_tensor_is_given_as_it_was_saved(path):
    state = make_state()
    with ckptfmt.open_checkpoint(path) as checkpoint:
        for name in NAMES:
            value = state["model"][name.removeprefix("model.")] if name.startswith("model.") else state[name]
            assert described(checkpoint.get_tensor(name)) == described(value)


def test_tensor_info_tells_type_shape_and_size_without_reading(path):
    for file in path.glob("*.safetensors"):
        file.chmod(0o644)
        file.write_bytes(bytes(file.stat().st_size))
    with ckptfmt.open_checkpoint(path) as checkpoint:
        info = checkpoint.tensor_info("array")
        assert (info.name, info.dtype, info.shape, info.size_bytes) == ("array", "numpy:>i4", (2, 3, 4), 96)
        assert checkpoint.tensor_info("model.tied").name == "model.w"
        assert checkpoint.tensor_info("none").size_bytes == 0


def test_the_outline_has_the_shape_of_the_state_and_reads_no_tensor(path):
    for file in path.glob("*.safetensors"):
        file.chmod(0o644)
        file.write_bytes(bytes(file.stat().st_size))
    with ckptfmt.open_checkpoint(path) as checkpoint:
        tree = checkpoint.tree()
    assert list(tree) == ["model", "array", "sparse", "none", "epoch", "seen"]
    assert isinstance(tree["model"]["w"], ckptfmt.TensorInfo)
    assert tree["model"]["w"].shape == (3, 4)
    assert tree["epoch"] == 3
    assert tree["seen"][0] == {1, 2}
    assert type(tree["seen"]) is tuple


def test_info_is_that_of_the_checkpoint(path):
    with ckptfmt.open_checkpoint(path) as checkpoint:
        assert (checkpoint.info.step, checkpoint.info.path) == (5, str(path))
        assert checkpoint.sections() == ["model", "array", "sparse", "none", "epoch", "seen"]


SLICES = {
    "model.w": [np.s_[1], np.s_[1:3], np.s_[:, 2], np.s_[...], np.s_[0, 1], np.s_[None, 0:1], np.s_[::2]],
    "model.row": [np.s_[1:3], np.s_[0]],
    "array": [np.s_[1], np.s_[:, ::2], np.s_[0, 1, 2], np.s_[..., -1], np.s_[::-1]],
}


@pytest.mark.parametrize("name", SLICES)
def test_a_slice_is_that_part_of_the_tensor(path, name):
    state = make_state()
    whole = state["model"][name.removeprefix("model.")] if name.startswith("model.") else state[name]
    with ckptfmt.open_checkpoint(path) as checkpoint:
        part = checkpoint.get_slice(name)
        assert part.get_shape() == list(whole.shape) or name == "model.row"
        for index in SLICES[name]:
            assert np.array_equal(np.asarray(part[index]), np.asarray(whole[index]))


def test_a_slice_tells_shape_and_type(path):
    with ckptfmt.open_checkpoint(path) as checkpoint:
        assert checkpoint.get_slice("array").get_shape() == [2, 3, 4]
        assert checkpoint.get_slice("array").get_dtype() == "numpy:>i4"


def test_a_slice_keeps_only_its_own_part_in_memory(path):
    with ckptfmt.open_checkpoint(path) as checkpoint:
        part = checkpoint.get_slice("model.p")[2:4]
    assert part.untyped_storage().nbytes() == 8
    assert not part.requires_grad
    part += 1
    assert part.tolist() == [3, 4]


@pytest.mark.parametrize("ask", ["get_tensor", "get_slice", "tensor_info"])
def test_an_unknown_name_is_an_error_that_names_what_there_is(path, ask):
    with ckptfmt.open_checkpoint(path) as checkpoint, pytest.raises(ckptfmt.NameNotFoundError) as caught:
        getattr(checkpoint, ask)("model.x")
    assert caught.value.name == "model.x"
    assert caught.value.path == str(path)
    assert str(caught.value).split("\n") == [
        f"{path}: no tensor matches 'model.x'",
        "There are: model.w, model.tied, model.row, model.p, array and 2 more.",
    ]


def test_a_value_that_is_no_tensor_is_not_given(path):
    with ckptfmt.open_checkpoint(path) as checkpoint, pytest.raises(ckptfmt.NameNotFoundError):
        checkpoint.get_tensor("epoch")


def test_tensors_outlive_the_open_checkpoint_and_its_files(path):
    with ckptfmt.open_checkpoint(path) as checkpoint:
        weight, array = checkpoint.get_tensor("model.w"), checkpoint.get_tensor("array")
    shutil.rmtree(path)
    del checkpoint
    gc.collect()
    weight += 1
    array += 1
    assert described(weight) == described(make_state()["model"]["w"] + 1)
    assert described(array) == described((make_state()["array"] + 1).astype(">i4"))


def test_an_open_checkpoint_reads_on_after_deletion_and_overwrite(path):
    with ckptfmt.open_checkpoint(path) as first:
        ckptfmt.save(path, {"other": torch.ones(5)}, overwrite=True)
        with ckptfmt.open_checkpoint(path) as second:
            shutil.rmtree(path)
            assert described(first.load()) == described(make_state())
            assert second.get_tensor("other").tolist() == [1] * 5


def test_a_tensor_is_verified_once_and_then_its_own_memory(path):
    with ckptfmt.open_checkpoint(path) as checkpoint:
        checkpoint.get_tensor("model.w").zero_()
        assert checkpoint.get_tensor("array")[0, 0, 1] == 1


def test_reading_after_closing_is_an_error(path):
    checkpoint = ckptfmt.open_checkpoint(path)
    checkpoint.close()
    checkpoint.close()
    assert checkpoint.keys() == NAMES
    with pytest.raises((ValueError, OSError)):
        checkpoint.get_tensor("model.w")


def test_an_open_checkpoint_holds_no_file_open_after_closing(path):
    before = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
    for _ in range(5):
        with ckptfmt.open_checkpoint(path) as checkpoint:
            checkpoint.keys()
    with pytest.raises(ckptfmt.NameNotFoundError):
        ckptfmt.load(path, only="nothing")
    assert not before or len(os.listdir("/proc/self/fd")) == before


def test_the_device_is_that_of_the_tensors(path):
    with ckptfmt.open_checkpoint(path, device="meta") as checkpoint:
        assert checkpoint.get_tensor("model.w").is_meta
        assert checkpoint.get_slice("model.w")[0].is_meta
        assert type(checkpoint.get_tensor("array")) is np.ndarray


def test_a_bare_tensor_has_the_empty_name(tmp_path):
    ckptfmt.save(tmp_path / "c", torch.ones(3))
    with ckptfmt.open_checkpoint(tmp_path / "c") as checkpoint:
        assert checkpoint.keys() == [""]
        assert checkpoint.get_tensor("").tolist() == [1, 1, 1]
