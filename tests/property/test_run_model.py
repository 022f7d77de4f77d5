"""A run against a model of it: any sequence of saves, logs, restores, branches, clean-ups, kills and reopenings."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import ckptfmt
from ckptfmt.checkpoint.async_queue import QUEUE
from ckptfmt.checkpoint.reader import OpenCheckpoint
from ckptfmt.disk.memory import MemoryDisk

PATH = "/run"
METRICS = st.sampled_from([0.0, 1.0, 2.0, float("nan")])


class RunAgainstModel(RuleBasedStateMachine):
    """`saved` are content and metric by step, `rows` the history, `aside` the contents that were set aside, in any order."""

    @initialize()
    def begin(self) -> None:
        self.disk = MemoryDisk()
        self.saved: dict[int, tuple[int, float]] = {}
        self.rows: dict[int, dict[str, float]] = {}
        self.aside: list[int] = []
        self.serial = 0
        self.position = -1
        self.branch_at: int | None = None
        self.run = self.opened()

    def opened(self) -> ckptfmt.Run:
        return ckptfmt.Run(PATH, _disk=self.disk, monitor="m", mode="min")

    def next_step(self, gap: int) -> int:
        return self.position + 1 + gap

    def leave_later(self) -> None:
        """What the first write after a restore does."""
        if self.branch_at is not None:
            last, self.branch_at = self.branch_at, None
            self.aside += [content for step, (content, _) in self.saved.items() if step > last]
            self.saved = {step: value for step, value in self.saved.items() if step <= last}
            self.rows = {step: row for step, row in self.rows.items() if step <= last}

    @rule(gap=st.integers(0, 2), metric=METRICS, is_async=st.booleans())
    def save(self, gap: int, metric: float, is_async: bool) -> None:
        step = self.next_step(gap)
        self.serial += 1
        state = {"serial": self.serial, "frozen": np.arange(20), "changed": np.full(3, self.serial)}
        save = self.run.async_save if is_async else self.run.save
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if self.branch_at is None and step in self.saved:
                with pytest.raises(ckptfmt.CheckpointExistsError):
                    self.run.save(step, state)
                return
            save(step, state, metrics={"m": metric})
            self.run.wait_until_finished()
        self.leave_later()
        self.saved[step] = (self.serial, metric)
        self.rows[step] = {**self.rows.get(step, {}), "m": metric}
        self.position = step

    @rule(gap=st.integers(0, 2), value=st.integers(0, 9))
    def log(self, gap: int, value: int) -> None:
        step = self.next_step(gap)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.run.log(step, {"v": value})
        self.leave_later()
        self.rows[step] = {**self.rows.get(step, {}), "v": value}

    def went_on_from(self, restored: ckptfmt.Restored, step: int) -> None:
        assert (restored.step, restored.state["serial"]) == (step, self.saved[step][0])
        assert np.array_equal(restored.state["changed"], np.full(3, self.saved[step][0]))
        self.position = self.branch_at = step

    @rule()
    def restore_latest(self) -> None:
        restored = self.run.restore()
        if not self.saved:
            assert restored is None
            return
        assert restored is not None
        self.went_on_from(restored, max(self.saved))

    def best(self) -> int | None:
        measured = [(metric, -step) for step, (_, metric) in self.saved.items() if metric == metric]
        return -min(measured)[1] if measured else None

    @rule()
    def restore_best(self) -> None:
        restored, best = self.run.restore(step="best"), self.best()
        if best is None:
            assert restored is None
            return
        assert restored is not None
        self.went_on_from(restored, best)

    @precondition(lambda self: self.saved)
    @rule(data=st.data())
    def restore_one(self, data: st.DataObject) -> None:
        step = data.draw(st.sampled_from(sorted(self.saved)))
        restored = self.run.restore(step=step)
        assert restored is not None
        self.went_on_from(restored, step)

    @rule(last=st.integers(1, 3), every=st.sampled_from([None, 2]), best=st.sampled_from([None, 1]))
    def clean_up(self, last: int, every: int | None, best: int | None) -> None:
        kept = set(sorted(self.saved)[-last:])
        if every:
            kept |= {step for step in self.saved if step % every == 0}
        if best and self.best() is not None:
            kept.add(self.best() or 0)
        report = self.run.cleanup(keep_last=last, keep_every=every, keep_best=best)
        assert report.kept == sorted(kept)
        self.saved = {step: value for step, value in self.saved.items() if step in kept}

    @rule()
    def close_and_reopen(self) -> None:
        self.run.close()
        self.reopen()

    @rule()
    def kill_and_reopen(self) -> None:
        """After a kill everything is there that was written, and no lock."""
        tree = self.disk.tree()
        self.run.close()
        self.disk = MemoryDisk(tree)
        self.reopen()

    def reopen(self) -> None:
        self.run = self.opened()
        self.branch_at = None
        self.position = max(self.saved, default=-1)

    @invariant()
    def everything_is_as_the_model_says(self) -> None:
        assert self.run.all_steps() == sorted(self.saved)
        assert self.run.latest_step() == max(self.saved, default=None)
        assert self.run.best_step() == self.best()
        rows = {row.pop("step"): row for row in self.run.history()}
        expected: dict[int, dict[str, Any]] = {step: dict(row) for step, row in self.rows.items()}
        for row in rows.values():
            del row["created_at_utc"]
        assert repr({step: sorted(rows[step].items()) for step in sorted(rows)}) == repr(
            {step: sorted(expected[step].items()) for step in sorted(expected)}
        )
        if self.saved or self.aside:
            names = self.disk.open_directory(PATH).names()
            kept = [name for name in names if name.startswith("aside-") and "step-" in name]
            assert sorted(self.content(name) for name in kept) == sorted(self.aside)

    def content(self, name: str) -> int:
        with OpenCheckpoint(self.disk, f"{PATH}/{name}") as checkpoint:
            return int(checkpoint.load()["serial"])

    def teardown(self) -> None:
        self.run.close()
        QUEUE.raise_pending()


RunAgainstModel.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestRunAgainstModel = RunAgainstModel.TestCase


class RunAgainstModelForLong(RunAgainstModel):
    """The same with many more sequences."""


RunAgainstModelForLong.TestCase.settings = settings(max_examples=600, stateful_step_count=40, deadline=None)
TestRunAgainstModelForLong = pytest.mark.slow(RunAgainstModelForLong.TestCase)
