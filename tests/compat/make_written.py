"""Keep what this release writes, for all later ones to read: `python -m tests.compat.make_written`.

Run once for each release of the library, and never again for the same one: what it wrote is then history.
"""

import json
import sys
from collections import OrderedDict, deque
from datetime import UTC, datetime
from pathlib import Path

WRITTEN = Path(__file__).resolve().parent / "written"


def plain_state():
    """Values of Python, as applications keep them."""
    return {
        "epoch": 3,
        "best": {"loss": 0.25, "at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)},
        "history": [(0, 1.5), (1, float("nan"))],
        "names": {"a", "b"},
        "window": deque([1, 2], maxlen=5),
        7: {"$odd": b"\x00", "big": 2**100, None: 1j},
    }


def training_state():
    """A module, its optimizer after one step, generators and arrays."""
    import random

    import numpy
    import torch

    generator = torch.Generator().manual_seed(0)
    weight = torch.nn.Parameter(torch.rand(3, 2, generator=generator))
    bias = torch.nn.Parameter(torch.rand(3, generator=generator).to(torch.bfloat16))
    optimizer = torch.optim.AdamW([weight], lr=0.1)
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    image = torch.arange(24, dtype=torch.float16).reshape(1, 2, 3, 4).to(memory_format=torch.channels_last)
    return {
        "model": OrderedDict(
            {"weight": weight, "tied": weight, "bias": bias, "steps": torch.tensor(5), "image": image, "row": weight.detach()[1]}
        ),
        "optimizer": optimizer.state_dict(),
        "numpy": {"grid": numpy.arange(6.0).reshape(2, 3), "times": numpy.array(["2026-01-02"], "M8[D]"), "scalar": numpy.float32(1.5)},
        "rng": {"python": random.Random(0), "numpy": numpy.random.default_rng(0)},
    }


def write_cases(folder):
    """Write each case, and what it holds, into a folder."""
    import ckptfmt
    from tests.conformance.describing import described

    training = training_state()
    ckptfmt.save(str(folder / "plain" / "checkpoint"), plain_state(), step=3, metrics={"loss": 0.25})
    ckptfmt.save(str(folder / "training" / "checkpoint"), training, step=1, fingerprint={"seed": 0})
    changed = {**training, "epoch": 2}
    ckptfmt.save(str(folder / "linked" / "checkpoint"), changed, step=2, base=str(folder / "training" / "checkpoint"), max_shard_size=64)
    for name, state in (("plain", plain_state()), ("training", training), ("linked", changed)):
        text = json.dumps(described(state), indent=1, ensure_ascii=False, allow_nan=False)
        (folder / name / "expected.json").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    from ckptfmt._version import __version__

    target = WRITTEN / __version__
    if target.exists():
        sys.exit(f"{target} exists: what a release wrote is never written again")
    write_cases(target)
