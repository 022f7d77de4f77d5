"""What every measured library can be asked to do. One subclass in each file of this folder, as `PEER`.

Methods do what the library's documentation tells its users to do, and nothing else: conversions that belong to the benchmark
are in `prepare`, which is not timed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

NAMES = ("ckptfmt", "torch_save", "safetensors", "torch_distributed", "pickle5", "orbax", "tensorizer", "h5py", "zarr")
ALL_STATES = ("2GB", "50k", "one", "45MB")


class Peer(ABC):
    """One library. `module` must be importable; `states` are those it is measured with, None for any."""

    label: str
    module: str
    states: tuple[str, ...] = ALL_STATES
    is_durable_by_itself = False
    """A save with durable=True syncs what it writes; otherwise the benchmark does it, in the timed part."""

    def prepare(self, state: Any) -> Any:
        """Return a state in the form that this library takes; not timed."""
        return state

    @abstractmethod
    def save(self, state: Any, path: Path, *, durable: bool) -> Any:
        """Save under a path where nothing is yet."""

    @abstractmethod
    def load(self, path: Path) -> Any:
        """Load everything."""

    def loads(self) -> dict[str, Callable[[Path], Any]]:
        """Return the ways of loading, by what is added to the label."""
        return {"": self.load}

    def load_one(self, path: Path, name: str) -> Any:
        """Return one tensor, by its dotted path."""
        tensor = self.load(path)
        for key in split_name(name):
            tensor = tensor[key]
        return tensor

    def async_save(self, state: Any, path: Path) -> Callable[[], Any]:
        """Start saving in the background and return a function that waits for it; not overridden where that is not offered."""
        raise NotImplementedError

    def save_on_base(self, state: Any, path: Path, base: Path) -> int:
        """Save what has changed since `base` and return the bytes that were written; not overridden where that is not offered."""
        raise NotImplementedError

    def offers(self, name: str) -> bool:
        """Tell whether one of the two methods above is overridden."""
        return getattr(type(self), name) is not getattr(Peer, name)


def split_name(name: str) -> tuple[str, str]:
    """Return section and rest of a dotted path, which in all states of the benchmark is one key."""
    section, _, rest = name.partition(".")
    return section, rest


def find(name: str) -> Peer:
    """Return the peer of this name."""
    peer: Peer = import_module(f"benchmarks.peers.{name}").PEER
    return peer
