"""What tests of `ckpt-inspect` share."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ckpt_inspect.main import main


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """Run `ckpt-inspect` into a pipe, and return its exit status and what it wrote to both streams."""
    monkeypatch.delenv("COLUMNS", raising=False)

    def run(*arguments: str) -> tuple[int, str, str]:
        status = main(arguments)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run
