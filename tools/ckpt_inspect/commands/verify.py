"""`ckpt-inspect verify`: is it all there and unchanged; if not, which file, which tensor, which rule."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from ckpt_inspect.output.screen import Screen

DESCRIPTION = """\
Verify checkpoints: every digest of every file, and every rule of the format; of
progress and studies every record, and what a record names. Of a run all of it
is verified. Each problem is named with its file, its tensor or record, and the
rule of the specification that it breaks."""

EXAMPLES = """\
examples:
  ckpt-inspect verify runs/exp1/step-00001200   every byte of one checkpoint
  ckpt-inspect verify runs/exp1                 everything in a run
  ckpt-inspect verify runs/exp1/progress/calls  the units of one progress
  ckpt-inspect verify --quick runs/*            all but the tensors' data
  ckpt-inspect verify -q STEP || echo damaged   for scripts
  ckpt-inspect verify STEP --json | jq .ok      for programs

exit status: 0 sound, 1 damaged or incomplete, 2 could not run, 10 not found;
of several paths the highest. An incomplete save within a run is shown, and no
failure: it may be in progress."""

_EXTRA_FILES = ("W001", "W002")


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("paths", metavar="PATH", nargs="+", help="a checkpoint, a run, a progress, a study or a journal")
    parser.add_argument("--quick", action="store_true", help="manifest, metadata, headers and sizes; not the data of tensors")
    parser.add_argument("--fail-on-extra-files", action="store_true", help="files that the manifest does not name are a failure too")


def run(arguments: Namespace, screen: Screen) -> int:
    """Verify each PATH."""
    from ckpt_inspect.sources.location import without_final_slash
    from ckpt_inspect.verification import verify_paths

    level = "quick" if arguments.quick else "full"
    rules_that_fail = _EXTRA_FILES if arguments.fail_on_extra_files else ()
    return verify_paths(list(map(without_final_slash, arguments.paths)), level, rules_that_fail, screen)
