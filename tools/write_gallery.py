"""Make the reports of docs/gallery.md, for the documentation site: ``python tools/write_gallery.py``.

They are made from the quickstart's network and go into ``docs/gallery/``, which git ignores; takes a minute.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

from trtbuild.cli.main import run
from trtbuild.files import make_directory

PROJECT = Path(__file__).resolve().parent.parent
SAMPLE = PROJECT / "samples" / "quickstart"
FOLDER = PROJECT / "docs" / "gallery"


def main() -> int:
    """Write every report."""
    make_directory(FOLDER)
    with tempfile.TemporaryDirectory() as name:
        room = Path(name)
        run(["demo", "-o", str(room / "demo"), "-q"])
        (room / "demo" / "report.html").replace(FOLDER / "mended.html")
        unequal = room / "demo" / "unequal.onnx"
        limit = ["--max-top1-drop", "1"]
        _engine(room, "broken", unequal, [*limit, "--calibrator", "entropy", "--no-tune"])
        test = np.load(SAMPLE / "test.npz")
        np.savez(room / "few.npz", image=test["image"][:20], label=test["label"][:20])
        _engine(room, "few", SAMPLE / "digits.onnx", limit, room / "few.npz")
        _engine(room, "unjudged", SAMPLE / "digits.onnx", [])
    return 0


def _engine(
    room: Path, name: str, model: Path, options: list[str], test: Path = SAMPLE / "test.npz"
) -> None:
    data = ["--data", str(SAMPLE / "calibration.npz"), "--preprocess", str(SAMPLE / "digits.toml")]
    judged = ["--verify-data", str(test), "--labels", str(test)]
    report = ["--report", str(FOLDER / f"{name}.html"), "-o", str(room / name), "-q"]
    run(["engine", str(model), "--int8", *data, *judged, *options, *report])


if __name__ == "__main__":
    sys.exit(main())
