"""What stands out among the checkpoints of a run: the newest sound one, and the extremes of metrics whose names say which end is good.

A run does not store what it was asked to keep, so nothing here claims that a checkpoint is kept for it: these are facts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ckpt_inspect.sources.run_directory import ListedCheckpoint

_LOW = frozenset("loss nll bce perplexity ppl error errors err mse rmse mae mape wer cer fid regret".split())
_HIGH = frozenset("accuracy acc f1 auc auroc auprc precision recall bleu rouge iou miou dice map r2 psnr ssim".split())
_WORD = re.compile(r"[a-z0-9]+")


@dataclass(frozen=True, slots=True)
class Marks:
    """`newest` is a step, None where no checkpoint is sound; `extremes` are from metric to ("lowest" or "highest", step)."""

    newest: int | None
    extremes: Mapping[str, tuple[str, int]]

    def words(self, step: int) -> list[str]:
        """Return what is to be said of one checkpoint."""
        words = ["newest"] if step == self.newest else []
        return words + [f"{word} {name}" for name, (word, marked) in self.extremes.items() if marked == step]

    def is_extreme(self, name: str, step: int) -> bool:
        """Tell whether the value of a metric stands out at a step."""
        return name in self.extremes and self.extremes[name][1] == step


def marks_of(checkpoints: Sequence[ListedCheckpoint]) -> Marks:
    """Return what stands out; damaged checkpoints never do, nor does NaN, and of equal values the newer one counts."""
    sound = [listed for listed in checkpoints if listed.problem is None]
    values: dict[str, list[tuple[int | float, int]]] = {}
    for listed in sound:
        for name, value in (listed.manifest.metrics if listed.manifest else {}).items():
            if not math.isnan(value):
                values.setdefault(name, []).append((value, listed.step))
    extremes = {}
    for name, measured in values.items():
        word = word_for(name)
        if word and len({value for value, _ in measured}) > 1:
            sign = 1 if word == "highest" else -1
            extremes[name] = (word, max((sign * value, step) for value, step in measured)[1])
    return Marks(sound[-1].step if sound else None, extremes)


def word_for(name: str) -> str:
    """Return "lowest" or "highest" where the name of a metric says which end is good, else nothing."""
    words = set(_WORD.findall(name.lower()))
    return "lowest" if words & _LOW else "highest" if words & _HIGH else ""
