"""`ckpt-inspect diff`: what differs between two checkpoints."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from ckpt_inspect.output.screen import Screen

DESCRIPTION = """\
Show what differs between two checkpoints: step, metrics, fingerprint, values of
the state, and tensors. Tensors with the same digest are not read; of others the
elements that differ are counted, with the largest distance: absolute, relative
to the larger of both, and in ULP (how many numbers of the type lie between).
Two NaN are equal. One of the two, or both, may be a .safetensors file."""

EXAMPLES = """\
examples:
  ckpt-inspect diff RUN/step-00000100 RUN/step-00000200
  ckpt-inspect diff A B --only 'model.*'          only these, and what is below
  ckpt-inspect diff A B --exclude '@*'            not step, metrics, fingerprint
  ckpt-inspect diff A B --rtol 1e-5 --atol 1e-8   close numbers are equal
  ckpt-inspect diff -q A B && echo same           for scripts
  ckpt-inspect diff checkpoint model.safetensors  a file from elsewhere

Paths are those of `inspect --tree`, and @step, @metrics.NAME,
@fingerprint.FIELD. A number is close if |a - b| <= atol + rtol * max(|a|, |b|).

exit status: 0 the same, 1 different, 2 could not run, 10 not found."""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("a", metavar="A", help="a checkpoint or a .safetensors file")
    parser.add_argument("b", metavar="B", help="what it is compared with")
    parser.add_argument("--only", metavar="GLOB", action="append", help="compare only what this matches; may be given several times")
    parser.add_argument("--exclude", metavar="GLOB", action="append", help="leave out what this matches; may be given several times")
    parser.add_argument("--atol", metavar="X", type=float, default=0.0, help="absolute tolerance (default 0)")
    parser.add_argument("--rtol", metavar="X", type=float, default=0.0, help="relative tolerance (default 0)")


def run(arguments: Namespace, screen: Screen) -> int:
    """Compare A with B."""
    from ckpt_inspect.differences import show_differences
    from ckptfmt.checkpoint.tree_diff import Selection

    selection = Selection(arguments.only, arguments.exclude)
    return show_differences((arguments.a, arguments.b), selection, (arguments.atol, arguments.rtol), screen)
