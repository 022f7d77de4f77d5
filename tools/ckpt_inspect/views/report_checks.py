"""What verifying found, on the page: all in one line where it is sound, else a card for each finding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ckpt_inspect.output.markup import Markup, element, named
from ckpt_inspect.output.units import count_text
from ckpt_inspect.sources.run_directory import ListedCheckpoint
from ckpt_inspect.sources.run_report import RunReport
from ckpt_inspect.views.findings import Verified
from ckptfmt.checkpoint.verify import Finding

_SHOWN = 100
_PLURALS = {"checkpoint": "checkpoints", "progress": "progresses", "study": "studies", "journal": "journals"}


@dataclass(frozen=True, slots=True)
class Checks:
    """How the run was verified: "quick", "full" or "none"; `failures` are (path, message) of what could not be."""

    level: str
    results: Sequence[Verified] = ()
    failures: Sequence[tuple[str, str]] = ()

    @property
    def bad(self) -> list[Verified]:
        """What is damaged. A save that is in progress is not."""
        return [verified for verified in self.results if not verified.is_sound and not verified.is_incomplete]

    @property
    def is_fine(self) -> bool:
        """Whether everything could be verified and nothing is damaged."""
        return not self.bad and not self.failures

    def sound_of(self, report: RunReport) -> list[ListedCheckpoint]:
        """Return the checkpoints that are whole, and in which no error was found."""
        bad = {verified.report.path for verified in self.bad}
        return [listed for listed in report.run.checkpoints if listed.problem is None and listed.path not in bad]


def checks_section(checks: Checks, report: RunReport) -> Iterator[Markup]:
    """Yield the section on verifying."""
    yield element("h2", "Verified", id="verified")
    if checks.level == "none":
        yield element("p", "Nothing was verified for this page.", class_="soft")
        return
    depth = "every byte" if checks.level == "full" else "all but the tensors' data"
    words = []
    for kind, plural in _PLURALS.items():
        same = [verified for verified in checks.results if verified.kind == kind]
        if same:
            words.append(f"{sum(one.is_sound for one in same):,} of {count_text(len(same), kind, plural)}")
    yield element("p", f"Sound: {', '.join(words)}; checked was {depth}." if words else "There is nothing to verify yet.")
    incomplete = sum(verified.is_incomplete for verified in checks.results)
    if incomplete:
        text = f"{count_text(incomplete, 'directory', 'directories')} without a manifest: a save is in progress, or was interrupted."
        yield element("p", text, class_="soft")
    for path, message in checks.failures:
        yield element("div", element("p", named(message)), element("p", named(path), class_="where"), class_="card found")
    found = [(verified, finding) for verified in checks.results if not verified.is_incomplete for finding in verified.findings]
    for verified, finding in found[:_SHOWN]:
        yield _card(finding, verified.report.path, report)
    if len(found) > _SHOWN:
        yield element("p", f"and {count_text(len(found) - _SHOWN, 'more finding')}: ckpt-inspect verify shows all", class_="soft")


def _card(finding: Finding, checkpoint_path: str, report: RunReport) -> Markup:
    is_error = finding.level == "error"
    message = finding.message.removeprefix(f"{finding.path}: ").removesuffix(f" [{finding.rule}]")
    where = named(finding.path.removeprefix(f"{report.given_path}/"))
    tensor = ["  tensor ", named(finding.tensor)] if finding.tensor is not None else None
    tag = element("span", f"{finding.rule} {finding.level}", class_=f"tag {'bad' if is_error else 'warn'}")
    return element(
        "div", element("p", tag, named(message)), element("p", where, tensor, class_="where"), class_=f"card found {finding.level}"
    )
