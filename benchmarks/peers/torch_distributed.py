"""torch.distributed.checkpoint in one process, with as many writing threads as cores."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from benchmarks.peers.interface import Peer, split_name
from benchmarks.states import map_tensors

dcp: Any = import_module("torch.distributed.checkpoint")


class TorchDistributed(Peer):
    """It loads into tensors that exist already; making them belongs to the load here, as for everybody else."""

    label = "DCP"
    module = "torch"
    is_durable_by_itself = True

    def __init__(self) -> None:
        self._outline: Any = None
        warnings.filterwarnings("ignore", module="torch.distributed.*")

    def prepare(self, state: Any) -> Any:
        self._outline = map_tensors(state, lambda tensor: tensor.to("meta"))
        return state

    def save(self, state: Any, path: Path, *, durable: bool) -> None:
        dcp.save(state, storage_writer=_writer(path, durable=durable), no_dist=True)

    def load(self, path: Path) -> Any:
        return self._load(path, self._outline)

    def load_one(self, path: Path, name: str) -> Any:
        section, key = split_name(name)
        return self._load(path, {section: {key: self._outline[section][key]}})[section][key]

    def async_save(self, state: Any, path: Path) -> Callable[[], Any]:
        future: Any = dcp.async_save(state, storage_writer=_writer(path, durable=True), no_dist=True)
        wait: Callable[[], Any] = future.result
        return wait

    def _load(self, path: Path, outline: Any) -> Any:
        state = map_tensors(outline, lambda tensor: torch.empty_like(tensor, device="cpu"))
        dcp.load(state, storage_reader=dcp.FileSystemReader(path), no_dist=True)
        return state


def _writer(path: Path, *, durable: bool) -> Any:
    return dcp.FileSystemWriter(path, sync_files=durable, thread_count=os.cpu_count() or 1)


PEER = TorchDistributed()
