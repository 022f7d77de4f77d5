"""What ckpt-inspect shows of a compressed checkpoint: what its tensors take, and how they are encoded."""

import json

import numpy as np
import pytest

import ckptfmt
from ckpt_inspect.main import main


@pytest.fixture
def path(tmp_path):
    weights = (np.random.default_rng(0).standard_normal((100, 200)) * 0.02).astype("<f4")
    noise = np.random.default_rng(0).integers(0, 256, 5_000).astype("u1")
    ckptfmt.save(tmp_path / "c", {"model": {"w": weights.astype("<f2")}, "master": {"w": weights}, "noise": noise})
    return str(tmp_path / "c")


@pytest.fixture
def shown(capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)

    def shown(*arguments):
        assert main(arguments) == 0
        return capsys.readouterr().out

    return shown


def test_the_summary_says_what_was_encoded_and_to_how_much(path, shown):
    assert "encoded" not in shown("inspect", path)
    ckptfmt.compress(path)
    line = next(line for line in shown("inspect", path).splitlines() if "encoded" in line)
    assert line.endswith("%: 1 rounded, 1 planes")


def test_tensors_are_shown_with_what_they_take(path, shown):
    assert "stored" not in shown("inspect", path, "--tensors")
    ckptfmt.compress(path)
    table = shown("inspect", path, "--tensors").splitlines()
    assert table[0].split() == ["name", "dtype", "shape", "size", "shard", "stored", "codec"]
    assert table[1].split()[-3:] == ["0", "B", "rounded"]
    assert table[2].split()[-1] == "planes"
    assert table[3].split()[-2:] == ["5.0", "kB"]


def test_documents_say_the_same(path, shown):
    ckptfmt.compress(path)
    entries = json.loads(shown("inspect", path, "--tensors", "--json"))["tensors"]
    assert [entry["codecs"] for entry in entries] == [["rounded"], ["planes"], []]
    assert [entry["stored_bytes"] < entry["size_bytes"] for entry in entries] == [True, True, False]
    document = json.loads(shown("inspect", path, "--json"))
    assert document["stored_tensor_bytes"] == sum(entry["stored_bytes"] for entry in entries) < document["tensor_bytes"]


def test_statistics_and_verification_look_at_what_was_encoded(path, shown):
    before = shown("inspect", path, "--stats")
    ckptfmt.compress(path)
    assert shown("inspect", path, "--stats") == before
    assert shown("verify", path).startswith("sound")
