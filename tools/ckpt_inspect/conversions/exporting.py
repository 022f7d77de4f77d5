"""From a run or a checkpoint to files that other programs read. Each file appears whole or not at all."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

from ckpt_inspect.cleaning import warnings_as_messages
from ckpt_inspect.conversions.wanted import Conversion, Written, counted, refuse_existing, shown_names
from ckpt_inspect.output.files import replace_file, writing_file
from ckpt_inspect.output.messages import report_error
from ckpt_inspect.output.progress import ByteProgress
from ckpt_inspect.output.screen import Screen
from ckpt_inspect.output.units import count_text, size_text
from ckpt_inspect.output.visible import visible
from ckpt_inspect.sources.location import NotReadableHereError
from ckpt_inspect.sources.run_history import check_metric, read_history
from ckptfmt.adapters.safetensors_files import Section, choose_section, huggingface_files, safetensors_pieces
from ckptfmt.checkpoint.loading import load
from ckptfmt.checkpoint.reader import OpenCheckpoint
from ckptfmt.checkpoint.saving import parse_size
from ckptfmt.disk.anywhere import AnyDisk
from ckptfmt.disk.urls import location
from ckptfmt.errors import CheckpointExistsError
from ckptfmt.run.run import Run

_MAX_SHARD_SIZE = "5GB"
_WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?")


def export_results(source: str, wanted: Conversion, screen: Screen) -> Written:
    """Write history and chosen steps of a run in common formats."""
    steps = [_step(text) for text in (wanted.steps or "latest").split(",")]
    if (wanted.metric is None) != (wanted.mode is None) or ("best" in steps and wanted.metric is None):
        raise NotReadableHereError("best: needs --metric and --mode: name the metric, and say whether min or max is better")
    if wanted.metric is not None:
        check_metric(source, wanted.metric, read_history(source).names)
    with warnings_as_messages(), Run(source, on_mismatch="ignore", monitor=wanted.metric, mode=wanted.mode) as run:
        try:
            return run.export(wanted.target, steps=steps, overwrite=wanted.overwrite), ""
        except CheckpointExistsError as error:
            first = str(error).partition("\n")[0]
            raise CheckpointExistsError(f"{first}\nGive another directory, or --overwrite.", path=error.path) from None


def _step(text: str) -> int | str:
    if text in ("best", "latest"):
        return text
    if text.isascii() and text.isdigit():
        return int(text)
    raise NotReadableHereError(f"--steps: expected best, latest or a number, found {text!r}")


def _open(source: str) -> OpenCheckpoint:
    """Open a checkpoint, mapping nothing: however large it is, one tensor at a time is in memory."""
    return OpenCheckpoint(AnyDisk(), location(source), is_mapped=False)


def _export_safetensors(source: str, wanted: Conversion, screen: Screen) -> Written:
    refuse_existing(wanted.target, overwrite=wanted.overwrite)
    with _open(source) as checkpoint:
        section = choose_section(checkpoint, wanted.section)
        with _progress(checkpoint, section, screen) as progress:
            replace_file(wanted.target, counted(safetensors_pieces(checkpoint, section.tensors), progress))
        return [wanted.target], _remark(checkpoint, section, "safetensors has")


def _export_huggingface(source: str, wanted: Conversion, screen: Screen) -> Written:
    limit = parse_size(wanted.max_shard_size or _MAX_SHARD_SIZE)
    with _open(source) as checkpoint:
        section = choose_section(checkpoint, wanted.section)
        names = [name for name, _ in huggingface_files(checkpoint, section, max_shard_size_bytes=limit)]
        os.makedirs(wanted.target, exist_ok=True)
        older = [name for name in os.listdir(wanted.target) if _WEIGHTS.fullmatch(name)]
        for name in (*names, *older):
            refuse_existing(os.path.join(wanted.target, name), overwrite=wanted.overwrite)
        with _progress(checkpoint, section, screen) as progress:
            for name, pieces in huggingface_files(checkpoint, section, max_shard_size_bytes=limit):
                progress.label(name)
                replace_file(os.path.join(wanted.target, name), counted(pieces, progress))
        for name in set(older) - set(names):
            # Beside the new files they would be read as a part of the model.
            os.unlink(os.path.join(wanted.target, name))
        remark = _remark(checkpoint, section, "safetensors has")
    if "config.json" not in names and not os.path.exists(os.path.join(wanted.target, "config.json")):
        remark += "; put the model's config.json beside them, which from_pretrained needs"
    return [os.path.join(wanted.target, name) for name in names], remark


def _export_npz(source: str, wanted: Conversion, screen: Screen) -> Written:
    from zipfile import ZIP_STORED, ZipFile, ZipInfo

    from ckptfmt.adapters.npz import npz_entries

    refuse_existing(wanted.target, overwrite=wanted.overwrite)
    with _open(source) as checkpoint:
        section = choose_section(checkpoint, wanted.section)
        entries = npz_entries(checkpoint, section.tensors)
        with (
            _progress(checkpoint, section, screen) as progress,
            writing_file(wanted.target) as file,
            ZipFile(file, "w", ZIP_STORED) as archive,
        ):
            for name, header, data in entries:
                with archive.open(ZipInfo(name), "w", force_zip64=True) as entry:
                    entry.write(header)
                    entry.write(data)
                progress.advance(len(data))
                del data
        return [wanted.target], _remark(checkpoint, section, "numpy has")


def _export_torch(source: str, wanted: Conversion, screen: Screen) -> Written:
    import torch

    refuse_existing(wanted.target, overwrite=wanted.overwrite)
    state = load(source)
    with writing_file(wanted.target) as file:
        torch.save(state, file)
    return [wanted.target], "a pickle again: torch.load runs what such a file says, unless weights_only=True"


def _export_dcp(source: str, wanted: Conversion, screen: Screen) -> Written:
    from ckptfmt.adapters.torch_distributed import to_dcp

    if wanted.overwrite:
        raise NotReadableHereError("--overwrite: means nothing for this conversion: give a new directory")
    to_dcp(source, wanted.target)
    return [wanted.target], "its values are pickles again: DCP runs what they say when it loads them"


WAYS: dict[str, Callable[[str, Conversion, Screen], Written]] = {
    "safetensors": _export_safetensors,
    "huggingface": _export_huggingface,
    "npz": _export_npz,
    "torch": _export_torch,
    "dcp": _export_dcp,
}


def _progress(checkpoint: OpenCheckpoint, section: Section, screen: Screen) -> ByteProgress:
    total = sum(checkpoint.metadata.tensors[row].size_bytes for _, row in section.tensors)
    return ByteProgress(total_bytes=total, is_wanted=not (screen.is_json or screen.is_quiet))


def _remark(checkpoint: OpenCheckpoint, section: Section, who: str) -> str:
    if section.left_out:
        report_error(f"left out, {who} no such tensors: {shown_names(section.left_out)}")
    total = sum(checkpoint.metadata.tensors[row].size_bytes for _, row in section.tensors)
    where = f"section {visible(section.name)}" if section.name else "the top of the state"
    return f"{count_text(len(section.tensors), 'tensor')} of {where}, {size_text(total)}"
