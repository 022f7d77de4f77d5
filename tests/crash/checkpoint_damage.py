"""One small checkpoint, and every small damage to its files: none may go unnoticed (P4)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ckptfmt.disk.memory import MemoryDisk
from ckptfmt.disk.memory_store import Tree
from ckptfmt.errors import FormatError
from tests.crash.checkpoint_check import Violation
from tests.crash.checkpoint_product import Product
from tests.crash.checkpoint_states import encoded
from tests.crash.checkpoint_workloads import NEW, OLD

PATH = "/step"


@dataclass(frozen=True)
class Damage:
    """A file with other bytes in it."""

    name: str
    text: str
    content: bytes


class DamageCheck:
    """A checkpoint of one product, to be damaged and loaded."""

    def __init__(self, product: Product) -> None:
        self.product = product
        self.tree, self.files = self._saved(OLD)
        self._other = self._saved(NEW)[1]

    def _saved(self, number: int) -> tuple[Tree, dict[str, bytes]]:
        disk = MemoryDisk()
        self.product.save(disk, PATH, encoded(number, tensor_count=2), step=number)
        prefix = f"{PATH}/"
        return disk.tree(), {path.removeprefix(prefix): content for path, content in disk.contents().items() if content is not None}

    def flips(self, *, every_bit: bool, only: str = "") -> Iterator[Damage]:
        """Yield every byte of the files whose names begin so with one bit flipped: each bit, or one that changes from byte to byte."""
        for name, content in self.files.items():
            if not name.startswith(only):
                continue
            for index in range(len(content)):
                for bit in range(8) if every_bit else [index % 8]:
                    flipped = bytearray(content)
                    flipped[index] ^= 1 << bit
                    yield Damage(name, f"bit {bit} of byte {index} flipped", bytes(flipped))

    def others(self) -> Iterator[Damage]:
        """Yield other lengths, zeros, and sound files of another checkpoint or of the same in a wrong place."""
        for name, content in self.files.items():
            for length in (0, 1, len(content) // 2, len(content) - 1):
                yield Damage(name, f"cut to {length} bytes", content[:length])
            yield Damage(name, "one byte longer", content + b"\0")
            yield Damage(name, "a copy appended", content + content)
            yield Damage(name, "zeros", bytes(len(content)))
        for name, other in zip(sorted(self.files), sorted(self._other), strict=True):
            if name != "manifest.json":
                yield Damage(name, f"{other} of another checkpoint", self._other[other])
        for name in self.files:
            for other in self.files:
                if name != other:
                    yield Damage(name, f"what is in {other}", self.files[other])

    def check(self, damage: Damage, *, is_verified: bool = False) -> None:
        """Raise unless loading is refused, and the verifier reports it."""
        disk = self._damaged(damage)
        try:
            self.product.load(disk, PATH)
        except FormatError:
            pass
        except Exception as error:
            raise Violation(f"{damage.name}: {damage.text}: {type(error).__name__}: {error}") from error
        else:
            raise Violation(f"{damage.name}: {damage.text}: loads")
        if is_verified and self.product.verify_checkpoint(disk, PATH).ok:
            raise Violation(f"{damage.name}: {damage.text}: verifies")

    def _damaged(self, damage: Damage) -> MemoryDisk:
        entries = self.tree.directories[max(self.tree.directories)]
        return MemoryDisk(Tree(self.tree.directories, {**self.tree.files, entries[damage.name]: damage.content}))
