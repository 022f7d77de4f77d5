"""One S3 server for all tests that want one, emptied after each of them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from ckptfmt.disk import patient_store
from ckptfmt.disk.patient_store import Patience
from tests.adapters.store_kit import direct_store
from tests.adapters.store_server import BUCKET, StoreServer, running_store


@pytest.fixture(scope="session")
def started() -> Iterator[StoreServer]:
    """One server, whose address stays, because the library keeps its connections."""
    with running_store() as server:
        yield server


@pytest.fixture
def server(started: StoreServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[StoreServer]:
    """The server, empty and well, and this process set up for it; pauses are short."""
    for name, value in started.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(patient_store, "PATIENCE", Patience(attempts=5, first_seconds=0.01, longest_seconds=0.05))
    yield started
    started.breaking = lambda _: None
    store = direct_store()
    for entry in store.list(BUCKET, is_deep=True).entries:
        store.remove(f"{BUCKET}/{entry.name}")
    store.abort_uploads(BUCKET, before=datetime.now(UTC) + timedelta(days=1))
    started.requests.clear()
