"""The functions under proof, as they are or with one place of their source changed.

A changed product is a private copy of the checkpoint modules: nothing of it reaches the modules that other tests import, so a
mutant costs an import and no process. What lies below (format, state, disks) is shared unless it is what is changed.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_COPIED = "ckptfmt.checkpoint."


@dataclass(frozen=True)
class Edit:
    """One piece of a module's source, which occurs exactly once, and what stands there instead."""

    module: str
    old: str
    new: str

    @property
    def path(self) -> Path:
        """Where the module's source is."""
        return ROOT / (self.module.replace(".", "/") + ".py")

    def position(self, source: str) -> int:
        """Return where the piece begins."""
        if source.count(self.old) != 1:
            raise LookupError(f"{self.path}: found {source.count(self.old)} times, expected once:\n{self.old}")
        return source.index(self.old)

    def applied(self, source: str) -> str:
        """Return the changed source."""
        begin = self.position(source)
        return source[:begin] + self.new + source[begin + len(self.old) :]


@dataclass(frozen=True)
class Product:
    """What saves, loads, verifies, compresses and deletes."""

    write_checkpoint: Callable[..., Any]
    write_part: Callable[..., Any]
    joint_staging: Callable[..., Any]
    commit_parts: Callable[..., Any]
    save_options: Callable[..., Any]
    open_checkpoint: Callable[..., Any]
    verify_checkpoint: Callable[..., Any]
    delete_checkpoint: Callable[..., None]
    read_manifest: Callable[..., Any]
    compress_checkpoint: Callable[..., Any]
    decompress_checkpoint: Callable[..., Any]

    def save(self, disk: Any, path: str, state: Any, **options: Any) -> Any:
        """Save an encoded state in tiny shards, unless the options say otherwise."""
        return self.write_checkpoint(disk, path, state, self.options(**options))

    def options(self, **options: Any) -> Any:
        """Return the options of a save."""
        chosen = {
            "step": 1,
            "metrics": {},
            "fingerprint": None,
            "overwrite": False,
            "base": None,
            "max_shard_size_bytes": 100,
            "durable": True,
            **options,
        }
        return self.save_options(**chosen)

    def load(self, disk: Any, path: str) -> Any:
        """Load a state."""
        with self.open_checkpoint(disk, path) as checkpoint:
            return checkpoint.load()


def load_product(*edits: Edit) -> Product:
    """Return the product, with these edits."""
    if not edits:
        return _gather()
    with private_copy(edits, _COPIED):
        return _gather()


def _gather() -> Product:
    names = ("writer", "part_writer", "joint_commit", "reader", "verify", "delete", "directory", "encoding")
    writer, part_writer, joint_commit, reader, verify, delete, directory, encoding = (
        importlib.import_module(f"ckptfmt.checkpoint.{name}") for name in names
    )
    return Product(
        writer.write_checkpoint,
        part_writer.write_part,
        joint_commit.JointStaging,
        joint_commit.commit_parts,
        writer.SaveOptions,
        reader.OpenCheckpoint,
        verify.verify_checkpoint,
        delete.delete_checkpoint,
        directory.read_manifest,
        encoding.compress_checkpoint,
        encoding.decompress_checkpoint,
    )


class _EditedLoader(SourceFileLoader):
    def __init__(self, edits: Sequence[Edit]) -> None:
        super().__init__(edits[0].module, str(edits[0].path))
        self._edits = edits

    def get_code(self, fullname: str) -> Any:
        source = self._edits[0].path.read_text("utf-8")
        for edit in self._edits:
            source = edit.applied(source)
        return compile(source, self.path, "exec")


class _EditedFinder(PathFinder):
    def __init__(self, edits: Sequence[Edit]) -> None:
        self._edits = edits

    def find_spec(self, fullname: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:  # type: ignore[override]
        edits = [edit for edit in self._edits if edit.module == fullname]
        return spec_from_loader(fullname, _EditedLoader(edits)) if edits else None


@contextmanager
def private_copy(edits: Sequence[Edit], copied: str) -> Iterator[None]:
    """Let what is imported in the block be a copy with these edits: the modules whose names begin with `copied`, and the edited ones."""
    _gather()
    names = [name for name in sys.modules if name.startswith(copied) or name in {edit.module for edit in edits}]
    originals = {name: sys.modules.pop(name) for name in names}
    finder = _EditedFinder(edits)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if name.startswith(copied)]:
            del sys.modules[name]
        sys.modules.update(originals)
        for name, module in originals.items():
            package, _, child = name.rpartition(".")
            setattr(sys.modules[package], child, module)
