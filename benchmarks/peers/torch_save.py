"""torch.save and torch.load, plain and mapped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.peers.interface import Peer, split_name


class TorchSave(Peer):
    """One zip file with a pickle and the bytes of each storage."""

    label = "torch"
    module = "torch"

    def save(self, state: Any, path: Path, *, durable: bool) -> None:
        torch.save(state, path)

    def load(self, path: Path) -> Any:
        return torch.load(path, weights_only=True)

    def loads(self) -> dict[str, Callable[[Path], Any]]:
        return {"": self.load, "mmap=True": self._load_mapped}

    def load_one(self, path: Path, name: str) -> Any:
        section, key = split_name(name)
        return self._load_mapped(path)[section][key].clone()

    def _load_mapped(self, path: Path) -> Any:
        return torch.load(path, mmap=True, weights_only=True)


PEER = TorchSave()
