"""What verifying a checkpoint found: for each problem the rule, the file, the tensor, what was expected and what is there."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ckpt_inspect.output.screen import Screen
from ckpt_inspect.output.table import GAP
from ckpt_inspect.output.units import count_text, duration_text, size_text
from ckpt_inspect.output.visible import columns, cut_end, padded, visible
from ckpt_inspect.views.json_values import plain_value
from ckptfmt.checkpoint.verify import Finding, VerifyReport

_SHOWN_FINDINGS = 20
_INDENT = "        "
_WORD_WIDTH = len("incomplete")
_OF_JOURNALS = re.compile("E05[01456]")
_OF_RECORDS = ("E057", "E058", "E059")


@dataclass(frozen=True, slots=True)
class Verified:
    """A report, and how it is judged: a warning may count as a failure."""

    report: VerifyReport
    is_sound: bool
    seconds: float
    kind: str = "checkpoint"

    @property
    def is_journal(self) -> bool:
        """Whether it is one journal or several: a progress, or studies."""
        return self.kind != "checkpoint"

    @property
    def findings(self) -> Sequence[Finding]:
        """What was found, errors first, then by file and tensor: shards are verified by several threads at once."""
        return sorted(self.report.findings, key=lambda finding: (finding.level != "error", finding.path, finding.tensor or ""))

    @property
    def is_incomplete(self) -> bool:
        """Whether there is no checkpoint at all, which is no damage."""
        return any(finding.rule == "E001" for finding in self.report.findings)

    @property
    def word(self) -> str:
        """The outcome in one word."""
        return "sound" if self.is_sound else "incomplete" if self.is_incomplete else "unclean" if self.report.ok else "damaged"


def verified_lines(verified: Verified, screen: Screen) -> Iterator[str]:
    """Yield the outcome of one checkpoint and what was found."""
    report = verified.report
    color = screen.style.green if verified.is_sound else screen.style.yellow if verified.is_incomplete else screen.style.red
    path, detail = visible(report.path), _detail(verified)
    word = f"{color(padded(verified.word, _WORD_WIDTH))}{GAP}{screen.style.bold(path)}"
    if _WORD_WIDTH + columns(path) + columns(detail) + 2 * len(GAP) <= screen.layout_width:
        yield f"{word}{GAP}{detail}"
    else:
        yield word
        yield f"{' ' * _WORD_WIDTH}{GAP}{detail}"
    findings = verified.findings
    shown = findings if screen.verbosity else findings[:_SHOWN_FINDINGS]
    for finding in shown:
        yield from _finding_lines(finding, report.path, screen)
    if len(shown) < len(findings):
        yield f"{GAP}... and {count_text(len(findings) - len(shown), 'more finding')} (-v shows all)"
    if verified.is_journal:
        yield from _advice_lines(findings)


def _advice_lines(findings: Sequence[Finding]) -> Iterator[str]:
    """Yield how to go on, on purpose, with what is sound of each damaged journal."""
    broken = [finding.path for finding in findings if finding.level == "error" and _OF_JOURNALS.fullmatch(finding.rule)]
    for path in dict.fromkeys(os.path.dirname(path) if path.endswith(".journal") else path for path in broken):
        yield f"{GAP}To go on with its sound records, and keep the damaged files:"
        yield f"{GAP}{GAP}ckpt-inspect salvage {visible(path)}"
    if any(finding.rule in _OF_RECORDS for finding in findings):
        yield f"{GAP}These bytes are as they were written: by something newer, or with a bug."


def _detail(verified: Verified) -> str:
    report = verified.report
    counts = [(level, sum(finding.level == level for finding in report.findings)) for level in ("error", "warning")]
    found = ", ".join(count_text(count, level) for level, count in counts if count)
    if not verified.is_sound:
        return found
    if verified.is_journal:
        return f"{verified.kind}, every record verified in {duration_text(verified.seconds)}" + (f", {found}" if found else "")
    checked = "all but the tensors' data checked" if report.level == "quick" else f"{size_text(report.verified_bytes)} of tensors verified"
    return f"{checked} in {duration_text(verified.seconds)}" + (f", {found}" if found else "")


def _finding_lines(finding: Finding, checkpoint_path: str, screen: Screen) -> Iterator[str]:
    color = screen.style.red if finding.level == "error" else screen.style.yellow
    where = visible(finding.path.removeprefix(f"{checkpoint_path}/"))
    what = visible(finding.message.removeprefix(f"{finding.path}: ").removesuffix(f" [{finding.rule}]"))
    if finding.tensor is not None and repr(finding.tensor) not in finding.message:
        what = f"tensor {visible(repr(finding.tensor))}: {what}"
    yield f"{GAP}{color(finding.rule)}{GAP}{finding.level}: {cut_end(where, screen.layout_width - 24)}"
    yield from (_INDENT + line for line in wrapped(what, screen.layout_width - len(_INDENT)))


def wrapped(text: str, width: int) -> list[str]:
    """Return a text broken at its spaces into lines of at most `width` columns; longer words are broken too."""
    lines = [""]
    for word in text.split(" "):
        if columns(lines[-1]) + 1 + columns(word) > width and lines[-1]:
            lines.append("")
        while columns(word) > width:
            lines[-1:] = [word[:width], ""]
            word = word[width:]
        lines[-1] += f" {word}" if lines[-1] else word
    return lines


def closing_lines(results: Sequence[Verified], failed_count: int) -> Iterator[str]:
    """Yield one line on all checkpoints together, where there are several."""
    if len(results) + failed_count < 2:
        return
    words = [verified.word for verified in results]
    counts = [(word, words.count(word)) for word in ("sound", "damaged", "incomplete", "unclean")]
    parts = [f"{count:,} {word}" for word, count in counts if count]
    parts += [f"{failed_count:,} could not be verified"] if failed_count else []
    yield ""
    kinds = [verified.kind for verified in results]
    what = count_text(len(results) + failed_count - sum(verified.is_journal for verified in results), "checkpoint")
    for kind, plural in (("progress", "progress"), ("study", "studies"), ("journal", "journals")):
        what += f", {count_text(kinds.count(kind), kind, plural)}" if kind in kinds else ""
    yield f"{what}: {', '.join(parts)}"


def verified_document(verified: Verified) -> dict[str, Any]:
    """Return one report as a JSON object. `ok` is whether there are no errors, `sound` whether the command accepts it."""
    report = verified.report
    return {
        "path": report.path,
        "kind": verified.kind,
        "ok": report.ok,
        "sound": verified.is_sound,
        "level": report.level,
        "verified_bytes": report.verified_bytes,
        "findings": [_finding_document(finding) for finding in verified.findings],
    }


def _finding_document(finding: Finding) -> dict[str, Any]:
    return {
        "rule": finding.rule,
        "level": finding.level,
        "path": finding.path,
        "tensor": finding.tensor,
        "expected": plain_value(finding.expected),
        "found": plain_value(finding.found),
        "message": finding.message,
    }
