"""A real browser, where the machine has one: it shows a page as a reader sees it and tells what the page tried to do.

It speaks the DevTools protocol through two pipes, so nothing has to be installed. https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PATIENCE_SECONDS = 30
FLAGS = "--headless=new --no-sandbox --disable-gpu --no-first-run --disable-dev-shm-usage --hide-scrollbars --remote-debugging-pipe".split()


def find_browser() -> str | None:
    """Return the path of a browser that speaks the protocol."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One browser with one page. Attributes: `complaints` (console and policy), `requests` (addresses that were asked for)."""

    def __init__(self, program: str, profile: Path) -> None:
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        # The protocol wants its pipes as descriptors 3 and 4.
        command = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
        arguments = ["bash", "-c", command, "browser", program, *FLAGS, f"--user-data-dir={profile}"]
        self._process = subprocess.Popen(arguments, pass_fds=(theirs_in, theirs_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(theirs_in)
        os.close(theirs_out)
        self._rest = b""
        self._count = 0
        self._session: str | None = None
        self._loaded = False
        self.complaints: list[str] = []
        self.requests: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._out)
        try:
            self._process.wait(timeout=PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._in)

    def call(self, method: str, **parameters: object) -> dict:
        """Ask for something and return the answer."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._count:
                assert "error" not in answer, answer
                return answer["result"]

    def show(self, path: Path, *, width: int, is_dark: bool, media: str = "") -> None:
        """Load a page as a screen of this width shows it."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600)
        features = [{"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}]
        self.call("Emulation.setEmulatedMedia", media=media, features=features)
        self._loaded = False
        self.call("Page.navigate", url=path.as_uri())
        while not self._loaded:
            self._next()

    def value(self, expression: str) -> object:
        """Return what an expression of JavaScript gives; the page's own policy does not bind us."""
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def screenshot(self, *, is_whole: bool = True) -> bytes:
        """Return the page as PNG, or only its corner."""
        corner = {} if is_whole else {"clip": {"x": 0, "y": 0, "width": 8, "height": 8, "scale": 1}}
        return base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=is_whole, **corner)["data"])

    def _next(self) -> dict:
        until = time.monotonic() + PATIENCE_SECONDS
        while b"\0" not in self._rest:
            assert select.select([self._in], [], [], max(until - time.monotonic(), 0))[0], "the browser does not answer"
            self._rest += os.read(self._in, 1 << 20)
        text, _, self._rest = self._rest.partition(b"\0")
        message = json.loads(text)
        parameters = message.get("params", {})
        if message.get("method") == "Page.loadEventFired":
            self._loaded = True
        elif message.get("method") == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif message.get("method") == "Log.entryAdded":
            self.complaints.append(parameters["entry"]["text"])
        elif message.get("method") in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Page.javascriptDialogOpening"):
            self.complaints.append(json.dumps(parameters))
        return message
