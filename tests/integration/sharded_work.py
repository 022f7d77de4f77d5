"""Single pieces of work of ranks, for tests that need more than saving and loading; runs inside ranks."""

from __future__ import annotations

import sys
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.tensor import Shard, distribute_tensor

from ckptfmt.adapters.torch_distributed import ExactSavePlanner, StorageReader, StorageWriter
from ckptfmt.errors import CorruptError
from tests.integration.sharded_states import differences, full, make_mesh, make_state

_AUDITED: list[str] = []
_WATCHED = ("pickle.find_class", "exec", "compile", "import", "os.system", "subprocess.Popen", "socket.connect", "marshal.loads")


def save_with_a_value_that_cannot_be_stored(rank: int, path: str) -> None:
    """Save a state of which the last rank holds a value of an unknown type."""
    state = make_state(2)
    if rank == 1:
        state["broken"] = {"here": object()}
    writer: Any = StorageWriter(path, overwrite=True)
    dcp.save(state, storage_writer=writer)


def save_with_dcp(rank: int, path: str, number: int) -> None:
    """Save a state with DCP's own writer."""
    dcp.save(make_state(number), storage_writer=dcp.FileSystemWriter(path))


def load_with_dcp(rank: int, path: str, number: int) -> list[str]:
    """Load with DCP's own reader; return in what that differs from the state of this number."""
    state = {**make_state(number + 1), "by_number": {"1": "", "2": torch.zeros(2)}}
    dcp.load(state, storage_reader=dcp.FileSystemReader(path))
    expected = full(make_state(number))
    expected["by_number"] = {str(key): value for key, value in expected["by_number"].items()}
    return differences(full(state), expected)


def save_stages(rank: int, path: str) -> None:
    """Save a state of which each rank has other keys, as the stages of a pipeline have."""
    state = {
        "layers": {rank: torch.full((3,), float(rank))},
        "optimizer": {rank: {f"of {rank}": torch.ones(2), "empty": {}} if rank > 1 else {f"of {rank}": torch.ones(2)}},
        "common": {"epoch": 4},
    }
    writer: Any = StorageWriter(path)
    planner: Any = ExactSavePlanner()
    dcp.save(state, storage_writer=writer, planner=planner)


def load_under_audit(rank: int, path: str, number: int) -> list[str]:
    """Load a checkpoint; return the events that mean that code of it ran, or could have."""
    state, expected = make_state(number + 1), full(make_state(number))
    reader: Any = StorageReader(path)
    dcp.load(make_state(number + 2), storage_reader=reader)
    metadata = reader.read_metadata()
    planner: Any = dcp.DefaultLoadPlanner()
    planner.set_up_planner(state, metadata, is_coordinator=True)
    plan = planner.create_local_plan()
    _AUDITED[:] = ["on"]
    if not getattr(sys, "_is_audited", False):
        sys.addaudithook(_note)
        sys._is_audited = True  # type: ignore[attr-defined]
    # Without the collectives of DCP, whose messages between the processes are pickled.
    metadata = reader.read_metadata()
    reader.read_data(reader.prepare_local_plan(plan), planner)
    found, _AUDITED[:] = _AUDITED[1:], []
    return found + differences(full(state), expected)


def _note(event: str, args: tuple[Any, ...]) -> None:
    if _AUDITED and event in _WATCHED and not (event == "import" and args[0] in sys.modules):
        _AUDITED.append(f"{event} {args[:1]}")


def load_damaged(rank: int, path: str) -> str:
    """Load a damaged checkpoint; return the rule that is broken, and whether anything was changed."""
    state = make_state(7)
    before = full(make_state(7))
    try:
        dcp.load(state, storage_reader=StorageReader(path))  # type: ignore[arg-type]
    except CheckpointException as error:
        (rule,) = {cause.rule for cause, _ in error.failures.values() if isinstance(cause, CorruptError)}
        return f"{rule} {'changed' if differences(full(state), before) else 'unchanged'}"
    return "loaded"


def told_bytes(rank: int, path: str, count: int) -> int:
    """Return how many bytes a rank tells the coordinator of a state of so many sharded tensors, and of as many that all ranks have."""
    mesh = make_mesh()
    state: dict[str, Any] = {f"layers.{number}.weight": distribute_tensor(torch.ones(6, 2), mesh, [Shard(0)]) for number in range(count)}
    state |= {f"layers.{number}.bias": torch.ones(3) for number in range(count)}
    told: list[int] = []

    class Counting(StorageWriter):
        def write_data(self, plan: Any, planner: Any) -> Any:
            future = super().write_data(plan, planner)
            told.append(sum(len(result.storage_data) for result in future.value()))
            return future

    writer: Any = Counting(path)
    dcp.save(state, storage_writer=writer)
    return told[0]
