"""What is measured with each library on each state.

The order is that of a program's life: save, save again in other ways, forget the state, load it. What was loaded is compared
with what was saved, outside the timed part: a fast library that returns something else has measured nothing.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks import machine, states
from benchmarks.measure import Job, Measurement, Timing, timed
from benchmarks.peers.interface import Peer

SAVE = "save"
DURABLE_SAVE = "durable save"
WARM_LOAD = "warm load"
COLD_LOAD = "cold load"
ONE_TENSOR = "one tensor"
ASYNC_STALL = "async stall"
ASYNC_TOTAL = "async total"
INCREMENTAL = {"incremental 1 %": 0.01, "incremental 10 %": 0.1, "incremental 100 %": 1.0}
INCREMENTAL_STATES = ("2GB", "50k")

EXTRA_MEMORY = "extra_memory_bytes"
SIZE = "size_bytes"
WRITTEN = "written_bytes"
CHANGED = "changed_bytes"

_ONE_TENSOR_CALLS = 5
_COMPARED_TENSORS = 40


class PeerCases:
    """All cases of one library and one state, in one process."""

    def __init__(self, peer: Peer, job: Job, directory: Path) -> None:
        self.peer = peer
        self.job = job
        self.directory = directory
        self.saved = directory / "saved"
        self.other = directory / "other"
        self.total_bytes = 0
        self.samples: dict[str, bytes] = {}

    def measure(self) -> Iterator[Measurement]:
        """Yield every measurement that the job wants."""
        self._warm_up()
        state = states.build(self.job.state, scale=self.job.scale)
        self.total_bytes = states.size_bytes(state)
        self.samples = _samples(state, self.job.state)
        prepared = self.peer.prepare(state)
        for _ in range(self.job.repeats):
            yield from self._durable_save(prepared)
            yield from self._other_saves(prepared)
        if self.peer.offers("save_on_base") and self.job.state in INCREMENTAL_STATES and self.saved.exists():
            yield from self._on_base(state)
        del state, prepared
        if not self.saved.exists():
            return
        for _ in range(self.job.repeats):
            yield from self._loads()
        if self.job.wants(ONE_TENSOR) and self.job.state in states.STATES:
            yield from self._one_tensor(states.STATES[self.job.state].one_tensor)

    def _warm_up(self) -> None:
        """Save and load something small, so that no case pays for imports."""
        path = self.directory / "small"
        self.peer.save(self.peer.prepare(states.build("uniform:4x4096")), path, durable=True)
        for load in self.peer.loads().values():
            load(path)
        self.peer.load_one(path, "model.blocks.0.1.weight")
        _remove(path)

    def _durable_save(self, prepared: Any) -> Iterator[Measurement]:
        """Save and sync; where the syncing is the benchmark's, the time before it is that of the plain save."""
        _remove(self.saved)
        os.sync()
        plain_seconds = 0.0

        def save() -> None:
            nonlocal plain_seconds
            started = time.perf_counter()
            self.peer.save(prepared, self.saved, durable=True)
            plain_seconds = time.perf_counter() - started
            if not self.peer.is_durable_by_itself:
                machine.sync_files(self.saved)

        try:
            timing = timed(save, preheat_bytes=self.total_bytes)
        except Exception as error:  # noqa: BLE001 - whatever a library raises belongs into the report
            yield self._failed(DURABLE_SAVE, error)
            _remove(self.saved)
            return
        yield self._measured(DURABLE_SAVE, timing, {SIZE: machine.size_on_disk(self.saved)})
        if not self.peer.is_durable_by_itself:
            yield Measurement(self.job.state, SAVE, self.peer.label, plain_seconds)

    def _other_saves(self, prepared: Any) -> Iterator[Measurement]:
        if self.peer.is_durable_by_itself:
            yield from self._run(SAVE, lambda: self.peer.save(prepared, self.other, durable=False), self.total_bytes)
        if not self.peer.offers("async_save") or not self.job.wants(ASYNC_STALL):
            return
        self._first_async_save(prepared)
        waits: list[Callable[[], Any]] = []
        started = 0.0

        def start() -> None:
            nonlocal started
            started = time.perf_counter()
            waits.append(self.peer.async_save(prepared, self.other))

        yield from self._run(ASYNC_STALL, start, self.total_bytes)
        for wait in waits:
            wait()
            yield Measurement(self.job.state, ASYNC_TOTAL, self.peer.label, time.perf_counter() - started)
        _remove(self.other)

    def _first_async_save(self, prepared: Any) -> None:
        """Save once without timing: a training saves again and again, and libraries keep the memory of their first copy."""
        _remove(self.other)
        # What goes wrong here goes wrong again in the timed call, which reports it.
        with suppress(Exception):
            self.peer.async_save(prepared, self.other)()

    def _on_base(self, state: Any) -> Iterator[Measurement]:
        for case, fraction in INCREMENTAL.items():
            if self.job.wants(case):
                facts = {CHANGED: states.change_fraction(state, fraction)}
                yield from self._run(case, lambda: self.peer.save_on_base(state, self.other, self.saved), 0, facts)
        _remove(self.other)

    def _run(self, case: str, save: Callable[[], Any], preheat_bytes: int, facts: dict[str, int] | None = None) -> Iterator[Measurement]:
        """Time one save to the other place; where it returns a number, that is how many bytes it wrote."""
        if not self.job.wants(case):
            return
        _remove(self.other)
        os.sync()
        try:
            timing = timed(save, preheat_bytes=preheat_bytes)
        except Exception as error:  # noqa: BLE001 - whatever a library raises belongs into the report
            yield self._failed(case, error)
            return
        written = {WRITTEN: timing.value} if type(timing.value) is int else {}
        yield self._measured(case, timing, {**(facts or {}), **written})

    def _loads(self) -> Iterator[Measurement]:
        for addition, load in self.peer.loads().items():
            if self.job.wants(WARM_LOAD):
                machine.make_warm(self.saved)
                yield from self._load(WARM_LOAD, addition, load)
            if self.job.wants(COLD_LOAD):
                yield from self._load(COLD_LOAD, addition, load)

    def _load(self, case: str, addition: str, load: Callable[[Path], Any]) -> Iterator[Measurement]:
        """Time one load and then the reading of its pages; listing the tensors in between is not timed."""
        row = f"{self.peer.label} {addition}".strip()
        machine.preheat(self.total_bytes)
        try:
            if case == COLD_LOAD:
                machine.make_cold(self.saved)
            timing = timed(lambda: load(self.saved))
            tensors = dict(states.tensors_of(timing.value))
            seconds = timing.seconds + _read_seconds(list(tensors.values()))
            self._compare(tensors, list(self.samples))
        except Exception as error:  # noqa: BLE001 - whatever a library raises belongs into the report
            yield self._failed(case, error, row)
            return
        extra_bytes = timing.extra_bytes
        facts = {} if extra_bytes is None else {EXTRA_MEMORY: max(0, extra_bytes - self.total_bytes)}
        yield Measurement(self.job.state, case, row, seconds, facts)

    def _one_tensor(self, name: str) -> Iterator[Measurement]:
        machine.make_warm(self.saved)
        for _ in range(_ONE_TENSOR_CALLS):
            try:
                timing = timed(lambda: self.peer.load_one(self.saved, name))
                seconds = timing.seconds + _read_seconds([timing.value])
                self._compare({name: timing.value}, [name])
            except Exception as error:  # noqa: BLE001 - whatever a library raises belongs into the report
                yield self._failed(ONE_TENSOR, error)
                return
            yield Measurement(self.job.state, ONE_TENSOR, self.peer.label, seconds)

    def _compare(self, tensors: dict[str, Any], names: list[str]) -> None:
        for name in names:
            if name not in tensors or _bytes_of(tensors[name]) != self.samples[name]:
                raise ValueError(f"{name}: what was loaded is not what was saved")

    def _measured(self, case: str, timing: Timing, facts: dict[str, int]) -> Measurement:
        memory = {} if timing.extra_bytes is None else {EXTRA_MEMORY: timing.extra_bytes}
        return Measurement(self.job.state, case, self.peer.label, timing.seconds, {**facts, **memory})

    def _failed(self, case: str, error: Exception, row: str | None = None) -> Measurement:
        text = (str(error).splitlines() or [""])[0][:200]
        return Measurement(self.job.state, case, row or self.peer.label, None, error=f"{type(error).__name__}: {text}")


def _read_seconds(tensors: list[Any]) -> float:
    """Read every page of some tensors and return how long that took; the list keeps them alive meanwhile."""
    addresses = machine.page_addresses(tensors)
    started = time.perf_counter()
    machine.read_pages(addresses)
    return time.perf_counter() - started


def _samples(state: Any, state_name: str) -> dict[str, bytes]:
    """Return the first bytes of some tensors, by name, among them the one that is read alone."""
    found = dict(states.tensors_of(state))
    chosen = list(found)[:: max(1, len(found) // _COMPARED_TENSORS)]
    if state_name in states.STATES:
        chosen.append(states.STATES[state_name].one_tensor)
    return {name: _bytes_of(found[name]) for name in chosen}


def _bytes_of(tensor: Any) -> bytes:
    """Return the first 64 KiB of a tensor or array."""
    import numpy

    if hasattr(tensor, "data_ptr"):
        import torch

        tensor = tensor.detach().reshape(-1).view(torch.uint8).numpy()
    flat = numpy.ascontiguousarray(tensor).reshape(-1).view(numpy.uint8)
    return flat[: 2**16].tobytes()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
