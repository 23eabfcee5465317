"""MkDocs hooks of the documentation site: links that leave ``docs/``, and the public names."""

from __future__ import annotations

import ast
import re
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
DOCS = PROJECT / "docs"
REPOSITORY = "https://github.com/trtbuild/trtbuild/blob/main/"
_NAMES = re.compile(r"^@names (\S+)@$", re.MULTILINE)
_LINK = re.compile(r"\[([^\]]*)\]\((?!https?://|#)([^)#\s]+)((?:#[^)]*)?)\)")


def on_page_markdown(markdown: str, **_: object) -> str:
    """Return a page with links that work on the site, and docstrings in the place of ``@names FILE@``.

    A link to a folder, or to a file of the project outside ``docs/``, leads to the repository; a link to a
    gallery report that has not been made becomes plain text.

    Args:
        markdown: of the page.
    """
    listed = _NAMES.sub(lambda found: docstrings_of(PROJECT / found[1]), markdown)
    return _LINK.sub(_resolved, listed)


def docstrings_of(package: Path) -> str:
    """Return the mkdocstrings blocks of the public names that a package's file imports."""
    tree = ast.parse(package.read_text(encoding="utf-8"))
    names = sorted(
        {
            alias.asname or alias.name
            for node in tree.body
            if isinstance(node, ast.ImportFrom) and node.module != "__future__"
            for alias in node.names
        }
    )
    return "\n\n".join(
        f"::: {package.parent.name}.{name}\n    options:\n      heading_level: 3" for name in names
    )


def _resolved(found: re.Match[str]) -> str:
    text, target, anchor = found.groups()
    path = (DOCS / target).resolve()
    if path.parent == DOCS / "gallery" and not path.exists():
        return str(text)  # tools/write_gallery.py has not made it
    inside = path.is_relative_to(DOCS) and not path.is_dir()
    if inside or not path.exists():
        return found[0]
    return f"[{text}]({REPOSITORY}{path.relative_to(PROJECT).as_posix()}{anchor})"
