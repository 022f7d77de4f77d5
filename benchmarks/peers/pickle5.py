"""Pickle, protocol 5, of numpy arrays with their bytes: the least that a general library could take for many small tensors."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from benchmarks.peers.interface import Peer
from benchmarks.states import map_tensors


class Pickle5(Peer):
    """Loading runs whatever code the file names; shown as a measure, not as a choice."""

    label = "pickle 5"
    module = "pickle"
    states = ("50k",)

    def prepare(self, state: Any) -> Any:
        return map_tensors(state, lambda tensor: tensor.view(torch.uint8).numpy())

    def save(self, state: Any, path: Path, *, durable: bool) -> None:
        with path.open("wb") as file:
            pickle.dump(state, file, protocol=5)

    def load(self, path: Path) -> Any:
        with path.open("rb") as file:
            return pickle.load(file)


PEER = Pickle5()
