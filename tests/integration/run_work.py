"""What ranks do with a `DistributedRun`; runs inside ranks, and where there is no group, in a process alone."""

from __future__ import annotations

import warnings
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Shard, distribute_tensor

import ckptfmt
from ckptfmt.adapters.torch_distributed import DistributedRun


def make(seed: int = 0) -> dict[str, Any]:
    """Return module, optimizer and scheduler of a small training; sharded where there are ranks."""
    torch.manual_seed(seed)
    model: Any = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 3))
    if dist.is_initialized():
        fully_shard(model, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)
    return {"model": model, "optimizer": optimizer, "scheduler": scheduler}


def train(rank: int, path: str, steps: int) -> tuple[list[float], list[float]]:
    """Train so many steps, going on from what is there; return the losses of all steps and a sum of the parameters."""
    objects = {**make(), f"rng-{rank}": ckptfmt.Rng()}
    torch.manual_seed(1000 + rank)
    with DistributedRun(path, keep_last=2, timeout_seconds=60) as run:
        restored = run.restore(objects)
        first = 0 if restored is None else restored.step + 1
        if restored is not None:
            assert restored.state["note"]["epoch"] == restored.step
            assert restored.report.restored == ("model", "optimizer", "scheduler", f"rng-{rank}")
        for step in range(first, steps):
            loss = objects["model"](torch.randn(4, 5)).square().sum()
            loss.backward()
            objects["optimizer"].step()
            objects["optimizer"].zero_grad()
            objects["scheduler"].step()
            run.save(step, {**objects, "note": {"epoch": step}}, metrics={"loss": loss.item()})
        losses = [row["loss"] for row in run.history()]
    return losses, [parameter.detach().double().sum().item() for parameter in _whole(objects["model"])]


def _whole(model: torch.nn.Module) -> list[torch.Tensor]:
    return [parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter for parameter in model.parameters()]  # type: ignore[operator]


class _NoState:
    def state_dict(self) -> Any:
        raise RuntimeError("no state here")


def fail_and_go_on(rank: int, path: str) -> list[Any]:
    """Let saves and restores fail on one rank or on all, in between saving soundly; return what was raised, and the steps."""
    raised: list[Any] = []
    with DistributedRun(path, timeout_seconds=60) as run:
        run.save(1, {"epoch": 1})
        attempts: list[Any] = [
            lambda: run.save(2, {"epoch": 2, **({"broken": object()} if rank == 1 else {})}),
            lambda: run.save(1, {"epoch": 1}),
            lambda: run.save(2, {"broken": _NoState() if rank == 1 else 1}),
            lambda: run.restore(step=7),
        ]
        for attempt in attempts:
            try:
                attempt()
            except Exception as error:  # noqa: BLE001 - whatever it is, it is what the test asks for
                text = str(error).partition("\n")[0]
                raised.append(text if text.startswith("RuntimeError") else type(error).__name__)
        run.save(2, {"epoch": 2})
        return [*raised, run.all_steps()]


def restored_step(rank: int, path: str) -> tuple[int, list[int]]:
    """Restore the latest step; return it, and the steps that were passed over."""
    with DistributedRun(path, timeout_seconds=60) as run, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        restored = run.restore(make(1))
        assert restored is not None
        return restored.step, list(restored.report.damaged)


def save_twice(rank: int, path: str) -> tuple[int, int]:
    """Save a state twice with one small change in between; return how many bytes each step has for itself."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    large = distribute_tensor(torch.randn(200, 100), mesh, [Shard(0)])
    with DistributedRun(path, timeout_seconds=60) as run:
        infos = [run.save(step, {"frozen": {"large": large}, "epoch": step}) for step in (1, 2)]
    return infos[0].unique_bytes, infos[1].unique_bytes
