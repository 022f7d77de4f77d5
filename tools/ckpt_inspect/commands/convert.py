"""`ckpt-inspect convert`: results of a run, or tensors of a checkpoint, in formats that everything reads."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from ckpt_inspect.output.screen import Screen

DESCRIPTION = """\
Take something out of ckptfmt. What works now:

  RUN DIR                       history as JSON and CSV; of each step its plain
                                values as JSON, its tensors as safetensors and
                                npy; an interrupted one is finished by the same
                                command
  CHECKPOINT FILE.safetensors   the tensors of one section, under their names

Nothing that is there with other content is overwritten unasked."""

EXAMPLES = """\
examples:
  ckpt-inspect convert runs/exp1 results/exp1
  ckpt-inspect convert RUN DIR --steps best,latest --metric val.loss --mode min
  ckpt-inspect convert RUN DIR --steps 500,1000
  ckpt-inspect convert RUN/step-00001200 model.safetensors --section model"""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("source", metavar="SRC", help="a run or a checkpoint")
    parser.add_argument("target", metavar="DST", help="a directory, or a file that ends with .safetensors")
    parser.add_argument("--steps", metavar="LIST", help="of a run: best, latest and numbers, with commas (default latest)")
    parser.add_argument("--metric", metavar="M", help="the metric of `best`")
    parser.add_argument("--mode", choices=("min", "max"), help="whether its lowest or its highest value is best")
    parser.add_argument("--section", metavar="NAME", help="of a checkpoint: the part of the state, such as model")
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there with other content")


def run(arguments: Namespace, screen: Screen) -> int:
    """Convert SRC to DST."""
    from ckpt_inspect.conversion import Conversion, convert

    conversion = Conversion(
        source=arguments.source,
        target=arguments.target,
        steps=arguments.steps,
        metric=arguments.metric,
        mode=arguments.mode,
        section=arguments.section,
        overwrite=arguments.overwrite,
    )
    return convert(conversion, screen)
