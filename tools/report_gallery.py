"""Make the reports of several networks and a page with links to them, to see how reports look.

Usage: ``python tools/report_gallery.py FOLDER OUT [NAME ...] [-- OPTION ...]``

Builds every ``NAME.onnx`` in FOLDER with ``NAME_calib.npz`` and ``NAME_eval.npz`` beside it by
``trtbuild engine NAME.onnx --int8``; arguments after ``--``, such as ``--min-agreement 95``, go to each
build.
"""

from __future__ import annotations

import html
import json
import subprocess
import sys
from pathlib import Path

__all__ = ["main"]

_STYLE = (
    ":root { color-scheme: light dark } body { font: 16px/1.6 system-ui, sans-serif; margin: 2rem auto; "
    "max-width: 46rem; padding: 0 1rem }"
)


def main(words: list[str]) -> int:
    """Build each network; return 0 if each wrote a report."""
    own, _, options = (words, "", []) if "--" not in words else _split(words)
    folder, out, *wanted = own
    names = [
        path.stem
        for path in sorted(Path(folder).glob("*.onnx"))
        if all(_data(path, what).is_file() for what in ("calib", "eval"))
    ]
    target = Path(out)
    target.mkdir(parents=True, exist_ok=True)
    rows = [_built(Path(folder) / f"{name}.onnx", target, options) for name in wanted or names]
    items = "\n".join(f"<li>{row}</li>" for row in rows if row)
    page = f"<!doctype html><meta charset=utf-8><title>Reports</title><style>{_STYLE}</style>"
    (target / "index.html").write_text(
        f"{page}<h1>Reports</h1><ul>\n{items}\n</ul>\n", encoding="utf-8"
    )
    return 0 if all(rows) else 1


def _split(words: list[str]) -> tuple[list[str], str, list[str]]:
    place = words.index("--")
    return words[:place], "--", words[place + 1 :]


def _data(model: Path, what: str) -> Path:
    return model.with_name(f"{model.stem}_{what}.npz")


def _built(model: Path, target: Path, options: list[str]) -> str:
    """Build a network; return the line that links to its report, or nothing."""
    page = target / f"{model.stem}.html"
    data = ["--data", str(_data(model, "calib")), "--verify-data", str(_data(model, "eval"))]
    kept = ["-o", str(target / model.stem), "--report", str(page), "--json"]
    command = [
        sys.executable,
        "-m",
        "trtbuild",
        "engine",
        str(model),
        "--int8",
        *data,
        *kept,
        *options,
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if not page.is_file():
        return ""
    ruling = json.loads(done.stdout)["ruling"]
    text = f"{model.stem}: {ruling['word']}. {ruling['why']}"
    return f'<a href="{html.escape(page.name)}">{html.escape(text)}</a>'


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
