"""Showing what lies under a path: which sources are read and which views they are shown in.

Everything but --stats comes from the manifest, the metadata or a header: no shard of a checkpoint is opened. What only some
requests need is imported when they need it: half of the time of a small answer is imports.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import translate
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ckpt_inspect.output.exit_status import FINE, FOUND_SOMETHING
from ckpt_inspect.output.messages import report_error
from ckpt_inspect.output.screen import Screen
from ckpt_inspect.sources.location import Kind, NotReadableHereError, kind_of, without_segment
from ckpt_inspect.views.tensor_table import TensorSelection, select_tensors, tensor_entries, tensor_lines
from ckptfmt.errors import CorruptError, FormatError
from ckptfmt.format.metadata import ShardTable, TensorRow

if TYPE_CHECKING:
    from ckpt_inspect.sources.tensor_data import Outcome
    from ckpt_inspect.views.tree import TreeView

_SHOWN_DAMAGE = 5
_SHOWN_TENSORS = 20
_LAST_RECORDS = 10


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be shown. Without tree and tensors it is the overview."""

    has_tree: bool
    has_tensors: bool
    has_statistics: bool
    has_chunks: bool
    pattern: str | None
    order: str | None


def show(path: str, request: Request, screen: Screen) -> int:
    """Show what lies under a path, and return the exit status."""
    path = without_segment(path)
    kind = kind_of(path)
    if kind is Kind.RUN:
        return _show_run(path, request, screen)
    if kind in (Kind.PROGRESS, Kind.STUDY):
        return _show_work(path, kind, request, screen)
    if kind is Kind.JOURNAL:
        return _show_journal(path, request, screen)
    if kind is Kind.FILE and request.has_chunks:
        raise NotReadableHereError(f"{path}: tensors of a single file have no chunks\n--tensors shows them.")
    subject = _file_subject(path) if kind is Kind.FILE else _checkpoint_subject(path)
    return _Inspection(subject, request, screen).run()


def _show_run(path: str, request: Request, screen: Screen) -> int:
    from ckpt_inspect.sources.run_directory import read_run
    from ckpt_inspect.views.run_table import run_document, run_lines

    run = read_run(path)
    if request.has_tree or request.has_tensors:
        example = run.checkpoints[-1].path if run.checkpoints else os.path.join(path, "step-00000100")
        raise NotReadableHereError(f"{path}: a run has no tensors of its own\nGive one of its checkpoints, such as {example}")
    if screen.is_json:
        screen.write_document(run_document(run))
    else:
        screen.write_lines(run_lines(run, screen))
    return FINE


def _show_journal(path: str, request: Request, screen: Screen) -> int:
    from ckpt_inspect.sources.journal import read_journal_at
    from ckpt_inspect.views.journal_lines import journal_document, journal_lines

    if request.has_tree or request.has_tensors:
        raise NotReadableHereError(f"{path}: a journal has no tensors")
    journal = read_journal_at(path, last_count=_LAST_RECORDS * (10 if screen.verbosity else 1))
    if screen.is_json:
        screen.write_document(journal_document(journal))
    else:
        screen.write_lines(journal_lines(journal, screen))
    if journal.damage is not None:
        report_error(journal.damage)
    return FINE if journal.damage is None else FOUND_SOMETHING


def _show_work(path: str, kind: Kind, request: Request, screen: Screen) -> int:
    from ckpt_inspect.sources.work import read_progress, read_studies
    from ckpt_inspect.views.progress_lines import progress_document, progress_lines
    from ckpt_inspect.views.study_lines import study_document, study_lines

    if request.has_tree or request.has_tensors:
        raise NotReadableHereError(f"{path}: a {kind.value} has no tensors of its own")
    last_count = _LAST_RECORDS * (10 if screen.verbosity else 1)
    if kind is Kind.PROGRESS:
        progress = read_progress(path, last_count=last_count)
        damage, document, lines = progress.damage, progress_document(progress), progress_lines(progress, screen)
    else:
        found = read_studies(path, last_count=last_count)
        damage, document, lines = found.damage, study_document(found), study_lines(found, screen)
    if screen.is_json:
        screen.write_document(document)
    else:
        screen.write_lines(lines)
    if damage is not None:
        report_error(damage)
    return FINE if damage is None else FOUND_SOMETHING


def _matcher(pattern: str | None) -> Callable[[str], bool] | None:
    if pattern is None:
        return None
    match = re.compile(translate(pattern)).match
    return lambda name: match(name) is not None


@dataclass(frozen=True, slots=True)
class Subject:
    """What a checkpoint and a foreign file have in common: a state with tensors, and ways to describe themselves."""

    tree: Any
    rows: Sequence[TensorRow]
    shard_names: Sequence[str]
    tables: Sequence[ShardTable]
    overview: Callable[[Screen], Iterator[str]]
    document: Callable[[], dict[str, Any]]
    statistics: Callable[[Sequence[int]], Iterator[Outcome]]
    is_foreign: bool


def _checkpoint_subject(path: str) -> Subject:
    from ckpt_inspect.sources.checkpoint import read_checkpoint
    from ckpt_inspect.views.checkpoint_document import checkpoint_document
    from ckpt_inspect.views.summary import summary_lines

    checkpoint = read_checkpoint(path)

    def statistics(indices: Sequence[int]) -> Iterator[Outcome]:
        from ckpt_inspect.sources.tensor_data import checkpoint_statistics

        return checkpoint_statistics(path, indices)

    return Subject(
        tree=checkpoint.metadata.tree,
        rows=checkpoint.metadata.tensors,
        shard_names=[shard.name for shard in checkpoint.manifest.shards],
        tables=checkpoint.metadata.shards,
        overview=lambda screen: summary_lines(checkpoint, screen),
        document=lambda: checkpoint_document(checkpoint),
        statistics=statistics,
        is_foreign=False,
    )


def _file_subject(path: str) -> Subject:
    from ckpt_inspect.sources.safetensors_file import read_safetensors
    from ckpt_inspect.views.foreign_file import file_document, file_lines

    file = read_safetensors(path)

    def statistics(indices: Sequence[int]) -> Iterator[Outcome]:
        from ckpt_inspect.sources.tensor_data import safetensors_statistics

        return safetensors_statistics(file, indices)

    return Subject(
        tree=file.tree,
        rows=file.tensors,
        shard_names=[os.path.basename(path)],
        tables=(),
        overview=lambda screen: file_lines(file, screen),
        document=lambda: file_document(file),
        statistics=statistics,
        is_foreign=True,
    )


class _Inspection:
    """One subject, shown as the request asks."""

    def __init__(self, subject: Subject, request: Request, screen: Screen) -> None:
        self._subject = subject
        self._request = request
        self._screen = screen
        self._matches = _matcher(request.pattern)
        self._damage: list[FormatError] = []

    def run(self) -> int:
        """Show it; tell on standard error what was found damaged."""
        try:
            if self._screen.is_json:
                self._screen.write_document(self._document())
            else:
                self._screen.write_lines(self._lines())
        except _UnreadableData as error:
            self._damage.append(error.reason)
        for damage in self._damage[:_SHOWN_DAMAGE]:
            report_error(str(damage))
        if len(self._damage) > _SHOWN_DAMAGE:
            report_error(f"{len(self._damage) - _SHOWN_DAMAGE:,} more tensors are damaged")
        return FOUND_SOMETHING if self._damage else FINE

    @cached_property
    def _selection(self) -> TensorSelection:
        subject = self._subject
        return select_tensors(subject.rows, subject.shard_names, subject.tables, matches=self._matches, order=self._request.order)

    def _tree(self) -> TreeView:
        from ckpt_inspect.views.tree import TreeView

        return TreeView(self._subject.tree, self._subject.rows, self._matches)

    def _lines(self) -> Iterator[str]:
        if self._request.has_tree:
            yield from self._tree().lines(self._screen)
        if self._request.has_tree and self._request.has_tensors:
            yield ""
        if self._request.has_tensors:
            yield from self._tensor_lines()
        if not self._request.has_tree and not self._request.has_tensors:
            yield from self._subject.overview(self._screen)
            if self._subject.is_foreign and self._selection.rows:
                yield ""
                yield from self._first_tensors()

    def _tensor_lines(self) -> Iterator[str]:
        if not self._selection.rows:
            yield self._screen.style.dim("no tensor matches")
        elif self._request.has_statistics:
            from ckpt_inspect.views.statistics_table import statistics_lines

            yield from statistics_lines(self._selection, self._screen, self._statistics())
        elif self._request.has_chunks:
            from ckpt_inspect.views.chunk_list import chunk_lines

            yield from chunk_lines(self._selection, self._screen)
        else:
            yield from tensor_lines(self._selection, self._screen)

    def _first_tensors(self) -> Iterator[str]:
        rows = self._selection.rows
        shown = rows if self._screen.verbosity else rows[:_SHOWN_TENSORS]
        yield from tensor_lines(TensorSelection(shown, self._selection.shard_names, self._selection.tables), self._screen)
        if len(shown) < len(rows):
            yield self._screen.style.dim(f"... and {len(rows) - len(shown):,} more (--tensors shows all)")

    def _document(self) -> dict[str, Any]:
        document = self._subject.document()
        if self._request.has_tree:
            document["tree"] = list(self._tree().entries())
        if self._request.has_tensors or self._subject.is_foreign:
            document["tensors"] = list(self._tensor_entries())
        return document

    def _tensor_entries(self) -> Iterator[dict[str, Any]]:
        if self._request.has_chunks:
            from ckpt_inspect.views.chunk_list import chunk_entries

            pairs = zip(tensor_entries(self._selection), self._selection.rows, strict=True)
            return ({**entry, "chunks": chunk_entries(row, self._selection)} for entry, (_, row) in pairs)
        if not self._request.has_statistics:
            return tensor_entries(self._selection)
        from ckpt_inspect.views.statistics_table import statistics_entries

        return statistics_entries(self._selection, self._statistics())

    def _statistics(self) -> Iterator[Outcome]:
        try:
            for outcome in self._subject.statistics([index for index, _ in self._selection.rows]):
                if isinstance(outcome, FormatError):
                    self._damage.append(outcome)
                yield outcome
        except CorruptError as error:
            raise _UnreadableData(error) from error


class _UnreadableData(Exception):
    """A shard is missing or its header is damaged: what the check found, not a reason that it could not run."""

    def __init__(self, reason: FormatError) -> None:
        super().__init__(str(reason))
        self.reason = reason
