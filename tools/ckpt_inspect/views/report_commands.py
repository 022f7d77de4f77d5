"""The commands that go on from here, with the run's path as a shell and as Python take it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ckpt_inspect.output.markup import Markup, element
from ckpt_inspect.output.shell import command_line
from ckpt_inspect.sources.run_report import RunReport
from ckpt_inspect.views.report_checks import Checks
from ckpt_inspect.views.run_marks import marks_of

_KEPT = "3"


def commands_of(report: RunReport, checks: Checks, names: Sequence[str]) -> list[tuple[str, str]]:
    """Return (what it is for, command)."""
    path, sound = report.path, checks.sound_of(report)
    extremes = marks_of(sound).extremes
    best = next(((name, word, step) for name, (word, step) in extremes.items()), None)
    options = ["--metric", best[0], "--mode", "max" if best[1] == "highest" else "min"] if best else []
    commands = []
    if sound:
        commands.append(("go on in Python, from the newest sound checkpoint", f"run = ckptfmt.Run({path!a}, resume='must')"))
        commands.append(("go on with a script that has ckptfmt's own options", "python train.py --resume"))
        source = next((listed.path for listed in sound if best and listed.step == best[2]), sound[-1].path)
        name = source[len(report.given_path) :]
        commands.append((f"begin another run from {'the best' if best else 'this'} one", _script("--resume-from", path + name)))
    commands.append(("watch it while it goes on", command_line("ckpt-inspect", "watch", path)))
    keep = ["--keep-last", _KEPT, *(["--keep-best", "1", *options] if best else [])]
    if sound:
        commands.append(
            ("see what tidying would delete; -y instead of -n does it", command_line("ckpt-inspect", "cleanup", path, *keep, "-n"))
        )
        if "compress" in names:
            compress = command_line("ckpt-inspect", "compress", path, "--keep-last", _KEPT, "-n")
            commands.append(("see what compressing would save; without -n it is done", compress))
        commands.append(("verify every byte", command_line("ckpt-inspect", "verify", path)))
        commands.append(("take the results out, in common formats", command_line("ckpt-inspect", "convert", path, "results")))
    return commands


def _script(*words: str) -> str:
    return command_line("python", "train.py", *words)


def commands_section(report: RunReport, checks: Checks, names: Sequence[str]) -> Iterator[Markup]:
    """Yield the section of commands."""
    yield element("h2", "From here", id="commands")
    for purpose, command in commands_of(report, checks, names):
        yield element("p", purpose, class_="soft")
        # A command means what it shows: what is not printable has become an escape of the shell already.
        yield element("pre", element("code", command, dir="ltr", translate="no"))
