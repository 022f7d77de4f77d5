"""`ckpt-inspect convert`: out of ckptfmt into formats that everything reads, and from foreign files into ckptfmt."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from ckpt_inspect.output.screen import Screen

FORMATS = ("checkpoint", "safetensors", "huggingface", "npz", "torch", "dcp", "results", "study")

DESCRIPTION = """\
Take something out of ckptfmt, or into it. By what lies under SRC and by the
name of DST:

  RUN DIR                       history as JSON and CSV; of each step its plain
                                values as JSON, its tensors as safetensors and
                                npy; an interrupted one is finished by the same
                                command
  CHECKPOINT FILE.safetensors   the tensors of one section, under their names;
                                those of a sharded one are put together, one
                                at a time
  CHECKPOINT DIR --to huggingface
                                the same as a directory that transformers'
                                from_pretrained opens
  CHECKPOINT FILE.npz           the same for numpy
  CHECKPOINT FILE.pt            the whole state for torch.load: a pickle again
  CHECKPOINT DIR --to dcp       what torch.distributed.checkpoint itself loads
  FILE.pt, .pth, .bin, .ckpt DIR
                                a new checkpoint from what torch.save wrote,
                                Lightning's files too; nothing of it is run
  FILE.safetensors, FILE.npz, a Hugging Face directory or one that
  torch.distributed.checkpoint wrote DIR
                                a new checkpoint
  study.db, study.log DIR       a new study from Optuna's SQLite database or
                                journal file; --study where there are several
  --from-pickle study.pkl DIR   the same from a pickled study: it is read as
                                data, nothing of it is run

A CHECKPOINT may be a URL. Nothing that is there with other content is
overwritten unasked."""

EXAMPLES = """\
examples:
  ckpt-inspect convert runs/exp1 results/exp1
  ckpt-inspect convert RUN DIR --steps best,latest --metric val.loss --mode min
  ckpt-inspect convert RUN/step-00001200 model.safetensors --section model
  ckpt-inspect convert RUN/step-00001200 my-model --to huggingface
  ckpt-inspect convert s3://bucket/exp1/step-00001200 model.safetensors
  ckpt-inspect convert dcp-directory checkpoint
  ckpt-inspect convert old.pt checkpoint
  ckpt-inspect convert whole-model.pt checkpoint --objects-as-data
  ckpt-inspect convert study.db runs/exp1/studies/lr --study lr-search"""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("source", metavar="SRC", help="a run, a checkpoint or its URL, a foreign file or directory")
    parser.add_argument("target", metavar="DST", help="a directory, or a file whose name ends as its format says")
    parser.add_argument("--to", metavar="FORMAT", choices=FORMATS, help=f"instead of by DST's name: {', '.join(FORMATS)}")
    parser.add_argument("--steps", metavar="LIST", help="of a run: best, latest and numbers, with commas (default latest)")
    parser.add_argument("--metric", metavar="M", help="the metric of `best`")
    parser.add_argument("--mode", choices=("min", "max"), help="whether its lowest or its highest value is best")
    parser.add_argument("--section", metavar="NAME", help="of a checkpoint: the part of the state, such as model")
    parser.add_argument("--max-shard-size", metavar="SIZE", help="of a Hugging Face directory: the largest file (default 5GB)")
    parser.add_argument(
        "--objects-as-data", action="store_true", help="of a torch file: take objects of other classes as mappings, modules as state_dict"
    )
    parser.add_argument("--study", metavar="NAME", help="of a file of Optuna: which study, where there are several")
    parser.add_argument("--from-pickle", action="store_true", help="SRC is a pickled study: read it as data, without running it")
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there with other content")


def run(arguments: Namespace, screen: Screen) -> int:
    """Convert SRC to DST."""
    from ckpt_inspect.conversions.choosing import convert
    from ckpt_inspect.conversions.wanted import Conversion

    conversion = Conversion(
        source=arguments.source,
        target=arguments.target,
        to=arguments.to,
        steps=arguments.steps,
        metric=arguments.metric,
        mode=arguments.mode,
        section=arguments.section,
        max_shard_size=arguments.max_shard_size,
        objects_as_data=arguments.objects_as_data,
        study=arguments.study,
        from_pickle=arguments.from_pickle,
        overwrite=arguments.overwrite,
    )
    return convert(conversion, screen)
