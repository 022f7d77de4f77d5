"""Sharded training: our StorageWriter and StorageReader beside those of torch.distributed.checkpoint, on the same state and the same ranks.

    python -m benchmarks.distributed                    4 ranks: an FSDP2 model with AdamW, large tensors, and many small ones
    python -m benchmarks.distributed --ranks 2 --quick

The ranks are processes on this machine with a gloo group. Libraries take turns; a time is that of the slowest rank, between two barriers.
All saves are durable: both fsync. Loads go into tensors that exist, from the page cache and past it. The protocol alone is what a storage
costs that does nothing: planning and messages, which no storage can save. Of an asynchronous save the stall is the time until the call
returns, in the slowest rank. Read ratios, not seconds.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from benchmarks import machine
from benchmarks.tables import table, with_spread

GOALS = {"save": 2.5, "warm load": 2.0}
CASES = ("save", "warm load", "cold load")
ASYNC_CASES = ("thread, stall", "thread, all", "process, stall", "process, all")
OURS, DCP, UNVERIFIED, PROTOCOL = "ckptfmt", "DCP", "ckptfmt verify=False", "DCP's protocol alone"
TITLES = {"fsdp": "FSDP2 model with AdamW, {:,} MB,", "large": "{:,} MB in large tensors", "small": "{:,} small tensors"}
WIDTH = 1024

Times = dict[str, dict[str, list[float]]]


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; the exit status is 0 whether or not the goals are met, because machines differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--megabytes", type=int, default=1000, help="size of the model with its optimizer, and of the large tensors")
    parser.add_argument("--tensors", type=int, default=4000, help="number of small tensors")
    parser.add_argument("--states", default="fsdp,large,small", help="which of them, with commas")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a tenth of everything, 3 repeats")
    parser.add_argument("--scratch", type=Path, help="where checkpoints are written")
    chosen = parser.parse_args(arguments)
    if chosen.quick:
        chosen.megabytes, chosen.tensors, chosen.repeats = chosen.megabytes // 10, chosen.tensors // 10, min(3, chosen.repeats)
    scratch = Path(mkdtemp(prefix="ckptfmt-bench-", dir=chosen.scratch))
    try:
        for name in chosen.states.split(","):
            size = chosen.tensors if name == "small" else chosen.megabytes
            print(f"\n### {TITLES[name].format(size)} over {chosen.ranks} ranks, median (lowest..highest) of {chosen.repeats}\n")
            print(report(measure(chosen.ranks, name, size, chosen.repeats, scratch)))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return 0


def report(times: Times) -> str:
    """Return tables of times, and what they say about the goals."""
    lines = []
    for cases in (CASES, ASYNC_CASES):
        rows = [
            [row, *map(with_spread, map(found.__getitem__, cases))] for row, found in times.items() if any(found[case] for case in cases)
        ]
        if rows:
            lines += [table(["" if cases is CASES else "async_save", *(f"{case}, s" for case in cases)], rows), ""]
    for case, goal in GOALS.items():
        ratio = statistics.median(times[DCP][case]) / statistics.median(times[OURS][case])
        lines.append(f"{case}: {ratio:.1f} times as fast as DCP; goal {goal}: {'met' if ratio >= goal else 'missed'}")
    return "\n".join(lines)


def measure(ranks: int, name: str, size: int, repeats: int, scratch: Path) -> Times:
    """Return times by row and case, in seconds."""
    context = multiprocessing.get_context("spawn")
    results: Any = context.SimpleQueue()
    (scratch / "store").unlink(missing_ok=True)
    processes = [
        context.Process(target=_measure_rank, args=(rank, ranks, name, size, repeats, str(scratch), results)) for rank in range(ranks)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise RuntimeError(f"ranks ended with {[process.exitcode for process in processes]}")
    found: Times = results.get()
    return found


def _measure_rank(rank: int, ranks: int, name: str, size: int, repeats: int, scratch: str, results: Any) -> None:
    import torch
    import torch.distributed as dist
    import torch.distributed.checkpoint as dcp

    from ckptfmt.adapters.torch_distributed import StorageReader, StorageWriter

    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{scratch}/store", rank=rank, world_size=ranks)
    state, target = STATES[name](size), STATES[name](size)
    _fill(state, 1.0)
    savers: dict[str, Any] = {OURS: StorageWriter, DCP: dcp.FileSystemWriter, PROTOCOL: _Nothing}
    loaders: dict[str, Any] = {
        OURS: StorageReader,
        UNVERIFIED: lambda path: StorageReader(path, verify=False),
        DCP: dcp.FileSystemReader,
        PROTOCOL: _Nothing,
    }
    times: Times = {row: {case: [] for case in (*CASES, *ASYNC_CASES)} for row in loaders}
    for repeat in range(repeats + 1):
        paths = {row: Path(f"{scratch}/{savers.get(row, StorageWriter).__name__}-{repeat}") for row in loaders}
        for row in _in_turn(savers, repeat):
            writer = savers[row](paths[row])
            _note(times[row]["save"], repeat, lambda: dcp.save(state, storage_writer=writer))  # noqa: B023 - called at once
        for case, prepare in (("warm load", machine.make_warm), ("cold load", machine.make_cold)):
            for row in _in_turn(loaders, repeat):
                _fill(target, 0.0)
                if rank == 0 and paths[row].exists():
                    prepare(paths[row])
                reader = loaders[row](paths[row])
                _note(times[row][case], repeat, lambda: dcp.load(target, storage_reader=reader))  # noqa: B023 - called at once
                if row != PROTOCOL:
                    _check(target)
        dist.barrier()
        if rank == 0:
            for path in set(paths.values()):
                shutil.rmtree(path, ignore_errors=True)
        dist.barrier()
    if name == "fsdp":
        _measure_async(rank, state, {row: savers[row] for row in (OURS, DCP)}, times, min(3, repeats), scratch)
    if rank == 0:
        results.put(times)
    dist.destroy_process_group()


def _measure_async(rank: int, state: Any, savers: dict[str, Any], times: Times, repeats: int, scratch: str) -> None:
    import torch.distributed as dist
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict_saver import AsyncCheckpointerType

    group = dist.new_group(backend="gloo")
    for mode in AsyncCheckpointerType:
        for repeat in range(repeats + 1):
            for row in _in_turn(savers, repeat):
                path = Path(f"{scratch}/async-{repeat}")
                begun, handle = time.perf_counter(), []

                def save() -> None:
                    kept = group if mode is AsyncCheckpointerType.THREAD else None  # noqa: B023 - called at once
                    writer = savers[row](path)  # noqa: B023
                    handle.append(dcp.async_save(state, storage_writer=writer, process_group=kept, async_checkpointer_type=mode))  # noqa: B023

                _note(times[row][f"{mode.value}, stall"], repeat, save)
                handle[0].result()
                dist.barrier()
                if repeat:
                    times[row][f"{mode.value}, all"].append(time.perf_counter() - begun)
                if rank == 0:
                    shutil.rmtree(path)
                dist.barrier()


class _Nothing:
    """A storage that stores nothing; what it gives to a load is how the save was described."""

    description: Any = None

    def __init__(self, path: Path) -> None:
        self.path = path

    def __getattr__(self, name: str) -> Any:
        if name in ("reset", "storage_meta"):
            return lambda *arguments: None
        if name.startswith("prepare"):
            return lambda plan: plan
        raise AttributeError(name)

    def set_up_storage_writer(self, *arguments: Any) -> None:
        """Do nothing."""

    def set_up_storage_reader(self, *arguments: Any) -> None:
        """Do nothing."""

    def write_data(self, plan: Any, planner: Any) -> Any:
        """Write nothing."""
        return self._done([])

    def finish(self, metadata: Any, results: Any) -> None:
        """Keep the description, on the first rank."""
        type(self).description = metadata

    def read_metadata(self) -> Any:
        """Return the description of the last save."""
        import torch.distributed as dist

        holder = [type(self).description]
        dist.broadcast_object_list(holder, src=0)
        type(self).description = holder[0]
        return holder[0]

    def read_data(self, plan: Any, planner: Any) -> Any:
        """Read nothing."""
        return self._done(None)

    def _done(self, value: Any) -> Any:
        from torch.futures import Future

        future: Any = Future()
        future.set_result(value)
        return future


def _in_turn(rows: dict[str, Any], repeat: int) -> list[str]:
    names = list(rows)
    return names if repeat % 2 else names[::-1]


def _note(times: list[float], repeat: int, work: Callable[[], object]) -> None:
    import torch.distributed as dist

    dist.barrier()
    begun = time.perf_counter()
    work()
    dist.barrier()
    # The first round warms up.
    if repeat:
        times.append(time.perf_counter() - begun)


def _fsdp(megabytes: int) -> dict[str, Any]:
    """Return the state of layers of 1,024 x 1,024 and their AdamW, cut over all ranks by FSDP2; a quarter of it is the model."""
    import torch
    from torch.distributed.checkpoint.state_dict import get_state_dict
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (torch.distributed.get_world_size(),))
    model: Any = torch.nn.Sequential(*(torch.nn.Linear(WIDTH, WIDTH) for _ in range(max(1, megabytes // 12))))
    for layer in model:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    states = get_state_dict(model, optimizer)
    return {"model": states[0], "optimizer": states[1]}


def _large(megabytes: int) -> dict[str, Any]:
    return _sharded(max(1, megabytes // 4), WIDTH, rows=1024)


def _small(count: int) -> dict[str, Any]:
    return _sharded(count, 1, rows=1024)


STATES: dict[str, Callable[[int], dict[str, Any]]] = {"fsdp": _fsdp, "large": _large, "small": _small}


def _sharded(count: int, width: int, *, rows: int) -> dict[str, Any]:
    """Return so many tensors of so many rows, cut along the rows; two of three belong to an optimizer."""
    import torch
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Shard

    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    local = rows // dist.get_world_size()
    names = [f"{'optimizer' if number % 3 else 'model'}.layers.{number}.weight" for number in range(count)]
    return {name: DTensor.from_local(torch.zeros(local, width), mesh, [Shard(0)], run_check=False) for name in names}


def _tensors(state: Any) -> Iterator[Any]:
    """Yield what this rank has of each tensor."""
    import torch

    if isinstance(state, torch.Tensor):
        yield state.to_local() if hasattr(state, "to_local") else state
    elif isinstance(state, (dict, list)):
        for member in state.values() if isinstance(state, dict) else state:
            yield from _tensors(member)


def _fill(state: dict[str, Any], value: float) -> None:
    for tensor in _tensors(state):
        tensor.detach().fill_(value)


def _check(state: dict[str, Any]) -> None:
    for tensor in _tensors(state):
        if tensor.numel() and (tensor.flatten()[0] != 1.0 or tensor.flatten()[-1] != 1.0):
            raise RuntimeError("a load gave other values than were saved")


if __name__ == "__main__":
    raise SystemExit(main())
