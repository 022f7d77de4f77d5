"""Looking at a progress from outside, while somebody works on it or nobody does: verifying and summing up. Spec 17.

Nothing is locked and nothing is written, and no result is decoded into objects of a library.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ckptfmt.checkpoint.verify import Finding
from ckptfmt.disk.paths import join
from ckptfmt.disk.protocol import Disk
from ckptfmt.errors import CheckpointNotFoundError, FormatError
from ckptfmt.format.fingerprint import decode_document
from ckptfmt.format.rules import located
from ckptfmt.run.journal_reader import read_journal, verify_journal
from ckptfmt.run.progress_claims import CLAIMS_NAME, DIGEST_BYTES, read_claims
from ckptfmt.run.progress_ledger import Ledger, MetricSummary
from ckptfmt.run.progress_records import BEGIN, DONE, FAIL, Key, decode_content, key_digest, key_of, plain_key
from ckptfmt.run.progress_units import UnitCheckpoints
from ckptfmt.run.progress_writers import WRITERS_NAME, writer_names
from ckptfmt.state.pause import collector_paused
from ckptfmt.state.tree import outline_state


@dataclass(frozen=True, slots=True)
class UnitRecord:
    """One record as it is shown: what became of a unit, and when (seconds since 1970)."""

    key: Key
    at: float
    metrics: dict[str, int | float]
    error: str | None = None


@dataclass(frozen=True, slots=True)
class ProgressSummary:
    """Where a progress stands. `failed` counts units whose last attempt failed, `claimed` those that somebody works on now; `metrics`
    are over all finished units; `last` are the newest records, oldest first.
    """

    total: int | None
    done: int
    failed: int
    claimed: int
    metrics: dict[str, MetricSummary]
    units_per_second: float | None
    eta_seconds: float | None
    last: tuple[UnitRecord, ...]

    @property
    def ratio(self) -> float | None:
        """The part of all units that is finished, from 0 to 1; None where it is not known how many there are."""
        if self.total is None:
            return None
        return min(1.0, self.done / self.total) if self.total else 1.0


def is_progress(disk: Disk, path: str) -> bool:
    """Tell whether a directory holds a progress."""
    try:
        disk.open_directory(join(path, WRITERS_NAME)).close()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def summarise_progress(disk: Disk, path: str, *, last_count: int = 5, is_alive: Callable[[str], bool] = lambda _: True) -> ProgressSummary:
    """Sum up a progress, without decoding results.

    `is_alive` tells of the directory of a writer's journal whether its process holds it; the claims of others do not count.

    Raises:
        CheckpointNotFoundError: there is none.
        CorruptError: acknowledged records are missing or disturbed.
    """
    if not is_progress(disk, path):
        raise CheckpointNotFoundError(f"{path}: no such progress\nThere is no {WRITERS_NAME}/ under this path.", path=path)
    ledger = Ledger(path)
    newest: list[list[Any]] = []
    with collector_paused():
        for name in writer_names(disk, path):
            records = [record for _, record in read_journal(disk, join(join(path, WRITERS_NAME), name)).iter_records()]
            ledger.add(name, records)
            units = [record for record in records[-4 * last_count :] if record[0] in (DONE, FAIL)]
            newest += units[-last_count:]
        newest.sort(key=lambda record: float(record[2]))
    failed = sum(1 for key in ledger.failures if key not in ledger.units)
    shown = tuple(_shown(record, path) for record in newest[-last_count:] if last_count)
    return ProgressSummary(
        total=ledger.total,
        done=len(ledger.units),
        failed=failed,
        claimed=_count_claimed(disk, path, ledger, is_alive),
        metrics=ledger.aggregate(),
        units_per_second=ledger.units_per_second(),
        eta_seconds=ledger.eta_seconds(ledger.total),
        last=shown,
    )


def _count_claimed(disk: Disk, path: str, ledger: Ledger, is_alive: Callable[[str], bool]) -> int:
    writers_path = join(path, WRITERS_NAME)
    claimed: set[bytes] = set()
    for writer, digests in read_claims(disk, join(path, CLAIMS_NAME)).items():
        if digests and is_alive(join(writers_path, writer)):
            claimed |= digests
    if claimed:
        # A claim stays in its file when the unit is done.
        claimed -= {key_digest(plain_key(key))[:DIGEST_BYTES] for key in ledger.units}
    return len(claimed)


def _shown(record: list[Any], where: str) -> UnitRecord:
    key = key_of(record[1], where=where)
    if record[0] == FAIL:
        return UnitRecord(key, record[2], {}, record[4])
    return UnitRecord(key, record[2], dict(decode_content(record[3], where=where).metrics))


def verify_progress(disk: Disk, path: str, *, level: str = "full") -> tuple[Finding, ...]:
    """Return everything that is wrong with a progress: its journals, its records, and the checkpoints that they name.

    Never raises because of damage. Raises CheckpointNotFoundError if there is no progress under this path.
    """
    if not is_progress(disk, path):
        raise CheckpointNotFoundError(f"{path}: no such progress\nThere is no {WRITERS_NAME}/ under this path.", path=path)
    units = UnitCheckpoints(disk, path, durable=False)
    findings: list[Finding] = []
    for name in writer_names(disk, path):
        writer_path = join(join(path, WRITERS_NAME), name)
        found = verify_journal(disk, writer_path)
        findings += found
        if all(finding.level != "error" for finding in found):
            for number, record in read_journal(disk, writer_path).iter_records():
                findings += _verify_record(units, record, where=f"{writer_path}: record {number}", path=writer_path, level=level)
    return tuple(findings)


def _verify_record(units: UnitCheckpoints, record: Any, *, where: str, path: str, level: str) -> list[Finding]:
    try:
        Ledger(where).add("", [record])
        if record[0] == BEGIN and record[2] is not None:
            decode_document(record[2], where=where)
        if record[0] != DONE:
            return []
        content = decode_content(record[3], where=where)
        try:
            outline_state(content.tree, lambda row: content.tensors[row])
        except FormatError as error:
            raise located(error, where) from error
    except FormatError as error:
        message = str(error).partition("\n")[0]
        return [Finding(error.rule or "E057", "error", path, None, error.expected, error.found, message)]
    return [finding for link in content.links for finding in units.verify(link, level=level)]
