"""`ckpt-inspect compress`: checkpoints in fewer bytes, without loss, where they are."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from ckpt_inspect.output.screen import Screen

DESCRIPTION = """\
Compress checkpoints where they are, without loss; everything that reads them
goes on to do so. Of a run each is stored as differences from the one before
it; any of them can still be deleted. The newest stays as it is, because a
training may build on it. This can be interrupted, and repeated."""

EXAMPLES = """\
examples:
  ckpt-inspect compress runs/exp1 -n               only estimate what it saves
  ckpt-inspect compress runs/exp1                  all but the newest
  ckpt-inspect compress runs/* --older-than 7d     from a nightly job
  ckpt-inspect compress runs/exp1/step-00001200    one checkpoint, by itself

Copy a compressed run with `cp -a`, `rsync -aH` or tar: its checkpoints share
files. exit status: 0 done, 1 a checkpoint is damaged, 2 could not run (disk
full), 10 not found, 11 another process is saving into a checkpoint."""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("paths", metavar="PATH", nargs="+", help="a run or a checkpoint")
    parser.add_argument("--level", metavar="N", type=int, default=3, help="1 to 22; higher is slower and gains a little (3)")
    parser.add_argument("--keep-last", metavar="N", type=int, default=1, help="the newest N of a run stay as they are (1)")
    parser.add_argument("--older-than", metavar="TIME", help="only checkpoints of a run that are older than 7d, 36h, 1w2d, ...")
    parser.add_argument("-n", "--dry-run", action="store_true", help="only estimate, from a part of each tensor")


def run(arguments: Namespace, screen: Screen) -> int:
    """Compress each PATH."""
    from ckpt_inspect.compressing import Rules, compress_paths

    rules = Rules(arguments.level, arguments.keep_last, arguments.older_than, arguments.dry_run)
    return compress_paths(arguments.paths, rules, screen)
