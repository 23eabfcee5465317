"""Make pictures of the head of a build's report, light and dark, like those of the README.

Usage: ``python tools/report_picture.py OUT [--height 900] [-- ENGINE ARGUMENT ...]``

Runs ``trtbuild engine`` with the arguments after ``--`` (by default, the quickstart sample), and writes
``OUT.webp`` and ``OUT-dark.webp``. Needs a Chromium.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from tools.browser import Browser, find_browser

__all__ = ["main"]

_WIDTH = 1200
_QUALITY = 88

_SAMPLE = Path("samples/quickstart")
_QUICKSTART = (
    *(str(_SAMPLE / "digits.onnx"), "--int8", "--data", str(_SAMPLE / "calibration.npz")),
    *("--preprocess", str(_SAMPLE / "digits.toml"), "--verify-data", str(_SAMPLE / "test.npz")),
    *("--labels", str(_SAMPLE / "test.npz"), "--max-top1-drop", "1"),
)


def main(words: list[str]) -> int:
    """Build, and write the pictures; return 0 if both are written."""
    place = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--height", type=int, default=900)
    given = parser.parse_args(words[:place])
    program = find_browser()
    if program is None:
        sys.stderr.write("a picture needs a browser: chromium or chrome.\n")
        return 3
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        # names in the temporary folder, which `_without` removes from the page
        own = ["-o", str(Path(folder) / "out"), "--report", str(page), "--quiet"]
        build = [sys.executable, "-m", "trtbuild", "engine", *(words[place + 1 :] or _QUICKSTART)]
        done = subprocess.run([*build, *own], check=False)
        if not page.is_file():
            return done.returncode or 1
        page.write_text(_without(page.read_text(encoding="utf-8"), folder), encoding="utf-8")
        with Browser(program) as browser:
            for dark in (False, True):
                browser.open(page, _WIDTH, dark=dark)
                _save(browser.picture(given.height), given.out, dark=dark)
    return 0


def _without(text: str, folder: str) -> str:
    """The page without the name of its temporary folder."""
    return text.replace(f" --output {folder}/out", "").replace(f"{folder}/", "")


def _save(picture: bytes, out: Path, *, dark: bool) -> None:
    path = out.with_name(f"{out.name}{'-dark' if dark else ''}.webp")
    Image.open(io.BytesIO(picture)).convert("RGB").save(path, quality=_QUALITY, method=6)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
