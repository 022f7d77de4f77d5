"""Studies in Optuna's SQLite databases, read from their tables. No code of Optuna runs: it would create and upgrade tables.

The layout is that of schema version 12, which Optuna has had since 3.0; moments are in UTC there and become local ones, as Optuna reads
them. Layout: optuna/storages/_rdb/models.py
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ckptfmt.adapters.optuna_foreign import ForeignStudy, ForeignTrial, choose_name, distribution_text, internal_value
from ckptfmt.disk.foreign_database import reading_database
from ckptfmt.errors import CheckpointError, CorruptError, UnsupportedVersionError
from ckptfmt.run.notices import warn
from ckptfmt.run.study_records import COMPLETE, FAIL, MAXIMIZE, MINIMIZE, PRUNED, RUNNING, WAITING

if TYPE_CHECKING:
    from sqlite3 import Connection

START = b"SQLite format 3\0"
_SCHEMA_VERSION = 12
_TABLES = frozenset(
    {
        *("studies", "study_directions", "study_user_attributes", "study_system_attributes"),
        *("trials", "trial_user_attributes", "trial_system_attributes"),
        *("trial_params", "trial_values", "trial_intermediate_values", "version_info"),
    }
)
_STATES = {"RUNNING": RUNNING, "COMPLETE": COMPLETE, "PRUNED": PRUNED, "FAIL": FAIL, "WAITING": WAITING}
_DIRECTIONS = {"MINIMIZE": MINIMIZE, "MAXIMIZE": MAXIMIZE}
_SPECIAL = {"INF_POS": math.inf, "INF_NEG": -math.inf, "NAN": math.nan}


def read_database(path: str, name: str | None) -> ForeignStudy:
    """Read one study of a database; `name` may be left out where there is only one.

    Raises:
        NameNotFoundError: there is none of this name, or there are several.
        CorruptError: it is no database, none of Optuna, or a damaged one.
        UnsupportedVersionError: its tables are those of another release.
    """
    with reading_database(path) as connection:
        _check_tables(connection, path)
        ids = dict(connection.execute("SELECT study_name, study_id FROM studies ORDER BY study_id").fetchall())
        chosen = choose_name(list(ids), name, path)
        try:
            return _read_study(connection, chosen, ids[chosen], path)
        except CheckpointError:
            raise
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            text = f"{path}: study {chosen!r} holds what Optuna does not write: {type(error).__name__}: {error}"
            raise CorruptError(text[:400], path=path) from error


def _check_tables(connection: Connection, path: str) -> None:
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if "studies" not in tables or "trials" not in tables:
        found = ", ".join(sorted(map(str, tables))[:5]) or "no tables"
        raise CorruptError(f"{path}: not a database of Optuna: expected tables studies and trials, found {found}", path=path)
    versions = connection.execute("SELECT schema_version FROM version_info").fetchall() if "version_info" in tables else []
    if not tables >= _TABLES or versions != [(_SCHEMA_VERSION,)]:
        found = str(versions[0][0]) if versions else "none"
        raise UnsupportedVersionError(
            f"{path}: tables of another release of Optuna: expected schema version {_SCHEMA_VERSION}, found {found}\n"
            f"Upgrade a copy of it: optuna storage upgrade --storage sqlite:///COPY",
            path=path,
        )


def _read_study(connection: Connection, name: str, study_id: int, path: str) -> ForeignStudy:
    study = ForeignStudy(name, [])
    query = "SELECT direction FROM study_directions WHERE study_id = ? ORDER BY objective"
    study.directions = [_DIRECTIONS[direction] for (direction,) in connection.execute(query, (study_id,))]
    for table, attributes in (("study_user_attributes", study.user_attrs), ("study_system_attributes", study.system_attrs)):
        for key, text in connection.execute(f"SELECT key, value_json FROM {table} WHERE study_id = ?", (study_id,)):
            attributes[key] = json.loads(text)
    study.trials = _read_trials(connection, study_id, path)
    return study


def _read_trials(connection: Connection, study_id: int, path: str) -> list[ForeignTrial]:
    query = "SELECT trial_id, number, state, datetime_start, datetime_complete FROM trials WHERE study_id = ? ORDER BY number, trial_id"
    rows = connection.execute(query, (study_id,)).fetchall()
    if [number for _, number, *_ in rows] != list(range(len(rows))):
        warn(f"{path}: the numbers of trials are not 0 to {len(rows) - 1}, and are counted anew in their order")

    def parts(table: str, columns: str, order: str) -> dict[int, list[Any]]:
        found: dict[int, list[Any]] = defaultdict(list)
        trials = "SELECT trial_id FROM trials WHERE study_id = ?"
        query = f"SELECT trial_id, {columns} FROM {table} WHERE trial_id IN ({trials}) ORDER BY {order}"
        for trial_id, *rest in connection.execute(query, (study_id,)):
            found[trial_id].append(rest)
        return found

    params = parts("trial_params", "param_name, param_value, distribution_json", "param_id")
    values = parts("trial_values", "value, value_type", "objective")
    steps = parts("trial_intermediate_values", "step, intermediate_value, intermediate_value_type", "trial_intermediate_value_id")
    user = parts("trial_user_attributes", "key, value_json", "trial_user_attribute_id")
    system = parts("trial_system_attributes", "key, value_json", "trial_system_attribute_id")
    trials = []
    for trial_id, _, state, started, finished in rows:
        texts = [(name, value, distribution_text(text)) for name, value, text in params[trial_id]]
        members = {
            "state": _STATES[state],
            "values": [_number(value, kind) for value, kind in values[trial_id]] or None,
            "started_at": _moment(started),
            "finished_at": _moment(finished),
            "params": [[name, internal_value(text, value), text] for name, value, text in texts],
            "user_attrs": {key: json.loads(text) for key, text in user[trial_id]},
            "system_attrs": {key: json.loads(text) for key, text in system[trial_id]},
            "intermediate": [[step, _number(value, kind)] for step, value, kind in steps[trial_id]],
        }
        trials.append(ForeignTrial(trial_id, members))
    return trials


def _number(value: Any, kind: str) -> float:
    return _SPECIAL[kind] if kind != "FINITE" else float(value)


def _moment(text: str | None) -> str | None:
    """Return a moment in UTC as a local one without a zone."""
    return None if text is None else datetime.fromisoformat(text).replace(tzinfo=UTC).astimezone().replace(tzinfo=None).isoformat()
