"""The store in this process's memory, through fsspec, by the contract of object stores."""

from __future__ import annotations

from collections.abc import Iterator

import fsspec
import pytest

from ckptfmt.disk.fsspec_store import FsspecStore
from ckptfmt.disk.object_store import ObjectStore
from tests.contract.object_store_contract import ObjectStoreContract


class TestMemoryStore(ObjectStoreContract):
    """fsspec's memory://, which keeps objects in one place for the whole process."""

    @pytest.fixture
    def store(self) -> Iterator[ObjectStore]:
        """An empty store."""
        file_system = fsspec.filesystem("memory", skip_instance_cache=True)
        file_system.store.clear()
        file_system.pseudo_dirs[:] = [""]
        yield FsspecStore(file_system)
        file_system.store.clear()
