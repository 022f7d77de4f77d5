"""A page taken apart: its elements, its texts, and everything in it that could fetch or run something."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

VOID = {"br", "input", "meta"}
FETCHING = {"src", "srcset", "href", "action", "formaction", "data", "poster", "background", "cite", "ping", "xlink:href", "manifest"}


class Page(HTMLParser):
    """Attributes: `tags` (in order), `attributes` (tag, name, value), `texts` by tag, `policy`, `style`."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[tuple[str, str]] = []
        self.policy = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open, f"not closed: {self._open}"

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        assert len({name for name, _ in attributes}) == len(attributes), f"<{tag}> has an attribute twice"
        self.attributes += [(tag, name, value or "") for name, value in attributes]
        values = dict(attributes)
        if values.get("http-equiv") == "Content-Security-Policy":
            self.policy = values["content"]
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self._open[-1] if self._open else "", data))

    def handle_comment(self, data):
        raise AssertionError(f"a comment: {data}")

    def text_of(self, *tags):
        return "".join(data for tag, data in self.texts if tag in tags)

    @property
    def text(self):
        return " ".join(data for tag, data in self.texts if tag != "style")

    @property
    def style(self):
        return self.text_of("style")


def check_is_inert(html: str) -> Page:
    """Prove what can be proved without a browser: nothing is fetched, nothing runs, and the policy says so."""
    page = Page(html)
    assert not {"script", "link", "iframe", "object", "embed", "base", "form", "img", "audio", "video", "use", "image"} & set(page.tags)
    assert page.tags.count("style") == 1
    for tag, name, value in page.attributes:
        assert not name.startswith("on"), (tag, name, value)
        assert name != "style", (tag, name, value)
        assert name not in FETCHING or re.fullmatch("#[a-z-]+", value), (tag, name, value)
    assert not re.search(r"url\(|@import|expression\(|https?:", page.style)
    digest = base64.b64encode(hashlib.sha256(page.style.encode()).digest()).decode()
    assert page.policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert page.attributes.index(("meta", "http-equiv", "Content-Security-Policy")) < page.attributes.index(("meta", "name", "viewport")), (
        "the policy has to come before what it binds"
    )
    assert all(character.isprintable() or character == "\n" for character in html)
    return page
