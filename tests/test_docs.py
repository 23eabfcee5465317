"""The documents hold: links lead somewhere, and the README names every command."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from trtbuild.cli.main import _COMMANDS

PROJECT = Path(__file__).resolve().parent.parent
PAGES = sorted([*PROJECT.glob("*.md"), *PROJECT.glob("docs/*.md"), *PROJECT.glob("samples/*/*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_links_lead_to_files(page):
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (page.parent / link).exists()] == []


def test_the_readme_names_every_command():
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    assert [name for name in _COMMANDS if not re.search(rf"`trtbuild {name}\b", readme)] == []
