"""`ckpt-inspect inspect`: what is in a checkpoint, a run or a foreign file."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from ckpt_inspect.output.screen import Screen

DESCRIPTION = """\
Show what is in a checkpoint, a run, its progress, studies and journals, or a
.safetensors file from anywhere. Of a checkpoint only the manifest and the
metadata are read, whatever its size; only --stats reads tensors, and verifies
what it reads."""

EXAMPLES = """\
examples:
  ckpt-inspect runs/exp1                        the checkpoints of a run
  ckpt-inspect runs/exp1/step-00001200          one of them
  ckpt-inspect STEP --tree                      the state with types and values
  ckpt-inspect STEP --tensors --sort size       its tensors, the largest first
  ckpt-inspect STEP --stats --filter 'model.*'  with minimum, mean, NaN, ...
  ckpt-inspect STEP --chunks --filter model.w   where a sharded one is stored
  ckpt-inspect runs/exp1/progress/calls         how far it is, what comes last
  ckpt-inspect runs/exp1/studies/lr             the best trial of a study
  ckpt-inspect runs/exp1/history                the records of a journal
  ckpt-inspect model.safetensors                a file from elsewhere
  ckpt-inspect STEP --json | jq .metrics        for programs"""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("path", metavar="PATH", help="a checkpoint, a run, a progress, a study, a journal or a .safetensors file")
    parser.add_argument("--tree", action="store_true", help="the state tree with types and values")
    parser.add_argument("--tensors", action="store_true", help="the tensors: name, dtype, shape, size, shard")
    parser.add_argument("--filter", metavar="GLOB", help="only what this matches, such as 'model.*.weight' (implies --tensors)")
    parser.add_argument("--sort", choices=("name", "size"), help="order of the tensors; without it as stored")
    parser.add_argument("--chunks", action="store_true", help="offset, shape and shard of each stored part of the tensors")
    parser.add_argument("--stats", action="store_true", help="minimum, maximum, mean, NaN and Inf of each tensor; reads and verifies it")


def run(arguments: Namespace, screen: Screen) -> int:
    """Show PATH."""
    from ckpt_inspect.inspection import Request, show
    from ckpt_inspect.sources.location import NotReadableHereError, without_final_slash

    if arguments.chunks and arguments.stats:
        raise NotReadableHereError("--chunks: does not go together with --stats")
    implies_tensors = arguments.stats or arguments.chunks or arguments.sort or (arguments.filter and not arguments.tree)
    request = Request(
        has_tree=arguments.tree,
        has_tensors=arguments.tensors or bool(implies_tensors),
        has_statistics=arguments.stats,
        has_chunks=arguments.chunks,
        pattern=arguments.filter,
        order=arguments.sort,
    )
    return show(without_final_slash(arguments.path), request, screen)
