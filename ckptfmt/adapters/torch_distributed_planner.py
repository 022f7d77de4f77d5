"""A planner for torch.distributed.checkpoint (DCP) that keeps the types of a state's containers.

DCP's own planner flattens a state with text in the place of every mapping key, so that `{0: ...}` comes back as `{"0": ...}` where
no template tells better. This one plans exactly as that does and remembers the structure beside it. Of structures that agree, only
one process tells, so that what is told does not grow with the number of processes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ckptfmt.adapters.torch_distributed_tree import Path, exact_structure
from ckptfmt.format.digest import digest_of
from ckptfmt.format.packed import pack


class ExactSavePlanner:
    """DCP's default planner, for `dcp.save(..., planner=ExactSavePlanner())`: int keys stay ints, ordered mappings stay ordered.

    The checkpoint is the same otherwise, and is loaded with any planner.
    """

    gives_objects = True

    def __init__(self, *, dedup_save_to_lowest_rank: bool = False) -> None:
        from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
        from torch.distributed.checkpoint.planner import SavePlanner

        SavePlanner.register(ExactSavePlanner)
        self._planner = DefaultSavePlanner(dedup_save_to_lowest_rank=dedup_save_to_lowest_rank)
        self._structure: Any = None
        self._is_teller = False

    @property
    def paths(self) -> dict[str, Path]:
        """DCP's path of each leaf of this process."""
        return self._planner.mappings

    @property
    def told_structure(self) -> Any:
        """The packed structure, None where another process has the same and tells it."""
        return self._structure if self._is_teller else None

    def set_up_planner(self, state_dict: Any, storage_meta: Any = None, is_coordinator: bool = False) -> None:  # noqa: FBT001, FBT002
        """Flatten a state."""
        self._planner.set_up_planner(state_dict, storage_meta, is_coordinator)
        self._structure = exact_structure(state_dict, self.paths)

    def create_local_plan(self) -> Any:
        """Plan what this process has; the digest of its structure goes with it."""
        return replace(self._planner.create_local_plan(), planner_data=digest_of(pack(self._structure)))

    def create_global_plan(self, all_plans: list[Any]) -> tuple[list[Any], Any]:
        """Plan who writes what, and who tells a structure."""
        first = {plan.planner_data: process for process, plan in reversed(list(enumerate(all_plans)))}
        plans, metadata = self._planner.create_global_plan([replace(plan, planner_data={}) for plan in all_plans])
        told = [first[plan.planner_data] == process for process, plan in enumerate(all_plans)]
        plans = [replace(plan, planner_data=is_teller) for plan, is_teller in zip(plans, told, strict=True)]
        return plans, replace(metadata, planner_data=self.paths)

    def finish_plan(self, new_plan: Any) -> Any:
        """Take the plan that came back."""
        self._is_teller = new_plan.planner_data
        return self._planner.finish_plan(new_plan)

    def lookup_object(self, index: Any) -> Any:
        """Return what the state holds under an index."""
        return self._planner.lookup_object(index)

    def resolve_data(self, write_item: Any) -> Any:
        """Return the data of an item, as DCP's planner does."""
        return self._planner.resolve_data(write_item)
