"""ckptfmt.load: exact values in memory of the caller's own, whole or in part."""

import shutil

import numpy as np
import pytest
import torch

import ckptfmt
from tests.conformance.describing import described


def many():
    weight = torch.arange(12.0).reshape(3, 4)
    return {
        "model": {"layers": [{"w": weight, "b": torch.ones(3)}, {"w": torch.zeros(2), "b": torch.zeros(3)}], "tied": weight},
        "optimizer": {"lr": 0.1, "state": {0: {"step": torch.tensor(3)}, 1: {"step": torch.tensor(4)}}, "betas": (0.9, 0.999)},
        "epoch": 3,
        "array": np.arange(6).reshape(2, 3),
    }


@pytest.fixture
def path(tmp_path):
    ckptfmt.save(tmp_path / "c", many())
    return tmp_path / "c"


def test_what_was_saved_is_loaded(path):
    assert described(ckptfmt.load(path)) == described(many())


def test_loaded_tensors_are_writable_and_their_changes_stay_in_memory(path):
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    state = ckptfmt.load(path)
    state["model"]["tied"].fill_(9)
    state["array"][...] = 9
    assert state["model"]["layers"][0]["w"].tolist() == [[9.0] * 4] * 3
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before
    assert described(ckptfmt.load(path)) == described(many())


def test_two_loads_share_nothing(path):
    first, second = ckptfmt.load(path), ckptfmt.load(path)
    first["model"]["tied"].zero_()
    assert described(second) == described(many())


@pytest.mark.parametrize("end", ["deleted", "overwritten", "truncated"])
def test_loaded_tensors_outlive_the_files(path, end):
    state = ckptfmt.load(path)
    if end == "deleted":
        shutil.rmtree(path)
    elif end == "overwritten":
        ckptfmt.save(path, {"model": torch.full((10_000,), 7.0)}, overwrite=True)
    else:
        for file in path.iterdir():
            file.unlink()
            file.write_bytes(b"")
    assert described(state) == described(many())


def test_ties_and_views_share_memory_after_loading(tmp_path):
    base = torch.arange(10.0)
    array = np.arange(10)
    ckptfmt.save(tmp_path / "c", {"base": base, "same": base, "view": base[2:5], "array": array, "part": array[::2]})
    state = ckptfmt.load(tmp_path / "c")
    state["view"][0] = 99
    state["part"][1] = 77
    assert state["base"][2] == state["same"][2] == 99
    assert state["array"][2] == 77
    assert state["base"].data_ptr() == state["same"].data_ptr()


def test_tensors_that_were_not_tied_are_not_tied_after_loading(tmp_path):
    ckptfmt.save(tmp_path / "c", {"a": torch.zeros(4), "b": torch.zeros(4)})
    state = ckptfmt.load(tmp_path / "c")
    state["a"].fill_(1)
    assert state["b"].tolist() == [0] * 4


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu"), "meta"])
def test_torch_tensors_go_to_the_device_that_is_asked_for(path, device):
    state = ckptfmt.load(path, device=device)
    assert state["model"]["tied"].device == torch.device(device)
    assert state["model"]["tied"].shape == (3, 4)
    assert type(state["array"]) is np.ndarray


def test_an_unknown_device_is_an_error(path):
    with pytest.raises(RuntimeError, match="no such device"):
        ckptfmt.load(path, device="no such device")


@pytest.mark.parametrize(
    ("only", "expected"),
    [
        ("model", lambda state: {"model": state["model"]}),
        ("epoch", lambda state: {"epoch": 3}),
        ("model.tied", lambda state: {"model": {"tied": state["model"]["tied"]}}),
        ("*.tied", lambda state: {"model": {"tied": state["model"]["tied"]}}),
        ("model.layers.1", lambda state: {"model": {"layers": [None, state["model"]["layers"][1]]}}),
        ("model.layers.*.b", lambda state: {"model": {"layers": [{"b": layer["b"]} for layer in state["model"]["layers"]]}}),
        ("optimizer.state.1.*", lambda state: {"optimizer": {"state": {1: state["optimizer"]["state"][1]}}}),
        ("optimizer.betas.0", lambda state: {"optimizer": {"betas": (0.9, None)}}),
        (["epoch", "array"], lambda state: {"epoch": 3, "array": state["array"]}),
        (["epoch", "nothing"], lambda state: {"epoch": 3}),
        (("model.t?ed",), lambda state: {"model": {"tied": state["model"]["tied"]}}),
        ("[em]poch", lambda state: {"epoch": 3}),
        ("*", lambda state: state),
    ],
    ids=lambda value: None if callable(value) else str(value),
)
def test_only_selects_by_glob_over_paths(path, only, expected):
    assert described(ckptfmt.load(path, only=only)) == described(expected(many()))


@pytest.mark.parametrize("only", ["nothing", "Model", "model.", "", [], ["a", "b"], "model.layers.2", "tied"], ids=repr)
def test_only_that_matches_nothing_is_an_error_that_names_what_there_is(path, only):
    with pytest.raises(ckptfmt.NameNotFoundError) as caught:
        ckptfmt.load(path, only=only)
    assert isinstance(caught.value, KeyError)
    first, second = str(caught.value).split("\n")
    assert first.startswith(f"{path}: no path matches ")
    assert second == "There are: model.layers.0.w, model.layers.0.b, model.layers.1.w, model.layers.1.b, model.tied and 7 more."
    assert caught.value.path == str(path)


def damage(path, start):
    file = next(path.glob(f"{start}-*"))
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.chmod(0o644)
    file.write_bytes(data)


def test_only_reads_nothing_else(path):
    damage(path, "optimizer")
    assert described(ckptfmt.load(path, only="model")) == described({"model": many()["model"]})
    with pytest.raises(ckptfmt.CorruptError):
        ckptfmt.load(path, only="optimizer")
    with pytest.raises(ckptfmt.CorruptError):
        ckptfmt.load(path)


def test_loading_without_digests_hands_out_what_is_there(path):
    damage(path, "optimizer")
    state = ckptfmt.load(path, verify=False)
    assert described(state["model"]) == described(many()["model"])
    assert state["optimizer"]["state"][1]["step"] != 4


@pytest.mark.parametrize("start", ["manifest.json", "metadata"])
def test_manifest_and_metadata_are_always_checked(path, start):
    file = next(path.glob(f"{start}*"))
    file.chmod(0o644)
    file.write_bytes(file.read_bytes()[:-2] + b"xx")
    with pytest.raises(ckptfmt.CorruptError):
        ckptfmt.load(path, verify=False)


def test_a_path_without_anything_is_not_found(tmp_path):
    with pytest.raises(ckptfmt.CheckpointNotFoundError, match="no such checkpoint") as caught:
        ckptfmt.load(tmp_path / "nothing")
    assert isinstance(caught.value, FileNotFoundError)
    assert caught.value.path == str(tmp_path / "nothing")


def test_a_file_is_not_a_checkpoint(tmp_path):
    (tmp_path / "model.pt").write_bytes(b"x")
    with pytest.raises(ckptfmt.CheckpointNotFoundError, match="expected a directory, found a file"):
        ckptfmt.load(tmp_path / "model.pt")


def test_a_directory_without_a_manifest_is_incomplete(path):
    (path / "manifest.json").unlink()
    with pytest.raises(ckptfmt.IncompleteError, match=r"no manifest.json \[E001\]\nA save is in progress or was interrupted") as caught:
        ckptfmt.load(path)
    assert caught.value.path == str(path)


def test_a_checkpoint_may_be_moved_and_copied(path, tmp_path):
    shutil.copytree(path, tmp_path / "copy")
    path.rename(tmp_path / "moved")
    for other in ("copy", "moved"):
        assert described(ckptfmt.load(tmp_path / other)) == described(many())


def test_two_tensors_of_one_path_are_both_loaded(tmp_path):
    state = {"a.b": torch.zeros(1), "a": {"b": torch.ones(1)}, 1: torch.full((1,), 2.0), "1": torch.full((1,), 3.0)}
    ckptfmt.save(tmp_path / "c", state)
    assert described(ckptfmt.load(tmp_path / "c")) == described(state)
    with ckptfmt.open_checkpoint(tmp_path / "c") as checkpoint:
        assert {name: checkpoint.get_tensor(name).item() for name in checkpoint.keys()} == {"a.b": 0, "a.b#2": 1, "1": 2, "1#2": 3}
        assert checkpoint.tensor_info("a.b#2").name == "a.b#2"
