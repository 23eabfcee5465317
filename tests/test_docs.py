"""The documents are correct: links, options of command lines, and the commands in the README."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import click
import pytest

from trtbuild.cli.main import _COMMANDS

PROJECT = Path(__file__).resolve().parent.parent
PAGES = sorted([*PROJECT.glob("*.md"), *PROJECT.glob("docs/*.md"), *PROJECT.glob("samples/*/*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_links_lead_to_files(page):
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    local = [link for link in links if "://" not in link]
    made = PROJECT / "docs" / "gallery"  # made by tools/write_gallery.py, for the site
    gone = [link for link in local if not (page.parent / link).exists()]
    assert [link for link in gone if (page.parent / link).parent != made] == []


def anchors_of(page):
    """The anchors of a page: every heading, as GitHub and MkDocs write them."""
    text = re.sub(
        r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", one.lower()).strip().replace(" ", "-") for one in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_links_lead_to_headings(page):
    links = re.findall(r"\]\(([^)#\s]*)#([^)\s]+)\)", page.read_text(encoding="utf-8"))
    local = [(name, anchor) for name, anchor in links if "://" not in name]
    gone = [
        (name, anchor)
        for name, anchor in local
        if anchor not in anchors_of(page.parent / name if name else page)
    ]
    assert gone == []


def test_the_readme_names_every_command():
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    assert [name for name in _COMMANDS if not re.search(rf"`trtbuild {name}\b", readme)] == []


def command_lines(text):
    """All calls of trtbuild in code blocks and in code within sentences."""
    joined = text.replace("\\\n", " ")
    blocks = re.findall(r"^ *(?:\$ )?(trtbuild [a-z].*)$", joined, re.MULTILINE)
    return blocks + re.findall(r"`(trtbuild [a-z][^`]*)`", joined)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_every_command_line_has_options_that_there_are(page):
    unknown = []
    for line in command_lines(page.read_text(encoding="utf-8")):
        words = shlex.split(line.replace("<", "").replace("|", " "), comments=True)[1:]
        if words[0] not in _COMMANDS:
            continue  # a sentence: `trtbuild is ...`
        module = importlib.import_module(f"trtbuild.cli.{words[0].replace('-', '_')}")
        command = module.command
        known = {"--help", "--help-all", "-h"}
        inside = getattr(command, "commands", {})
        inner = inside.get(words[1] if len(words) > 1 else "", inside.get("run"))
        for one in (inner or command).params:
            known |= {*one.opts, *one.secondary_opts}
        given = [word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)]
        unknown += [(line, word) for word in given if word not in known]
    assert unknown == []


# Options of other programs, in command lines of the pages.
OF_OTHERS = {
    *("--extra-index-url", "--index-url", "--no-deps", "--system-site-packages"),  # pip and venv
    *("--build-arg", "--gpus", "--rm", "--model-repository"),  # docker and Triton
    *("--calib", "--exportLayerInfo", "--exportProfile", "--stronglyTyped"),  # trtexec
    *("--hypothesis-profile", "--hypothesis-seed"),  # pytest
}


def options_of(name):
    """The options of a command and of those below it."""
    command = importlib.import_module(f"trtbuild.cli.{name.replace('-', '_')}").command
    return {
        flag
        for one in (command, *getattr(command, "commands", {}).values())
        for parameter in one.get_params(click.Context(one))
        for flag in (*parameter.opts, *parameter.secondary_opts)
    }


def test_options_that_pages_name_in_sentences_are_there():
    scripts = [PROJECT / "trtbuild" / "pytest_plugin.py", *PROJECT.glob("samples/*/*.py")]
    scripts += PROJECT.glob("benchmarks/*.py")
    theirs = " ".join(path.read_text(encoding="utf-8") for path in scripts)
    known = OF_OTHERS.union(*(options_of(name) for name in _COMMANDS))
    unknown = [
        (page.name, flag)
        for page in PAGES
        for flag in re.findall(r"(?<![\w-])--[a-z][\w-]+", page.read_text(encoding="utf-8"))
        if flag not in known and f'"{flag}"' not in theirs
    ]
    assert unknown == []
