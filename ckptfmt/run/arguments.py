"""Ready-made command-line options for resuming: --resume, --resume-from, --ignore-checkpoint."""

from __future__ import annotations

import argparse
import os
from typing import Any

from ckptfmt.run.run import Run


def add_resume_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options; they exclude each other. Without any of them a run resumes where there is something to resume."""
    group = parser.add_argument_group("resuming")
    options = group.add_mutually_exclusive_group()
    options.add_argument("--resume", action="store_true", help="go on from the latest checkpoint; an error if there is none")
    options.add_argument(
        "--resume-from", metavar="DIR", help="begin from the checkpoint DIR, or from the latest of the run DIR, unless this run has begun"
    )
    options.add_argument("--ignore-checkpoint", action="store_true", help="start anew; what is there is set aside, never deleted")


def run_from_arguments(args: argparse.Namespace, directory: str | os.PathLike[str], **options: Any) -> Run:
    """Open a run as the options say; `options` are those of `Run`."""
    if args.ignore_checkpoint:
        options["resume"] = "never"
    elif args.resume:
        options["resume"] = "must"
    elif args.resume_from is not None:
        options["resume_from"] = args.resume_from
    return Run(directory, **options)
