"""Conversions: which one is asked for, from what lies under the source and from the target's name or --to."""

from __future__ import annotations

import os
from collections.abc import Callable

from ckpt_inspect.conversions import exporting, importing, studies
from ckpt_inspect.conversions.wanted import Conversion, Written
from ckpt_inspect.output.exit_status import FINE
from ckpt_inspect.output.screen import Screen
from ckpt_inspect.output.visible import visible
from ckpt_inspect.sources.location import Kind, NotReadableHereError, kind_of, without_final_slash
from ckptfmt.disk.urls import is_url

_BY_SUFFIX = {".safetensors": "safetensors", ".npz": "npz", ".pt": "torch", ".pth": "torch", ".bin": "torch"}
_OPTIONS = {
    "results": ("steps", "metric", "mode"),
    "checkpoint": ("objects_as_data",),
    "safetensors": ("section",),
    "npz": ("section",),
    "huggingface": ("section", "max_shard_size"),
    "torch": (),
    "dcp": (),
    "study": ("study", "from_pickle"),
}


def convert(wanted: Conversion, screen: Screen) -> int:
    """Do a conversion, and say what was written."""
    source = without_final_slash(wanted.source)
    if is_url(wanted.target):
        raise NotReadableHereError(f"{wanted.target}: conversions write to this machine only\nCopy what was written.")
    kind, target = _kind_of(source, wanted), wanted.to or _format_of(wanted.target)
    way = _find_way(kind, target)
    if way is None:
        raise NotReadableHereError(_no_way(source, kind, wanted, target))
    target, do = way
    _refuse_other_options(wanted, target)
    written, remark = do(source, wanted, screen)
    if screen.is_json:
        screen.write_document({"kind": "convert", "source": source, "target": wanted.target, "written": written})
    else:
        screen.write_lines([*map(visible, written), *([screen.style.dim(remark)] if remark else [])])
    return FINE


def _kind_of(source: str, wanted: Conversion) -> str:
    kind = kind_of(source)
    if kind is Kind.FILE and wanted.from_pickle:
        return studies.PICKLE
    if kind in (Kind.FILE, Kind.CHECKPOINT):
        foreign = importing.find_foreign_kind(source)
        if foreign is None and kind is Kind.FILE:
            foreign = studies.find_study_kind(source)
        if foreign is not None:
            return foreign
    return kind.value


def _format_of(target: str) -> str | None:
    """Tell the format from the target's name; None for a directory, which means what fits the source."""
    return _BY_SUFFIX.get(os.path.splitext(without_final_slash(target))[1])


def _find_way(kind: str, target: str | None) -> tuple[str, Callable[[str, Conversion, Screen], Written]] | None:
    if kind in importing.FOREIGN:
        return ("checkpoint", importing.import_checkpoint) if target in (None, "checkpoint") else None
    if kind in studies.STUDY_FILES:
        return ("study", studies.import_one_study) if target in (None, "study") else None
    if kind == Kind.RUN.value:
        return ("results", exporting.export_results) if target in (None, "results") else None
    if kind == Kind.CHECKPOINT.value and target in exporting.WAYS:
        return target, exporting.WAYS[target]
    return None


def _no_way(source: str, kind: str, wanted: Conversion, target: str | None) -> str:
    fits = {
        Kind.RUN.value: "A run becomes a directory of results; for one step give RUN/step-...",
        Kind.CHECKPOINT.value: f"A checkpoint becomes {', '.join(exporting.WAYS)}: give a fitting name, or --to.",
    }
    named = {**importing.FOREIGN, **studies.STUDY_FILES}
    what = named.get(kind, f"a {kind}")
    if kind in studies.STUDY_FILES:
        return f"{source}: {what} cannot be converted to {target or wanted.target!r}\nIt becomes a study: give the name of a new directory."
    advice = fits.get(kind, "Such a file becomes a checkpoint: give the name of a new directory." if kind in importing.FOREIGN else "")
    return f"{source}: {what} cannot be converted to {target or wanted.target!r}\n{advice or 'See --help for what can.'}"


def _refuse_other_options(wanted: Conversion, target: str) -> None:
    for name in sorted({name for names in _OPTIONS.values() for name in names} - set(_OPTIONS[target])):
        if getattr(wanted, name) not in (None, False):
            raise NotReadableHereError(f"--{name.replace('_', '-')}: means nothing for this conversion")
