"""A save by ranks of which one is killed at a place of its own choosing; runs inside ranks."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from ckptfmt.adapters.torch_distributed import DistributedRun, StorageWriter
from ckptfmt.disk.local import LocalDirectory, LocalDisk
from ckptfmt.disk.local_files import LocalWritableFile

OPERATIONS: dict[type, tuple[str, ...]] = {
    LocalDisk: ("open_directory", "make_directory"),
    LocalDirectory: ("create", "open", "rename", "link_from", "unlink", "sync_file", "sync", "names", "try_lock", "free_bytes"),
    LocalWritableFile: ("write", "sync", "close"),
}
PHASES = ("set_up_storage_writer", "prepare_local_plan", "write_data")
FIRST_PHASES = (*PHASES, "prepare_global_plan", "finish")
TIMEOUT_SECONDS = 20.0


def make_state(number: int) -> dict[str, Any]:
    """Return a state with sharded, replicated and plain values, made from a number."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    return {
        "model": {f"w{index}": distribute_tensor(torch.full((9, 4), float(number * 10 + index)), mesh, [Shard(0)]) for index in range(3)},
        "optimizer": {"momentum": distribute_tensor(torch.full((5,), float(number)), mesh, [Shard(0)]), "step": torch.tensor(number)},
        "epoch": number,
    }


def save_steps(rank: int, path: str, steps: list[int], victim: int, place: Any) -> tuple[float, str] | None:
    """Save steps, the last of them with a rank that is killed; return after how long and with what that ended."""
    with DistributedRun(path, timeout_seconds=TIMEOUT_SECONDS) as run:
        for step in steps[:-1]:
            run.save(step, make_state(step))
        state = make_state(steps[-1])
        if rank == victim:
            kill_at(place)
        begun = time.monotonic()
        try:
            run.save(steps[-1], state)
        except Exception as error:  # noqa: BLE001 - whatever a survivor sees is what the test asks for
            outcome = time.monotonic() - begun, f"{type(error).__name__}: {error}"
            _report(path, rank, f"{outcome[0]:.3f} {outcome[1]}")
            os._exit(17)
    return None


def _report(path: str, rank: int, text: str) -> None:
    """Leave what was seen, and stay until all survivors have: nobody may be released by the end of another."""
    report = Path(f"{path}.{rank}")
    report.write_text(text)
    deadline = time.monotonic() + 2 * TIMEOUT_SECONDS
    while len(list(report.parent.glob(f"{report.stem}.*"))) < dist.get_world_size() - 1 and time.monotonic() < deadline:
        time.sleep(0.02)


def count_operations(rank: int, path: str) -> int:
    """Return how many operations on the disk a rank does in a save."""
    with DistributedRun(path, timeout_seconds=TIMEOUT_SECONDS) as run:
        run.save(1, make_state(1))
        state = make_state(2)
        calls: list[str] = []
        _on_each_operation(lambda: calls.append(""))
        run.save(2, state)
        return len(calls)


def kill_at(place: Any) -> None:
    """Have this process killed: before or after a method of the writer, or at the n-th operation on the disk."""
    if isinstance(place, int):
        calls: list[int] = []

        def note() -> None:
            calls.append(0)
            if len(calls) == place:
                os.kill(os.getpid(), signal.SIGKILL)

        _on_each_operation(note)
        return
    when, name = place
    original = getattr(StorageWriter, name)

    def dying(*args: Any, **kwargs: Any) -> Any:
        if when == "after":
            original(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(StorageWriter, name, dying)
    # DCP looks at the names of its parameters.
    dying.__signature__ = __import__("inspect").signature(original)  # type: ignore[attr-defined]


def _on_each_operation(note: Callable[[], None]) -> None:
    def counted(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            note()
            return original(*args, **kwargs)

        return call

    for cls, names in OPERATIONS.items():
        for name in names:
            setattr(cls, name, counted(getattr(cls, name)))
