"""Two ranks for all tests of distributed training, started once: each imports torch, which takes seconds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.ranks import Ranks


@pytest.fixture(scope="session")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    with Ranks(2, tmp_path_factory.mktemp("ranks")) as started:
        yield started
