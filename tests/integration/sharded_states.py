"""States of sharded training of every kind, made from a number, and what ranks do with them; runs inside ranks.

Two numbers give states without a common value. `full` and `is_same` compare them whatever their sharding.
"""

from __future__ import annotations

from collections import OrderedDict
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

import ckptfmt
from ckptfmt.adapters.torch_distributed import ExactSavePlanner, StorageReader, StorageWriter


class Network(torch.nn.Module):
    """A small network whose sizes no number of ranks divides."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(7, 13)
        self.norm = torch.nn.BatchNorm1d(13)
        self.last = torch.nn.Linear(13, 3, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.last(torch.relu(self.norm(self.first(x))))
        return result


def make_mesh() -> DeviceMesh:
    """Return all ranks in a row."""
    return init_device_mesh("cpu", (dist.get_world_size(),))


def trained(number: int, kind: str = "fsdp") -> tuple[Any, Any]:
    """Return a module and its AdamW after some steps; the kind is how they are spread over the ranks."""
    torch.manual_seed(number)
    network: Any = Network()
    if kind == "fsdp":
        fully_shard(network, mesh=make_mesh())
    elif kind == "hsdp":
        fully_shard(network, mesh=init_device_mesh("cpu", (2, dist.get_world_size() // 2), mesh_dim_names=("replicate", "shard")))
    elif kind == "tensor parallel":
        parallelize_module(network, make_mesh(), {"first": ColwiseParallel(use_local_output=False), "last": RowwiseParallel()})
        network.norm = torch.nn.Identity()
    elif kind == "ddp":
        network = torch.nn.parallel.DistributedDataParallel(network)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1 / number)
    for step in range(2):
        torch.manual_seed(number * 100 + step)
        network(torch.randn(6, 7)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return network, optimizer


def make_state(number: int, kind: str = "fsdp") -> dict[str, Any]:
    """Return a state with everything that a sharded state may hold."""
    mesh, offset = make_mesh(), float(number)
    model, optimizer = get_state_dict(*trained(number, kind))
    return {
        "model": model,
        "optimizer": optimizer,
        "columns": distribute_tensor(torch.arange(35.0).reshape(7, 5) + offset, mesh, [Shard(1)]),
        "short": distribute_tensor(torch.arange(3) + number, mesh, [Shard(0)]),
        "everywhere": distribute_tensor(torch.ones(2, 3) * offset, mesh, [Replicate()]),
        "plain": {"half": torch.tensor(2.5 + number, dtype=torch.bfloat16), "eighth": (torch.ones(5) * number).to(torch.float8_e4m3fn)},
        "empty": torch.empty(0, 4),
        "epoch": number,
        "name": f"run {number}",
        "by_number": {1: "a" * number, 2: torch.full((2,), offset)},
        "pair": (number, torch.full((3,), offset)),
        "list": [number, 2],
        "mixed": [torch.full((1,), offset), {"q": number}],
        "ordered": OrderedDict(b=number, a=torch.full((2, 2), offset)),
    }


def full(value: Any) -> Any:
    """Return a state with whole tensors in the place of sharded ones; every rank must call it."""
    if isinstance(value, DTensor):
        return value.full_tensor()
    if isinstance(value, dict):
        return type(value)((key, full(member)) for key, member in value.items())
    return type(value)(map(full, value)) if isinstance(value, (list, tuple)) else value


def differences(found: Any, expected: Any, path: str = "") -> list[str]:
    """Return the paths at which two full states are not equal to the bit."""
    if isinstance(expected, torch.Tensor):
        is_same = isinstance(found, torch.Tensor) and found.dtype == expected.dtype and found.shape == expected.shape
        return [] if is_same and torch.equal(found.float(), expected.float()) else [path]
    if isinstance(expected, dict):
        if not isinstance(found, dict) or set(found) != set(expected):
            return [f"{path}: keys"]
        return [line for key, value in expected.items() for line in differences(found[key], value, f"{path}.{key}")]
    if isinstance(expected, (list, tuple)):
        if type(found) is not type(expected) or len(found) != len(expected):
            return [f"{path}: members"]
        return [line for index, value in enumerate(expected) for line in differences(found[index], value, f"{path}.{index}")]
    return [] if type(found) is type(expected) and found == expected else [path]


def save(rank: int, path: str, number: int, how: str = "exact", kind: str = "fsdp", options: dict[str, Any] | None = None) -> list[str]:
    """Save a state of this number; return in what a plain load of it differs, on the first rank."""
    state = make_state(number, kind)
    writer: Any = StorageWriter(path, **(options or {}))
    planner: Any = ExactSavePlanner() if how == "exact" else None
    if how in ("thread", "process"):
        group = dist.new_group(backend="gloo", timeout=timedelta(seconds=60)) if how == "thread" else None
        mode = getattr(dcp.state_dict_saver.AsyncCheckpointerType, how.upper())
        future = dcp.async_save(state, storage_writer=writer, planner=planner, process_group=group, async_checkpointer_type=mode)
        expected = full({key: value for key, value in state.items() if key not in ("columns", "short")})
        # What training does while a save is under way must not reach it.
        with torch.no_grad():
            state["columns"].to_local().zero_()
            state["plain"]["half"].zero_()
        future.result()
        expected["plain"]["half"] = torch.tensor(2.5 + number, dtype=torch.bfloat16)
        found = ckptfmt.load(path) if rank == 0 else {}
        wrong = [] if rank or not differences(found.pop("columns"), torch.arange(35.0).reshape(7, 5) + number) else ["columns"]
        found.pop("short", None)
    else:
        dcp.save(state, storage_writer=writer, planner=planner)
        expected, wrong = full(state), []
        found = ckptfmt.load(path) if rank == 0 else {}
    if how != "exact":
        # DCP's own planner makes text of every mapping key.
        expected["by_number"] = {str(key): value for key, value in expected["by_number"].items()}
    return wrong if rank else wrong + differences(found, expected)


def load(rank: int, path: str, number: int, kind: str = "fsdp") -> list[str]:
    """Load into a state of another number; return in what it differs from a state of this number."""
    state = make_state(number + 1, kind)
    dcp.load(state, storage_reader=StorageReader(path))  # type: ignore[arg-type]
    found, expected = full(state), full(make_state(number, kind))
    return differences(found, expected)


def load_what_is_there(rank: int, path: str, has_text_keys: bool) -> list[str]:
    """Load into a sharded state of this number of ranks; return in what it differs from a plain load of the same checkpoint."""
    plain = ckptfmt.load(path)
    if has_text_keys:
        plain["by_number"] = {int(key): value for key, value in plain["by_number"].items()}
    state = make_state(99)
    dcp.load(state, storage_reader=StorageReader(path))  # type: ignore[arg-type]
    return differences(full(state), plain)
