"""What earlier releases wrote is read today, and what this one writes now is what its record says."""

import json
from pathlib import Path

import pytest

import ckptfmt
from tests.compat.make_written import WRITTEN, write_cases
from tests.conformance import naive_reader
from tests.conformance.describing import described

CASES = sorted(path for path in WRITTEN.glob("*/*") if path.is_dir())


def expected(case):
    return json.loads((case / "expected.json").read_text("utf-8"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.parent.name}-{case.name}")
def test_a_checkpoint_of_an_earlier_release_loads(case):
    assert described(ckptfmt.load(str(case / "checkpoint"))) == expected(case)
    assert ckptfmt.verify(str(case / "checkpoint")).findings == ()


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.parent.name}-{case.name}")
def test_the_naive_reader_reads_it_too(case):
    naive_reader.read(case / "checkpoint")


def test_every_record_has_all_cases():
    for release in filter(Path.is_dir, WRITTEN.iterdir()):
        assert {case.name for case in release.iterdir()} >= {"plain", "training", "linked"}


def test_what_is_written_today_loads_as_what_it_was(tmp_path):
    write_cases(tmp_path)
    for case in tmp_path.iterdir():
        assert described(ckptfmt.load(str(case / "checkpoint"))) == expected(case)
        naive_reader.read(case / "checkpoint")
