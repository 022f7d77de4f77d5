"""Tensorizer: one streamed file of flat tensors. Measured where it is installed."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.peers.interface import Peer
from benchmarks.states import tensors_of


class Tensorizer(Peer):
    """Only the tensors are saved, under their dotted paths."""

    label = "tensorizer"
    module = "tensorizer"
    states = ("45MB",)

    def prepare(self, state: Any) -> dict[str, Any]:
        return dict(tensors_of(state))

    def save(self, state: Any, path: Path, *, durable: bool) -> None:
        serializer = import_module("tensorizer").TensorSerializer(str(path))
        serializer.write_state_dict(state)
        serializer.close()

    def load(self, path: Path) -> Any:
        with import_module("tensorizer").TensorDeserializer(str(path), device="cpu") as deserializer:
            return dict(deserializer.items())

    def load_one(self, path: Path, name: str) -> Any:
        with import_module("tensorizer").TensorDeserializer(str(path), device="cpu", lazy_load=True) as deserializer:
            return deserializer[name].clone()


PEER = Tensorizer()
