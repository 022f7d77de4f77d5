"""A foreign SQLite database, opened for reading only: nothing is ever written to it, no table is made and none is upgraded.

All that is read comes from one moment, because it is read in one transaction. https://www.sqlite.org/uri.html
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ckptfmt.disk.local import LocalDisk
from ckptfmt.errors import CheckpointError, CheckpointNotFoundError, CorruptError

if TYPE_CHECKING:
    from sqlite3 import Connection, Error

_WAIT_SECONDS = 20.0


@contextmanager
def reading_database(path: str) -> Iterator[Connection]:
    """Open a database and begin a transaction that only reads.

    Raises:
        CheckpointNotFoundError: there is no such file.
        CorruptError: it is no database, or a damaged one.
        CheckpointError: somebody keeps it locked, or was killed while writing to it.
    """
    import sqlite3

    try:
        real = LocalDisk().real_path(path)
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointNotFoundError(f"{path}: no such file", path=path) from None
    address = f"{Path(os.path.abspath(real)).as_uri()}?mode=ro"
    try:
        with closing(sqlite3.connect(address, uri=True, timeout=_WAIT_SECONDS, isolation_level=None)) as connection:
            connection.execute("PRAGMA query_only = ON")
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("BEGIN")
            yield connection
    except sqlite3.Error as error:
        raise _as_ours(path, error) from error


def _as_ours(path: str, error: Error) -> CheckpointError:
    name, text = getattr(error, "sqlite_errorname", None) or "", str(error)
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return CheckpointError(f"{path}: somebody else keeps this database locked\nTry again when nobody writes to it.")
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN")):
        advice = (
            "Its last writer was killed, or works in WAL mode. Open it once with Optuna, or a copy of it with its -journal or -wal file."
        )
        return CheckpointError(f"{path}: cannot be read without changing it: {text}\n{advice}")
    return CorruptError(f"{path}: not a sound SQLite database: {text}", path=path)
