"""The page of `ckpt-inspect report` as a reader sees it: in a browser where the machine has one, by what can be proved where not."""

from __future__ import annotations

import math
import struct
import zlib

import pytest

import ckptfmt
from ckpt_inspect.main import main
from tests.unit.browser import Browser, find_browser
from tests.unit.page import check_is_inert

HOSTILE = "<script>alert(1)</script>\u202e"


@pytest.fixture
def page_path(tmp_path):
    with ckptfmt.Run(tmp_path / f"run {HOSTILE.replace('/', '_')}", durable=False) as run:
        for step in range(1, 500):
            run.log(step, {"train.loss": 1 / step, "grad.norm": math.nan if step == 77 else 1e4 / step, "n" * 490: 1.0 * step})
        run.save(500, {"x": 1}, metrics={"val.loss": 0.1, "a-metric-with-a-very-long-name-that-fits-nowhere": 1.0})
        progress = run.progress("p" * 64, total=3)
        for key in list(progress.pending(range(2))):
            progress.done(key)
        path = run.path
    target = tmp_path / "page.html"
    assert main(["report", path, "-o", str(target)]) == 0
    return target


def top_left_pixel(png: bytes) -> tuple[int, int, int]:
    """Read the first pixel of a PNG of 8 bits: no filter changes it. https://www.w3.org/TR/png/"""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    position, data = 8, b""
    while position < len(png):
        (size,) = struct.unpack(">I", png[position : position + 4])
        if png[position + 4 : position + 8] == b"IDAT":
            data += png[position + 8 : position + 8 + size]
        position += 12 + size
    return tuple(zlib.decompress(data)[1:4])


def prove(page_path, tmp_path, program):
    """Prove that the page is inert; with a browser also that it looks right in both widths and both colours, and that its switch works."""
    check_is_inert(page_path.read_text("utf-8"))
    if program is None:
        return
    with Browser(program, tmp_path / "profile") as browser:
        for width in (390, 1280):
            for is_dark in (False, True):
                browser.show(page_path, width=width, is_dark=is_dark)
                assert browser.value("document.documentElement.scrollWidth") == width, "the page is wider than the screen"
                brightness = sum(top_left_pixel(browser.screenshot(is_whole=False)))
                assert brightness < 150 if is_dark else brightness > 700
        heights = "[...f.querySelectorAll('.plot')].map(p => p.getBoundingClientRect().height > 50)"
        shown = "[...document.querySelectorAll('figure')].map(f => " + heights + ")"
        before = browser.value(shown)
        browser.value("document.querySelector('label[for=scale-log]').click()")
        after = browser.value(shown)
        assert [one for one in before if len(one) == 2] == [[True, False]] * 3
        assert [one for one in after if len(one) == 2] == [[False, True]] * 3
        inked = browser.value("getComputedStyle(document.querySelector('.line')).stroke")
        assert inked not in ("none", "rgb(0, 0, 0)"), "the style sheet does not apply"
        browser.show(page_path, width=1280, is_dark=True, media="print")
        assert sum(top_left_pixel(browser.screenshot(is_whole=False))) > 700, "paper is white"
        assert browser.complaints == []
        assert set(browser.requests) == {page_path.as_uri()}


def test_the_page_looks_right_and_does_nothing(page_path, tmp_path):
    prove(page_path, tmp_path, find_browser())


def test_without_a_browser_the_rest_is_proved(page_path, tmp_path):
    prove(page_path, tmp_path, None)


def test_a_page_that_could_do_something_is_caught(page_path):
    html = page_path.read_text("utf-8")
    for hole in ("<script>1</script>", "<p onclick=x>x</p>", '<a href="https://x">x</a>', "<p style='x'>x</p>", "<p>", "<img>"):
        with pytest.raises((AssertionError, IndexError)):
            check_is_inert(html.replace("<main>", f"<main>{hole}"))
