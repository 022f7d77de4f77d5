"""ckptfmt itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ckptfmt
from benchmarks.peers.interface import Peer


class Ckptfmt(Peer):
    """Durable saves and verified loads are what it does by default."""

    label = "ckptfmt"
    module = "ckptfmt"
    is_durable_by_itself = True

    def save(self, state: Any, path: Path, *, durable: bool) -> Any:
        return ckptfmt.save(path, state, durable=durable)

    def load(self, path: Path) -> Any:
        return ckptfmt.load(path)

    def loads(self) -> dict[str, Callable[[Path], Any]]:
        return {"": self.load, "verify=False": lambda path: ckptfmt.load(path, verify=False)}

    def load_one(self, path: Path, name: str) -> Any:
        with ckptfmt.open_checkpoint(path) as checkpoint:
            return checkpoint.get_tensor(name)

    def async_save(self, state: Any, path: Path) -> Callable[[], Any]:
        return ckptfmt.async_save(path, state).result

    def save_on_base(self, state: Any, path: Path, base: Path) -> int:
        return ckptfmt.save(path, state, base=base).unique_bytes


PEER = Ckptfmt()
