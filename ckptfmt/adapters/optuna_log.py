"""Studies in the file of Optuna's journal storage: one JSON object a line, replayed by Optuna itself from memory.

The file is only read; what a killed writer left at its end is no line, as Optuna has it. https://optuna.readthedocs.io
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ckptfmt.adapters.optuna_foreign import ForeignStudy, ForeignTrial, choose_name
from ckptfmt.adapters.optuna_values import encode_trial
from ckptfmt.disk.foreign_file import map_file
from ckptfmt.errors import CheckpointError, CorruptError
from ckptfmt.run.notices import warn

_OP = b'"op_code"'


def is_log(start: bytes) -> bool:
    """Tell whether a file may be a journal of Optuna, from its first bytes."""
    line = start.partition(b"\n")[0]
    return line.startswith(b"{") and _OP in line


class _ReadOnlyLog:
    """What Optuna's journal storage wants of a backend, over lines that are in memory. `line` is the one that was given out last."""

    def __init__(self, path: str, data: bytes) -> None:
        self.path = path
        self.line = 0
        self._lines = data.split(b"\n")
        torn = self._lines.pop()
        if torn:
            warn(f"{path}: its last line was torn when its writer was killed, and is left out ({len(torn)} bytes)")

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        for number, text in enumerate(self._lines[log_number_from:], log_number_from + 1):
            self.line = number
            try:
                record = json.loads(text)
            except (ValueError, RecursionError) as error:
                raise self.error(f"not JSON: {error}") from None
            if type(record) is not dict or "op_code" not in record:
                raise self.error("no operation of Optuna")
            yield record

    def append_logs(self, _: list[dict[str, Any]]) -> None:
        raise self.error("Optuna would write to it")

    def error(self, what: str) -> CorruptError:
        return CorruptError(f"{self.path}: line {self.line}: {what[:200]}\nThe file is damaged, or no journal of Optuna.", path=self.path)


def read_log(path: str, name: str | None) -> ForeignStudy:
    """Read one study of a journal of Optuna; `name` may be left out where there is only one.

    Raises:
        NameNotFoundError: there is none of this name, or there are several.
        CorruptError: a line is damaged, or Optuna does not take it.
    """
    from optuna.storages import JournalStorage

    log = _ReadOnlyLog(path, bytes(map_file(path)))
    try:
        storage = JournalStorage(log)  # type: ignore[arg-type]
        studies = {study.study_name: study for study in storage.get_all_studies()}
        found = studies[choose_name(list(studies), name, path)]
        trials = [ForeignTrial(trial._trial_id, _members(trial)) for trial in storage.get_all_trials(found._study_id, deepcopy=False)]
    except CheckpointError:
        raise
    except (AssertionError, AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise log.error(f"cannot be replayed: {type(error).__name__}: {error}") from error
    directions = [int(direction) for direction in found.directions]
    return ForeignStudy(found.study_name, directions, found.user_attrs, found.system_attrs, trials)


def _members(trial: Any) -> dict[str, Any]:
    # Attributes are encoded by whoever writes them, and errors name trial and key there.
    return {**encode_trial(trial), "user_attrs": trial.user_attrs, "system_attrs": trial.system_attrs}
