"""What retention keeps, and that it never deletes what it cannot judge."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import pytest

from ckptfmt.run.retention import Policy, StoredStep, parse_duration, plan_retention

NOW = datetime(2026, 1, 31, tzinfo=UTC)


def steps(*losses, sound=True):
    return [StoredStep(step, NOW - timedelta(days=len(losses) - step), {"loss": loss}, sound) for step, loss in enumerate(losses, 1)]


def kept(stored, **rules):
    return [decision.step for decision in plan_retention(stored, Policy(**rules), now=NOW) if decision.is_kept]


def test_rules_are_ored_and_the_newest_stays():
    assert kept(steps(5, 1, 4, 3, 2), keep_last=1, keep_best=1, monitor="loss", mode="min") == [2, 5]
    assert kept(steps(5, 1, 4, 3, 2), keep_every=2) == [2, 4, 5]
    assert kept(steps(5, 1, 4, 3, 2), keep_within=timedelta(days=1)) == [4, 5]


def test_nan_is_never_best_and_the_newer_of_equals_is():
    assert kept(steps(math.nan, 1, 1, 3), keep_best=1, monitor="loss", mode="min") == [3, 4]
    assert kept(steps(math.nan, 1, 1, 3), keep_best=1, monitor="loss", mode="max") == [4]


def test_without_rules_everything_stays():
    assert kept(steps(1, 2, 3)) == [1, 2, 3]


def test_a_metric_that_no_checkpoint_has_deletes_nothing():
    decisions = plan_retention(steps(1, 2, 3), Policy(keep_best=1, monitor="los", mode="min"), now=NOW)
    assert [decision.reasons[0] for decision in decisions] == ["nothing to judge los by"] * 3


def test_a_metric_that_is_nan_everywhere_keeps_nothing():
    assert kept(steps(math.nan, math.nan, math.nan), keep_last=1, keep_best=1, monitor="loss", mode="min") == [3]


def test_a_damaged_newest_checkpoint_stays_beside_the_newest_sound_one():
    stored = [*steps(1, 2, 3), StoredStep(4, NOW, {"loss": 0.0}, is_sound=False)]
    assert kept(stored, keep_last=1) == [3, 4]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("7d", timedelta(days=7)), ("1w2d", timedelta(days=9)), ("36h", timedelta(hours=36)), (90, timedelta(seconds=90))],
)
def test_durations_are_read(text, expected):
    assert parse_duration(text) == expected


@pytest.mark.parametrize("text", ["", "7", "d", "7 d", "-1d", "0s", -5, True])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match="keep_within"):
        parse_duration(text)
