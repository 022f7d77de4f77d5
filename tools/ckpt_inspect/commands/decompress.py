"""`ckpt-inspect decompress`: checkpoints as they were before `compress`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from ckpt_inspect.output.screen import Screen

DESCRIPTION = """\
Give compressed checkpoints their files back, byte for byte as they were before
`compress`, where they are. Of a run all checkpoints are decompressed."""

EXAMPLES = """\
examples:
  ckpt-inspect decompress runs/exp1
  ckpt-inspect decompress runs/exp1/step-00001200   one checkpoint

exit status: 0 done, 1 a checkpoint is damaged, 2 could not run (disk full),
10 not found, 11 another process is saving into a checkpoint."""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("paths", metavar="PATH", nargs="+", help="a run or a checkpoint")


def run(arguments: Namespace, screen: Screen) -> int:
    """Decompress each PATH."""
    from ckpt_inspect.compressing import decompress_paths

    return decompress_paths(arguments.paths, screen)
