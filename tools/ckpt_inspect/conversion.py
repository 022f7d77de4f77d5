"""Conversions: which one is asked for, and doing it. What is not there yet is refused with what is."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ckpt_inspect.cleaning import warnings_as_messages
from ckpt_inspect.output.exit_status import FINE
from ckpt_inspect.output.files import replace_file
from ckpt_inspect.output.messages import report_error
from ckpt_inspect.output.screen import Screen
from ckpt_inspect.output.units import count_text, size_text
from ckpt_inspect.output.visible import visible
from ckpt_inspect.sources.location import Kind, NotReadableHereError, kind_of, without_final_slash
from ckpt_inspect.sources.run_history import check_metric, read_history
from ckptfmt.checkpoint.loading import open_checkpoint
from ckptfmt.checkpoint.reader import OpenCheckpoint
from ckptfmt.errors import CheckpointExistsError
from ckptfmt.format.dtypes import NATIVE
from ckptfmt.format.layout import is_tensor_name
from ckptfmt.format.shard_header import StoredEntry, encode_header
from ckptfmt.format.tree_walk import iter_tensors, tag_of
from ckptfmt.run.run import Run

_WORKS = "What works now: RUN DIR, and CHECKPOINT FILE.safetensors. See --help."
_SUFFIX = ".safetensors"
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Conversion:
    """What is asked for; options that were not given are None."""

    source: str
    target: str
    steps: str | None = None
    metric: str | None = None
    mode: str | None = None
    section: str | None = None
    overwrite: bool = False


def convert(wanted: Conversion, screen: Screen) -> int:
    """Do a conversion, and say what was written."""
    source = without_final_slash(wanted.source)
    kind = kind_of(source)
    if kind is Kind.CHECKPOINT and wanted.target.endswith(_SUFFIX):
        _refuse(wanted, ("steps", "metric", "mode"), "a checkpoint")
        written, remark = [wanted.target], _write_section(source, wanted)
    elif kind is Kind.RUN and not os.path.splitext(without_final_slash(wanted.target))[1][1:].isalpha():
        _refuse(wanted, ("section",), "a run")
        written, remark = _export_run(source, wanted), ""
    else:
        what = {Kind.FILE: "a file", Kind.RUN: "a run", Kind.CHECKPOINT: "a checkpoint", Kind.JOURNAL: "a journal"}[kind]
        raise NotReadableHereError(f"{source}: {what} cannot be converted to {wanted.target!r} yet\n{_WORKS}")
    if screen.is_json:
        screen.write_document({"kind": "convert", "source": source, "target": wanted.target, "written": written})
    else:
        screen.write_lines([*map(visible, written), *([screen.style.dim(remark)] if remark else [])])
    return FINE


def _refuse(wanted: Conversion, names: Sequence[str], what: str) -> None:
    for name in names:
        if getattr(wanted, name) is not None:
            raise NotReadableHereError(f"--{name}: means nothing for {what}")


def _export_run(source: str, wanted: Conversion) -> list[str]:
    steps = [_step(text) for text in (wanted.steps or "latest").split(",")]
    if (wanted.metric is None) != (wanted.mode is None) or ("best" in steps and wanted.metric is None):
        raise NotReadableHereError("best: needs --metric and --mode: name the metric, and say whether min or max is better")
    if wanted.metric is not None:
        check_metric(source, wanted.metric, read_history(source).names)
    with warnings_as_messages(), Run(source, on_mismatch="ignore", monitor=wanted.metric, mode=wanted.mode) as run:
        try:
            return run.export(wanted.target, steps=steps, overwrite=wanted.overwrite)
        except CheckpointExistsError as error:
            first = str(error).partition("\n")[0]
            raise CheckpointExistsError(f"{first}\nGive another directory, or --overwrite.", path=error.path) from None


def _step(text: str) -> int | str:
    if text in ("best", "latest"):
        return text
    if text.isascii() and text.isdigit():
        return int(text)
    raise NotReadableHereError(f"--steps: expected best, latest or a number, found {text!r}")


def _write_section(source: str, wanted: Conversion) -> str:
    """Write the tensors of a section as one file, and return what is to be said about it."""
    if os.path.lexists(wanted.target) and not wanted.overwrite:
        raise CheckpointExistsError(f"{wanted.target}: exists already\nGive another name, or --overwrite.", path=wanted.target)
    with open_checkpoint(source) as checkpoint:
        section = _chosen_section(checkpoint, wanted.section)
        tensors, left_out = _tensors_of(checkpoint, section)
        rows = [checkpoint.metadata.tensors[row] for _, row in tensors]
        odd = [name for (name, _), row in zip(tensors, rows, strict=True) if row.dtype not in NATIVE or not is_tensor_name(name)]
        if odd:
            names = ", ".join(odd[:_SHOWN]) + (f" and {len(odd) - _SHOWN:,} more" if len(odd) > _SHOWN else "")
            raise NotReadableHereError(
                f"{source}: safetensors has no such element type or name: {names}\n`convert RUN DIR` writes what safetensors cannot hold."
            )
        checkpoint.store.check_headers([row for _, row in tensors])
        replace_file(wanted.target, _pieces(checkpoint, tensors))
    for name in left_out:
        report_error(f"left out, safetensors has no such tensors: {name}")
    return f"{count_text(len(tensors), 'tensor')} of section {visible(section)}, {size_text(sum(row.size_bytes for row in rows))}"


def _chosen_section(checkpoint: OpenCheckpoint, wanted: str | None) -> str:
    sections = list(dict.fromkeys(path[0] for path, _ in iter_tensors(checkpoint.metadata.tree, where=checkpoint.path) if len(path) > 1))
    if wanted is not None and wanted in sections:
        return wanted
    if wanted is None and len(sections) == 1:
        return sections[0]
    problem = "give --section" if wanted is None else f"no section with tensors is named {wanted!r}"
    raise NotReadableHereError(f"{checkpoint.path}: {problem}\nThere are: {', '.join(map(visible, sections[:20])) or 'none'}.")


def _tensors_of(checkpoint: OpenCheckpoint, section: str) -> tuple[list[tuple[str, int]], list[str]]:
    """Return (name, row) of whole tensors of a section; a tied one stands under each of its names. And what is none: views, sparse."""
    tensors, left_out = [], []
    for path, node in iter_tensors(checkpoint.metadata.tree, where=checkpoint.path):
        if path[0] != section or len(path) < 2:
            continue
        name = ".".join(path[1:])
        if tag_of(node) == "$tensor" and "view" not in node["$tensor"][2]:
            tensors.append((name, node["$tensor"][0]))
        else:
            left_out.append(name)
    return tensors, left_out


def _pieces(checkpoint: OpenCheckpoint, tensors: Sequence[tuple[str, int]]) -> Iterator[bytes | memoryview]:
    rows = checkpoint.metadata.tensors
    yield encode_header([StoredEntry(name, NATIVE[rows[row].dtype][0], rows[row].shape, rows[row].size_bytes) for name, row in tensors])
    for _, row in tensors:
        yield checkpoint.store.memory(row).data
