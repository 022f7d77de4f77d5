"""Two small, complete checkpoints that tests damage byte by byte, and what loading them must give.

One is saved by the library: several shards, element types that safetensors has and lacks, ties, views, values of Python.
The other is made by hand: an encoded slot, a tensor of several chunks, and a slot to which nothing refers.
"""

import os
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import ckptfmt
from ckptfmt.format.zstd_frame import compress
from tests.conformance.describing import described
from tests.conformance.vector_kit import Ref, Shard, Slot, Tensor, build


@dataclass(frozen=True)
class Whole:
    """An undamaged checkpoint: its files, its state in comparable form, and each tensor's shard and range there."""

    path: Path
    files: dict
    state: object
    places: dict

    def write(self, name, data):
        """Replace the content of one file; data files are read-only."""
        file = self.path / name
        os.chmod(file, 0o644)
        file.write_bytes(data)

    def mend(self, name):
        self.write(name, self.files[name])


def saved(path, *, first=1.0):
    """A checkpoint of the library's own making."""
    weight = torch.arange(12, dtype=torch.float32).reshape(3, 4) + first
    state = {
        "model": {
            "weight": weight,
            "tied": weight,
            "row": weight[1],
            "bias": torch.full((5,), first, dtype=torch.bfloat16),
            "mask": torch.tensor([True, False, True]),
            "wide": torch.tensor([1j * first], dtype=torch.complex128),
        },
        "optimizer": {"state": {0: (torch.tensor(7), np.arange(6, dtype=">f4").reshape(2, 3) * first)}, "lr": 0.1},
        "epoch": 3,
        "seen": {1, 2, 3},
    }
    ckptfmt.save(path, state, step=7, metrics={"loss": 0.25}, fingerprint={"seed": 1}, max_shard_size=64)
    return whole_of(path)


def by_hand(path):
    """A checkpoint with an encoded slot, a tensor of two chunks and a stale slot."""
    raw = struct.pack("<64f", *[0.5] * 64)
    encoded = Slot("encoded", "U8", (len(stored := compress(raw)),), stored, raw)
    halves = [Slot(f"halves@{part}", "I32", (2,), struct.pack("<2i", part, part + 1)) for part in (10, 20)]
    shard = Shard("model", [encoded, *halves, Slot("stale", "U8", (9,), b"unrelated")])
    rows = [
        Tensor("model.encoded", "float32", (64,), raw, [[0, 0]]),
        Tensor("model.halves", "int32", (4,), struct.pack("<4i", 10, 11, 20, 21), [[0, 1, [0], [2]], [0, 2, [2], [2]]]),
    ]
    tree = {"model": {"encoded": Ref(0), "halves": Ref(1)}}
    path.mkdir()
    for name, data in build(tree, rows, [shard], requires=["codec:zstd"]).items():
        (path / name).write_bytes(data)
    return whole_of(path)


def whole_of(path):
    """Read an undamaged checkpoint; `places` holds (shard, begin, end) of each slot that a tensor reads."""
    places = {}
    with ckptfmt.open_checkpoint(path) as checkpoint:
        for row in checkpoint.metadata.tensors:
            for chunk in row.chunks:
                offsets = checkpoint.metadata.shards[chunk.shard].offsets()
                name = checkpoint.manifest.shards[chunk.shard].name
                places.setdefault(row.name, []).append((name, offsets[chunk.slot], offsets[chunk.slot + 1]))
    files = {file.name: file.read_bytes() for file in sorted(path.iterdir())}
    return Whole(path, files, described(ckptfmt.load(path)), places)
