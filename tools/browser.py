"""A page in a real headless browser: a picture, its width, and its console warnings.

Usage: ``python tools/browser.py PAGE PICTURE.png [--width 1200] [--height 0] [--dark] [--scale 1]``

Speaks Chrome's DevTools protocol through pipes, so it needs only a Chromium. A height of 0 means the whole
page.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

__all__ = ["Browser", "find_browser"]

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "chrome")
_FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run")
_PATIENCE_S = 60.0

# The protocol requires descriptors 3 and 4 for the pipes.
_START = """import os, sys
for given, at in zip(sys.argv[1:3], (60, 61)):
    os.dup2(int(given), at)
os.dup2(60, 3)
os.dup2(61, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


def find_browser() -> str | None:
    """Return the path of a browser; None where none is installed."""
    return next((found for name in _PROGRAMS if (found := shutil.which(name))), None)


class Browser:
    """A browser with one page; a context manager.

    Args:
        program: path of the browser.

    Attributes:
        complaints: warnings and errors on the console, and uncaught exceptions.
    """

    def __init__(self, program: str) -> None:
        self.complaints: list[str] = []
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        read_by_it, self._to = os.pipe()
        self._from, written_by_it = os.pipe()
        given = [str(read_by_it), str(written_by_it)]
        words = [*_FLAGS, "--remote-debugging-pipe", f"--user-data-dir={self._folder.name}"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, *given, program, *words, "about:blank"],
            pass_fds=(read_by_it, written_by_it),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_by_it)
        os.close(written_by_it)
        self._number, self._session, self._waiting = 0, "", b""
        self._events: list[dict[str, Any]] = []

    def __enter__(self) -> Browser:
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(one["targetId"] for one in targets if one["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=page, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *given: object) -> None:
        self._session = ""
        try:
            self.call("Browser.close")
            self._process.wait(10)
        except (OSError, EOFError, TimeoutError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        os.close(self._to)
        os.close(self._from)
        self._folder.cleanup()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Return the browser's answer.

        Raises:
            RuntimeError: the answer is an error.
            EOFError: the browser has ended.
            TimeoutError: no answer within a minute.
        """
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                found: dict[str, Any] = answer["result"]
                return found

    def open(self, page: Path, width: int, height: int = 900, *, dark: bool = False) -> None:
        """Load a file into a window of `width` and `height` pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self._events.clear()
        self.call("Page.navigate", url=page.resolve().as_uri())
        while not any(one["method"] == "Page.loadEventFired" for one in self._events):
            self._next()

    def value(self, expression: str) -> Any:
        """Return the value of a JavaScript expression of JSON types.

        Raises:
            RuntimeError: the expression raises an error.
        """
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in found:
            raise RuntimeError(str(found["exceptionDetails"]))
        return found["result"].get("value")

    def picture(self, height: int = 0, scale: float = 1.0) -> bytes:
        """Return a PNG of the upper `height` pixels of the page; of the whole page for 0."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {
            "x": 0,
            "y": 0,
            "width": size["width"],
            "height": height or size["height"],
            "scale": scale,
        }
        found = self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        return base64.b64decode(found["data"])

    def _next(self) -> dict[str, Any]:
        """The next message; events are kept, and complaints recorded."""
        end = time.monotonic() + _PATIENCE_S
        while b"\0" not in self._waiting:
            block = os.read(self._from, 1 << 20)
            if not block:
                raise EOFError("the browser has ended.")
            self._waiting += block
            if time.monotonic() > end:
                raise TimeoutError("the browser does not answer.")
        text, _, self._waiting = self._waiting.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        if "method" in message:
            self._events.append(message)
            self._note(message["method"], message.get("params", {}))
        return message

    def _note(self, method: str, given: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.complaints.append(str(given["exceptionDetails"].get("exception", given)))
        elif method == "Runtime.consoleAPICalled" and given["type"] in ("error", "warning"):
            self.complaints.append(str(given["args"]))
        elif method == "Log.entryAdded" and given["entry"]["level"] in ("error", "warning"):
            self.complaints.append(str(given["entry"]["text"]))


def main(words: list[str]) -> int:
    """Write a picture of a page; return 0 if it has no complaints and is no wider than its window."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("page", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--width", type=int, default=1200)
    parser.add_argument("--height", type=int, default=0)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--dark", action="store_true")
    given = parser.parse_args(words)
    program = find_browser()
    if program is None:
        sys.stderr.write(f"no browser is installed; one of {', '.join(_PROGRAMS)} would do.\n")
        return 3
    with Browser(program) as browser:
        browser.open(given.page, given.width, dark=given.dark)
        given.picture.write_bytes(browser.picture(given.height, given.scale))
        too_wide = browser.value("document.documentElement.scrollWidth") - given.width
        found = [*browser.complaints, *([f"{too_wide} pixels too wide"] if too_wide > 0 else [])]
    for complaint in found:
        sys.stderr.write(f"{complaint}\n")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
