"""The safetensors library: flat dicts of tensors, one file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file, save_file

from benchmarks.peers.interface import Peer
from benchmarks.states import tensors_of


class Safetensors(Peer):
    """It holds no nesting and no plain values: only the tensors are saved, under their dotted paths."""

    label = "safetensors"
    module = "safetensors"

    def prepare(self, state: Any) -> dict[str, Any]:
        return dict(tensors_of(state))

    def save(self, state: Any, path: Path, *, durable: bool) -> None:
        save_file(state, path)

    def load(self, path: Path) -> Any:
        return load_file(path)

    def load_one(self, path: Path, name: str) -> Any:
        with safe_open(path, framework="pt") as file:
            return file.get_tensor(name)


PEER = Safetensors()
