"""ckptfmt.save: what it returns, what it refuses, what it leaves on the disk."""

import math
import os
import stat
from collections import OrderedDict
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import torch

import ckptfmt
from tests.conformance.describing import described

STATE = {"model": {"w": torch.arange(6.0).reshape(2, 3)}, "epoch": 3}


def files_of(path):
    return {file.name: file.read_bytes() for file in Path(path).iterdir()}


def test_save_returns_what_was_committed(tmp_path):
    before = datetime.now(UTC) - timedelta(seconds=1)
    info = ckptfmt.save(tmp_path / "c", STATE, step=7, metrics={"loss": 0.5}, fingerprint={"seed": 1})
    assert (info.path, info.step, info.metrics, info.fingerprint) == (str(tmp_path / "c"), 7, {"loss": 0.5}, {"seed": 1})
    assert info.tensor_count == 1
    assert info.size_bytes == info.unique_bytes == sum(len(data) for data in files_of(tmp_path / "c").values())
    assert info.digest.startswith("blake3:")
    assert before <= datetime.fromisoformat(info.created_at_utc) <= datetime.now(UTC)
    with ckptfmt.open_checkpoint(tmp_path / "c") as checkpoint:
        assert checkpoint.info == info


def test_step_metrics_and_fingerprint_may_be_left_out(tmp_path):
    info = ckptfmt.save(tmp_path / "c", STATE)
    assert (info.step, info.metrics, info.fingerprint) == (None, {}, None)


def test_save_changes_nothing_of_the_state(tmp_path):
    weight = torch.nn.Parameter(torch.randn(3, 4))
    weight.sum().backward()
    view = weight.detach().t()[1:]
    state = {"w": weight, "grad": weight.grad, "view": view, "list": [1, (2, {3})], "array": np.arange(4)[::2]}
    before, identities = described(state), {name: id(value) for name, value in state.items()}
    versions = (weight._version, weight.grad._version)
    ckptfmt.save(tmp_path / "c", state)
    assert described(state) == before
    assert {name: id(value) for name, value in state.items()} == identities
    assert (weight._version, weight.grad._version) == versions
    assert weight.requires_grad


def test_objects_with_a_state_dict_are_asked_for_it_once(tmp_path):
    class Counter:
        asked = 0

        def state_dict(self):
            self.asked += 1
            return {"asked": self.asked}

    counter = Counter()
    ckptfmt.save(tmp_path / "c", {"counter": counter, "again": [counter]})
    assert ckptfmt.load(tmp_path / "c") == {"counter": {"asked": 1}, "again": [{"asked": 2}]}


def test_a_module_and_its_optimizer_come_back(tmp_path):
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    ckptfmt.save(tmp_path / "c", {"model": model, "optimizer": optimizer})
    loaded = ckptfmt.load(tmp_path / "c")
    assert type(loaded["model"]) is OrderedDict
    assert described(loaded) == described({"model": model.state_dict(), "optimizer": optimizer.state_dict()})


@pytest.mark.parametrize("state", [None, 5, "text", [], {}, torch.ones(2), [torch.ones(1), np.ones(1)], {1: {2: torch.ones(1)}}], ids=repr)
def test_any_supported_value_is_a_state(tmp_path, state):
    ckptfmt.save(tmp_path / "c", state)
    assert described(ckptfmt.load(tmp_path / "c")) == described(state)


def test_an_existing_checkpoint_is_kept_unless_overwrite_is_asked_for(tmp_path):
    ckptfmt.save(tmp_path / "c", STATE, step=1)
    before = files_of(tmp_path / "c")
    with pytest.raises(ckptfmt.CheckpointExistsError, match=r"step 1.*\nPass overwrite=True") as caught:
        ckptfmt.save(tmp_path / "c", {"other": 1})
    assert isinstance(caught.value, FileExistsError)
    assert caught.value.path == str(tmp_path / "c")
    assert files_of(tmp_path / "c") == before


def test_overwrite_replaces_the_checkpoint_and_removes_its_files(tmp_path):
    ckptfmt.save(tmp_path / "c", {"model": torch.ones(3), "head": torch.ones(1)}, step=1)
    old = set(files_of(tmp_path / "c")) - {"manifest.json"}
    ckptfmt.save(tmp_path / "c", {"model": torch.zeros(3)}, step=2, overwrite=True)
    assert described(ckptfmt.load(tmp_path / "c")) == described({"model": torch.zeros(3)})
    assert old & set(files_of(tmp_path / "c")) == set()
    assert ckptfmt.verify(tmp_path / "c").findings == ()


def test_overwrite_of_nothing_is_a_first_save(tmp_path):
    ckptfmt.save(tmp_path / "c", STATE, overwrite=True)
    assert ckptfmt.is_complete(tmp_path / "c")


def test_a_damaged_checkpoint_is_only_replaced_on_demand(tmp_path):
    ckptfmt.save(tmp_path / "c", STATE)
    manifest = tmp_path / "c" / "manifest.json"
    manifest.chmod(0o644)
    manifest.write_bytes(b"{}")
    with pytest.raises(ckptfmt.CheckpointExistsError, match="damaged"):
        ckptfmt.save(tmp_path / "c", STATE)
    ckptfmt.save(tmp_path / "c", STATE, overwrite=True)
    assert ckptfmt.verify(tmp_path / "c").ok


@pytest.mark.parametrize(
    "value", [object(), lambda: None, type("Own", (), {})(), {"f": print}, [{1: (set(), object())}]], ids=["1", "2", "3", "4", "5"]
)
def test_a_state_that_cannot_be_stored_writes_nothing(tmp_path, value):
    with pytest.raises(ckptfmt.UnsupportedTypeError) as caught:
        ckptfmt.save(tmp_path / "c", {"model": torch.ones(2), "bad": value})
    assert isinstance(caught.value, TypeError)
    assert caught.value.path.startswith("bad")
    assert str(caught.value).startswith("bad")
    assert not (tmp_path / "c").exists()


def test_a_failed_overwrite_leaves_the_old_checkpoint(tmp_path):
    ckptfmt.save(tmp_path / "c", STATE)
    before = files_of(tmp_path / "c")
    with pytest.raises(ckptfmt.UnsupportedTypeError):
        ckptfmt.save(tmp_path / "c", {"bad": object()}, overwrite=True)
    assert files_of(tmp_path / "c") == before


def test_files_of_others_in_the_directory_stay(tmp_path):
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "notes.txt").write_text("mine")
    ckptfmt.save(tmp_path / "c", STATE)
    ckptfmt.save(tmp_path / "c", STATE, overwrite=True)
    assert (tmp_path / "c" / "notes.txt").read_text() == "mine"


def test_a_save_that_is_not_durable_is_a_checkpoint_all_the_same(tmp_path):
    ckptfmt.save(tmp_path / "c", STATE, durable=False)
    assert ckptfmt.verify(tmp_path / "c").ok


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        ({"loss": 0.25, "count": 3}, {"loss": 0.25, "count": 3}),
        ({"a": math.nan, "b": math.inf, "c": -math.inf}, {"a": math.nan, "b": math.inf, "c": -math.inf}),
        ({"t": torch.tensor(0.5), "i": torch.tensor(7), "h": torch.tensor(1.5, dtype=torch.bfloat16)}, {"t": 0.5, "i": 7, "h": 1.5}),
        ({"n": np.float32(0.5), "i": np.int64(7), "z": np.array(2.0), "o": np.ones(1)}, {"n": 0.5, "i": 7, "z": 2.0, "o": 1.0}),
        ({"yes": True, "no": np.bool_(False)}, {"yes": 1, "no": 0}),
        ({"large": 2**100, "least": -(2**63), "tiny": 5e-324}, {"large": float(2**100), "least": -(2**63), "tiny": 5e-324}),
        ({"é \u202e": 1, "": 2}, {"é \u202e": 1, "": 2}),
    ],
    ids=["plain", "not-finite", "torch", "numpy", "bool", "extreme", "names"],
)
def test_metrics_are_kept_as_plain_numbers(tmp_path, metrics, expected):
    info = ckptfmt.save(tmp_path / "c", STATE, metrics=metrics)
    assert repr(sorted(info.metrics.items())) == repr(sorted(expected.items()))
    with ckptfmt.open_checkpoint(tmp_path / "c") as checkpoint:
        assert repr(sorted(checkpoint.info.metrics.items())) == repr(sorted(expected.items()))


@pytest.mark.parametrize(
    ("metrics", "path"),
    [
        ({"loss": "0.5"}, "metrics.loss"),
        ({"loss": None}, "metrics.loss"),
        ({"loss": 1j}, "metrics.loss"),
        ({"loss": torch.ones(2)}, "metrics.loss"),
        ({"loss": np.ones((2, 2))}, "metrics.loss"),
        ({"loss": [1.0]}, "metrics.loss"),
        ({1: 1.0}, "metrics"),
        ({"\ud800": 1.0}, "metrics"),
        ([("loss", 1.0)], "metrics"),
    ],
    ids=repr,
)
def test_metrics_that_are_no_numbers_are_refused_before_anything_is_written(tmp_path, metrics, path):
    with pytest.raises(ckptfmt.UnsupportedTypeError, match=r"^metrics") as caught:
        ckptfmt.save(tmp_path / "c", STATE, metrics=metrics)
    assert caught.value.path == path
    assert not (tmp_path / "c").exists()


def deep(levels):
    value = {}
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    "fingerprint",
    [{"a": object()}, {"a": math.nan}, {"a": {1, 2}}, {1: 1, "1": 2}, {"a": 2**64}, deep(40), deep(5000), ["seed"]],
    ids=range(8),
)
def test_a_fingerprint_that_json_cannot_hold_is_refused(tmp_path, fingerprint):
    with pytest.raises(ckptfmt.UnsupportedTypeError, match=r"^fingerprint"):
        ckptfmt.save(tmp_path / "c", STATE, fingerprint=fingerprint)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("step", [-1, 1.0, "1", True, 2**63, np.int64(3)], ids=repr)
def test_a_step_must_be_a_count(tmp_path, step):
    with pytest.raises(ValueError, match=r"step=.*expected an integer"):
        ckptfmt.save(tmp_path / "c", STATE, step=step)


@pytest.mark.parametrize("size", ["", "x", "0", "-1", "1XB", "1e9", 0, -5, True, None, 1.5, "0.0001B", "GB", b"1"], ids=repr)
def test_a_shard_size_that_is_none_is_refused(tmp_path, size):
    with pytest.raises(ValueError, match=r"max_shard_size=.*expected a positive number"):
        ckptfmt.save(tmp_path / "c", STATE, max_shard_size=size)


@pytest.mark.parametrize(
    ("size", "count"),
    [
        ("1kB", 4),
        ("1.5 kB", 3),
        ("1KiB", 4),
        ("2 KB", 2),
        (1000, 4),
        ("1000", 4),
        ("1000b", 4),
        ("4k", 1),
        ("2GB", 1),
        ("9" * 400 + "TiB", 1),
    ],
)
def test_shards_are_cut_at_the_size_that_is_asked_for(tmp_path, size, count):
    ckptfmt.save(tmp_path / "c", {"model": {str(number): torch.zeros(125) for number in range(8)}}, max_shard_size=size)
    assert len(list((tmp_path / "c").glob("model-*.safetensors"))) == count


def test_a_tensor_larger_than_the_limit_has_a_shard_of_its_own(tmp_path):
    ckptfmt.save(tmp_path / "c", {"m": {"a": torch.zeros(5), "b": torch.zeros(1000), "c": torch.zeros(5)}}, max_shard_size=100)
    assert len(list((tmp_path / "c").glob("m-*.safetensors"))) == 3
    assert ckptfmt.load(tmp_path / "c")["m"]["b"].shape == (1000,)


@contextmanager
def umask(mode):
    before = os.umask(mode)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.parametrize(("mask", "file_mode", "directory_mode"), [(0o022, 0o444, 0o755), (0o027, 0o440, 0o750), (0o077, 0o400, 0o700)])
def test_files_are_read_only_and_honour_the_umask(tmp_path, mask, file_mode, directory_mode):
    with umask(mask):
        ckptfmt.save(tmp_path / "new" / "c", STATE)
    modes = {stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "new" / "c").iterdir()}
    assert modes == {file_mode}
    assert stat.S_IMODE((tmp_path / "new" / "c").stat().st_mode) == directory_mode


def test_nothing_but_the_files_of_the_checkpoint_is_left(tmp_path):
    ckptfmt.save(tmp_path / "c", STATE)
    assert sorted(name.partition("-")[0] for name in files_of(tmp_path / "c")) == ["manifest.json", "metadata", "model"]
    assert [path.name for path in tmp_path.iterdir()] == ["c"]
