"""What the walk down a state puts down of the tensors that it meets, as columns: a state may hold a million of them. Spec 9.1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

from ckptfmt.state.places import Place
from ckptfmt.state.tensors import LiveTensor
from ckptfmt.state.ties import Extent


@dataclass(slots=True, eq=False)
class TensorLeaf(Extent):
    """One reference to a tensor, and where that lies.

    Its node is `{"$tensor": reference}`; `reference` is [-1, kind, attributes] until the rows are planned.
    """

    reference: list[Any]
    source: LiveTensor
    place: Place
    owner: Any


class Leaves:
    """All references to tensors, in the order of the tree.

    A value is a `TensorLeaf`, whose node is in the tree already, or an ordinary tensor of which nothing is known yet: its node goes to
    `targets[...][slots[...]]`, and it stands one of `steps` below one of `aboves`.
    """

    __slots__ = ("aboves", "slots", "steps", "targets", "values")

    def __init__(self) -> None:
        self.values: list[Any] = []
        self.targets: list[Any] = []
        self.slots: list[Any] = []
        self.aboves: list[Place | None] = []
        self.steps: list[Any] = []

    def append(self, leaf: TensorLeaf) -> None:
        """Add a reference of which all is known."""
        self.values.append(leaf)
        self.targets.append(None)
        self.slots.append(None)
        self.aboves.append(None)
        self.steps.append(None)

    def add(self, tensor: Any, target: Any, slot: Any, above: Place, step: Any) -> None:
        """Add an ordinary tensor."""
        self.values.append(tensor)
        self.targets.append(target)
        self.slots.append(slot)
        self.aboves.append(above)
        self.steps.append(step)

    def extend(self, tensors: Sequence[Any], target: Any, slots: Sequence[Any], above: Place, steps: Sequence[Any]) -> None:
        """Add ordinary tensors that stand side by side."""
        self.values += tensors
        self.targets += repeat(target, len(tensors))
        self.slots += slots
        self.aboves += repeat(above, len(tensors))
        self.steps += steps
