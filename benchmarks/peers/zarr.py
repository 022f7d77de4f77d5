"""Zarr 3 with its defaults: one array for each tensor, compressed chunks in files. Measured where it is installed."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.peers.interface import Peer
from benchmarks.states import tensors_of


class Zarr(Peer):
    """Only the tensors are saved, under their dotted paths. The states that it is measured with have no bf16."""

    label = "zarr"
    module = "zarr"
    states = ("45MB",)

    def prepare(self, state: Any) -> dict[str, Any]:
        return {name: tensor.numpy() for name, tensor in tensors_of(state)}

    def save(self, state: Any, path: Path, *, durable: bool) -> None:
        import_module("zarr").save_group(str(path), **state)

    def load(self, path: Path) -> Any:
        group = import_module("zarr").open_group(str(path), mode="r")
        return {name: array[...] for name, array in group.arrays()}

    def load_one(self, path: Path, name: str) -> Any:
        return import_module("zarr").open_group(str(path), mode="r")[name][...]


PEER = Zarr()
