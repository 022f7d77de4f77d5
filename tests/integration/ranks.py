"""Processes of a distributed training that wait for work.

They are forked from a server that has imported torch, and tests share them where they can. `run(function, *args)` calls a function
of a module in all of them with their rank first; it returns what they return, or raises.
"""

from __future__ import annotations

import multiprocessing
import os
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

TIMEOUT_SECONDS = 120


class RankFailed(Exception):
    """What a rank raised, as text."""


class Ranks:
    """So many processes with a gloo group over a file in a directory. Use as a context manager."""

    def __init__(self, count: int, directory: Path) -> None:
        self.count = count
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["torch.distributed.checkpoint", "torch.distributed.fsdp"])
        self._pipes: list[Connection] = []
        self.processes = []
        for rank in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(rank, count, str(directory / "store"), theirs), daemon=False)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self.processes.append(process)

    def __enter__(self) -> Ranks:
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in self._pipes:
            pipe.close()
        for process in self.processes:
            process.join(10)
            if process.is_alive():
                process.kill()
                process.join()

    def run(self, function: Callable[..., Any], *args: Any) -> list[Any]:
        """Call `function(rank, *args)` everywhere and return the results by rank."""
        outcomes = self.outcomes(function, *args)
        for rank, (is_good, result) in enumerate(outcomes):
            if not is_good:
                raise RankFailed(f"rank {rank}:\n{result}")
        return [result for _, result in outcomes]

    def wait(self) -> list[int | None]:
        """Wait until all processes have ended by themselves, and return how."""
        for process in self.processes:
            process.join(TIMEOUT_SECONDS)
        return [process.exitcode for process in self.processes]

    def outcomes(self, function: Callable[..., Any], *args: Any) -> list[tuple[bool, Any]]:
        """Call it everywhere; return (True, result) or (False, traceback) by rank; (False, "died") for one that is gone."""
        for pipe in self._pipes:
            pipe.send((function, args))
        outcomes = []
        for rank, pipe in enumerate(self._pipes):
            try:
                if not pipe.poll(TIMEOUT_SECONDS):
                    raise RankFailed(f"rank {rank} does not answer")
                outcomes.append(pipe.recv())
            except (EOFError, ConnectionResetError):
                outcomes.append((False, "died"))
        return outcomes


def _serve(rank: int, count: int, store: str, pipe: Connection) -> None:
    import torch
    import torch.distributed as dist

    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(count), MASTER_ADDR="127.0.0.1")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=count)
    try:
        while True:
            try:
                function, args = pipe.recv()
            except EOFError:
                return
            try:
                pipe.send((True, function(rank, *args)))
            except BaseException as error:  # noqa: BLE001 - CheckpointException of DCP is one, and the test wants to see it
                text = "".join(traceback.format_exception(error))
                error.__traceback__ = None
                pipe.send((False, text))
    finally:
        dist.destroy_process_group()
