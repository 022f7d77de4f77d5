"""What Lightning sees of a save that a kill cut short: nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

import ckptfmt
from ckptfmt.adapters import lightning
from ckptfmt.adapters.lightning import checkpoint_io

STATE = {"state_dict": {"w": torch.ones(2)}, "global_step": 1}


def test_a_save_that_was_cut_short_leaves_no_name_that_lightning_would_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(disk, path, state, options):
        os.makedirs(path)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(lightning, "write_checkpoint", killed)
        with pytest.raises(KeyboardInterrupt):
            checkpoint_io().save_checkpoint(STATE, tmp_path / "last.ckpt")
    assert os.listdir(tmp_path) == [".last.ckpt.new"]
    checkpoint_io().save_checkpoint(STATE, tmp_path / "last.ckpt")
    assert os.listdir(tmp_path) == ["last.ckpt"]
    assert ckptfmt.load(tmp_path / "last.ckpt")["global_step"] == 1


def test_an_existing_checkpoint_is_overwritten_in_its_place(tmp_path: Path) -> None:
    plugin = checkpoint_io()
    for step in (1, 2):
        plugin.save_checkpoint({**STATE, "global_step": step}, tmp_path / "last.ckpt")
    assert os.listdir(tmp_path) == ["last.ckpt"]
    assert plugin.load_checkpoint(tmp_path / "last.ckpt")["global_step"] == 2
