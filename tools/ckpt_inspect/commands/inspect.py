"""`ckpt-inspect inspect`: what is in a checkpoint, a run or a foreign file.

Everything but --stats comes from the manifest, the metadata or a header: no shard of a checkpoint is opened.
"""

from __future__ import annotations

import os
import re
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import translate
from typing import Any

from ckpt_inspect.output.exit_status import FINE, FOUND_SOMETHING
from ckpt_inspect.output.messages import report_error
from ckpt_inspect.output.screen import Screen
from ckpt_inspect.sources.checkpoint import read_checkpoint
from ckpt_inspect.sources.location import Kind, NotReadableHereError, kind_of
from ckpt_inspect.sources.run_directory import read_run
from ckpt_inspect.sources.safetensors_file import read_safetensors
from ckpt_inspect.sources.tensor_data import Outcome, checkpoint_statistics, safetensors_statistics
from ckpt_inspect.views.checkpoint_document import checkpoint_document
from ckpt_inspect.views.foreign_file import file_document, file_lines
from ckpt_inspect.views.run_table import run_document, run_lines
from ckpt_inspect.views.summary import summary_lines
from ckpt_inspect.views.tensor_table import TensorSelection, select_tensors, tensor_entries, tensor_lines
from ckpt_inspect.views.tree import TreeView
from ckptfmt.errors import CorruptError, FormatError
from ckptfmt.format.metadata import TensorRow

DESCRIPTION = """\
Show what is in a checkpoint, a run or a .safetensors file from anywhere. Of a
checkpoint only the manifest and the metadata are read, whatever its size;
only --stats reads tensors, and verifies what it reads."""

EXAMPLES = """\
examples:
  ckpt-inspect runs/exp1                        the checkpoints of a run
  ckpt-inspect runs/exp1/step-00001200          one of them
  ckpt-inspect STEP --tree                      the state with types and values
  ckpt-inspect STEP --tensors --sort size       its tensors, the largest first
  ckpt-inspect STEP --stats --filter 'model.*'  with minimum, mean, NaN, ...
  ckpt-inspect model.safetensors                a file from elsewhere
  ckpt-inspect STEP --json | jq .metrics        for programs"""


_SHOWN_DAMAGE = 5
_SHOWN_TENSORS = 20


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("path", metavar="PATH", help="a checkpoint, a run or a .safetensors file")
    parser.add_argument("--tree", action="store_true", help="the state tree with types and values")
    parser.add_argument("--tensors", action="store_true", help="the tensors: name, dtype, shape, size, shard")
    parser.add_argument("--filter", metavar="GLOB", help="only what this matches, such as 'model.*.weight' (implies --tensors)")
    parser.add_argument("--sort", choices=("name", "size"), help="order of the tensors; without it as stored")
    parser.add_argument("--stats", action="store_true", help="minimum, maximum, mean, NaN and Inf of each tensor; reads and verifies it")


def run(arguments: Namespace, screen: Screen) -> int:
    """Show PATH."""
    kind = kind_of(arguments.path)
    has_tensors = arguments.tensors or arguments.stats or bool(arguments.sort) or (bool(arguments.filter) and not arguments.tree)
    if kind is Kind.RUN:
        if has_tensors or arguments.tree:
            raise NotReadableHereError(
                f"{arguments.path}: a run has no tensors of its own\nGive one of its checkpoints, such as {_example(arguments.path)}."
            )
        return _show_run(arguments.path, screen)
    subject = _file_subject(arguments.path) if kind is Kind.FILE else _checkpoint_subject(arguments.path)
    return _Inspection(subject, arguments, screen, has_tensors=has_tensors).run()


def _example(path: str) -> str:
    checkpoints = read_run(path).checkpoints
    return checkpoints[-1].path if checkpoints else f"{path}/step-00000100"


def _show_run(path: str, screen: Screen) -> int:
    listing = read_run(path)
    if screen.is_json:
        screen.write_document(run_document(listing))
    else:
        screen.write_lines(run_lines(listing, screen))
    return FINE


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
    overview: Callable[[Screen], Iterator[str]]
    document: Callable[[], dict[str, Any]]
    statistics: Callable[[Sequence[int]], Iterator[Outcome]]
    is_foreign: bool


def _checkpoint_subject(path: str) -> Subject:
    checkpoint = read_checkpoint(path)
    return Subject(
        tree=checkpoint.metadata.tree,
        rows=checkpoint.metadata.tensors,
        shard_names=[shard.name for shard in checkpoint.manifest.shards],
        overview=lambda screen: summary_lines(checkpoint, screen),
        document=lambda: checkpoint_document(checkpoint),
        statistics=lambda indices: checkpoint_statistics(path, indices),
        is_foreign=False,
    )


def _file_subject(path: str) -> Subject:
    file = read_safetensors(path)
    return Subject(
        tree=file.tree,
        rows=file.tensors,
        shard_names=[os.path.basename(path)],
        overview=lambda screen: file_lines(file, screen),
        document=lambda: file_document(file),
        statistics=lambda indices: safetensors_statistics(file, indices),
        is_foreign=True,
    )


class _Inspection:
    """One subject, shown as the arguments ask."""

    def __init__(self, subject: Subject, arguments: Namespace, screen: Screen, *, has_tensors: bool) -> None:
        self._subject = subject
        self._screen = screen
        self._has_tree = arguments.tree
        self._has_tensors = has_tensors
        self._has_statistics = arguments.stats
        self._matches = _matcher(arguments.filter)
        self._selection = select_tensors(subject.rows, subject.shard_names, matches=self._matches, order=arguments.sort)
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

    def _lines(self) -> Iterator[str]:
        if self._has_tree:
            yield from TreeView(self._subject.tree, self._subject.rows, self._matches).lines(self._screen)
        if self._has_tree and self._has_tensors:
            yield ""
        if self._has_tensors:
            yield from tensor_lines(self._selection, self._screen, self._statistics())
        if not self._has_tree and not self._has_tensors:
            yield from self._subject.overview(self._screen)
            if self._subject.is_foreign and self._selection.rows:
                yield ""
                yield from self._first_tensors()

    def _first_tensors(self) -> Iterator[str]:
        rows = self._selection.rows
        shown = rows if self._screen.verbosity else rows[:_SHOWN_TENSORS]
        yield from tensor_lines(TensorSelection(shown, self._selection.shard_names), self._screen)
        if len(shown) < len(rows):
            yield self._screen.style.dim(f"... and {len(rows) - len(shown):,} more (--tensors shows all)")

    def _document(self) -> dict[str, Any]:
        document = self._subject.document()
        if self._has_tree:
            document["tree"] = list(TreeView(self._subject.tree, self._subject.rows, self._matches).entries())
        if self._has_tensors or self._subject.is_foreign:
            document["tensors"] = list(tensor_entries(self._selection, self._statistics()))
        return document

    def _statistics(self) -> Iterator[Outcome] | None:
        return self._verified_statistics() if self._has_statistics else None

    def _verified_statistics(self) -> Iterator[Outcome]:
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
