"""HDF5 through h5py: one dataset for each tensor. Measured where it is installed."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.peers.interface import Peer
from benchmarks.states import tensors_of


class H5py(Peer):
    """Only the tensors are saved, under their dotted paths. The states that it is measured with have no bf16."""

    label = "h5py"
    module = "h5py"
    states = ("45MB",)

    def prepare(self, state: Any) -> dict[str, Any]:
        return {name: tensor.numpy() for name, tensor in tensors_of(state)}

    def save(self, state: Any, path: Path, *, durable: bool) -> None:
        with import_module("h5py").File(path, "w") as file:
            for name, array in state.items():
                file.create_dataset(name, data=array)

    def load(self, path: Path) -> Any:
        with import_module("h5py").File(path, "r") as file:
            return {name: dataset[()] for name, dataset in file.items()}

    def load_one(self, path: Path, name: str) -> Any:
        with import_module("h5py").File(path, "r") as file:
            return file[name][()]


PEER = H5py()
