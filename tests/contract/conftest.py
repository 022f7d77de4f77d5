"""One directory of each disk that the contract is run against."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ckptfmt.disk.protocol import Directory
from tests.contract.disk_harness import HARNESSES, HOST_HARNESSES, Harness


@pytest.fixture(params=HARNESSES, ids=lambda make: make.__name__)
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Harness:
    """Every disk in turn."""
    made: Harness = request.param(tmp_path)
    return made


@pytest.fixture
def directory(harness: Harness) -> Iterator[Directory]:
    """The open root of every disk in turn."""
    opened = harness.disk.open_directory(harness.root)
    yield opened
    opened.close()


@pytest.fixture(params=HOST_HARNESSES, ids=lambda make: make.__name__)
def host_harness(request: pytest.FixtureRequest, tmp_path: Path) -> Harness:
    """Every disk in turn that holds directories of this machine."""
    made: Harness = request.param(tmp_path)
    return made


@pytest.fixture
def host_directory(host_harness: Harness) -> Iterator[Directory]:
    """The open root of each of those."""
    opened = host_harness.disk.open_directory(host_harness.root)
    yield opened
    opened.close()
