"""Orbax, on trees of numpy arrays. Measured where it is installed."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.peers.interface import Peer
from benchmarks.states import map_tensors


class Orbax(Peer):
    """Arrays of bf16 are handed over as those of ml_dtypes, which is what JAX programs have."""

    label = "orbax"
    module = "orbax.checkpoint"
    states = ("2GB", "45MB")

    def prepare(self, state: Any) -> Any:
        return _with_text_keys(map_tensors(state, _array))

    def save(self, state: Any, path: Path, *, durable: bool) -> None:
        with import_module("orbax.checkpoint").StandardCheckpointer() as checkpointer:
            checkpointer.save(path.absolute(), state)

    def load(self, path: Path) -> Any:
        with import_module("orbax.checkpoint").StandardCheckpointer() as checkpointer:
            return checkpointer.restore(path.absolute())


def _array(tensor: Any) -> Any:
    import torch

    if tensor.dtype is torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(import_module("ml_dtypes").bfloat16)
    return tensor.numpy()


def _with_text_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _with_text_keys(member) for key, member in value.items()}
    return [_with_text_keys(member) for member in value] if isinstance(value, (list, tuple)) else value


PEER = Orbax()
