"""What tests on the S3 server share: a way to it beside the one that is tested, and programs that use it."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

from ckptfmt.disk import remote
from ckptfmt.disk.object_store import ObjectStore
from tests.adapters.store_server import BUCKET, StoreServer

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).parent / "programs" / "store_program.py"


@cache
def direct_store() -> ObjectStore:
    """Return a way to the server beside the one that is tested."""
    return remote._open_store("s3")


def names() -> set[str]:
    """Return the keys of all objects."""
    return {entry.name for entry in direct_store().list(BUCKET, is_deep=True).entries}


def program(server: StoreServer, *arguments: str, path: Path = PROGRAM) -> subprocess.Popen[str]:
    """Start a program that uses the store through the proxy."""
    environment = os.environ | server.environment() | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, str(path), *arguments], env=environment, stdout=subprocess.PIPE, text=True)
