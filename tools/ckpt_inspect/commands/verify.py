"""`ckpt-inspect verify`: is it all there and unchanged; if not, which file, which tensor, which rule."""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import dataclass

from ckpt_inspect.output.exit_status import FINE, FOUND_SOMETHING
from ckpt_inspect.output.messages import report_error
from ckpt_inspect.output.progress import ByteProgress
from ckpt_inspect.output.screen import Screen
from ckpt_inspect.output.visible import visible
from ckpt_inspect.sources.checkpoint import read_manifest_of
from ckpt_inspect.sources.location import Kind, NotReadableHereError, kind_of, step_directories
from ckpt_inspect.views.findings import closing_lines, report_document, report_lines
from ckptfmt.checkpoint.verify import VerifyReport, verify_checkpoint
from ckptfmt.disk.local import LocalDisk
from ckptfmt.errors import CheckpointError

DESCRIPTION = """\
Verify checkpoints: every digest of every file, and every rule of the format. Of a
run all checkpoints are verified. Each problem is named with its file, its tensor
and the rule of the specification that it breaks."""

EXAMPLES = """\
examples:
  ckpt-inspect verify runs/exp1/step-00001200   every byte of one checkpoint
  ckpt-inspect verify runs/exp1                 every checkpoint of a run
  ckpt-inspect verify --quick runs/*            all but the tensors' data
  ckpt-inspect verify -q STEP || echo damaged   for scripts
  ckpt-inspect verify STEP --json | jq .ok      for programs

exit status: 0 sound, 1 damaged or incomplete, 2 could not run, 10 not found;
of several paths the highest."""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("paths", metavar="PATH", nargs="+", help="a checkpoint or a run")
    parser.add_argument("--quick", action="store_true", help="manifest, metadata, headers and sizes; not the data of tensors")
    parser.add_argument("--fail-on-extra-files", action="store_true", help="files that the manifest does not name are a failure too")


@dataclass(frozen=True, slots=True)
class Verified:
    """One report, and how long it took."""

    report: VerifyReport
    is_sound: bool
    seconds: float


def run(arguments: Namespace, screen: Screen) -> int:
    """Verify each PATH."""
    level = "quick" if arguments.quick else "full"
    rules_that_fail = ("W001", "W002") if arguments.fail_on_extra_files else ()
    paths, status = _checkpoint_paths(arguments.paths)
    results = []
    with ByteProgress(total_bytes=_total_bytes(paths), is_wanted=level == "full" and not screen.is_json and not screen.is_quiet) as progress:
        for path in paths:
            progress.label(path)
            verified = _verify(path, level, rules_that_fail, progress)
            results.append(verified)
"""


