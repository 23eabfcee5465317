"""Help: the essentials first, everything on request, examples that parse, near names, completion."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys

import click
import pytest

from tests.command import trtbuild
from trtbuild.cli import main
from trtbuild.cli.help import SectionedCommand

ENTRIES = list(main._COMMANDS)


def _commands():
    for name in ENTRIES:
        command = importlib.import_module(f"trtbuild.cli.{name.replace('-', '_')}").command
        yield (name, command)
        for inner, one in getattr(command, "commands", {}).items():
            yield (f"{name} {inner}", one)


COMMANDS = dict(_commands())
EXAMPLES = [
    pytest.param(name, line, id=line)
    for name, command in COMMANDS.items()
    for line, _ in getattr(command, "_examples", ())
]


def test_long_help_shows_the_essentials_and_says_what_else_there_is(capsys) -> None:
    short = trtbuild(capsys, "engine", "--help").out
    everything = trtbuild(capsys, "engine", "--help-all").out
    assert "--data" in short
    assert "--min-sqnr" in short
    assert "--build-route" not in short
    assert re.search(r"\d+ more with --help-all: .*TensorRT \d+", " ".join(short.split()))
    options = {o for p in COMMANDS["engine"].params for o in p.opts if o.startswith("--")}
    assert options <= set(re.findall(r"--[\w-]+", everything))


def test_a_command_of_few_options_shows_them_all(capsys) -> None:
    text = trtbuild(capsys, "optimize", "--help").out
    assert "--help-all" not in text
    shown = [p for p in COMMANDS["optimize"].params if not getattr(p, "hidden", False)]
    options = {o for p in shown for o in p.opts if o.startswith("--")}
    assert options <= set(re.findall(r"--[\w-]+", text))


@pytest.mark.parametrize(
    "name", [n for n, c in COMMANDS.items() if isinstance(c, SectionedCommand)]
)
def test_what_may_be_left_out_is_counted(name, capsys) -> None:
    text = trtbuild(capsys, *name.split(), "--help").out
    found = re.search(r"(\d+) more with --help-all", text)
    parameters = [p for p in COMMANDS[name].params if isinstance(p, click.Option) and not p.hidden]
    shown = sum(any(re.search(rf"(^|\s){o}\b", text) for o in p.opts) for p in parameters)
    assert shown + (int(found[1]) if found else 0) >= len(parameters)


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_every_command_and_group_shows_all_its_options_on_request(name, capsys) -> None:
    told = trtbuild(capsys, *name.split(), "--help-all")
    assert told.code == 0
    below = [
        command
        for inner, command in COMMANDS.items()
        if f"{inner} ".startswith(f"{name} ".lstrip())
    ]
    options = [p for c in below for p in c.params if isinstance(p, click.Option) and not p.hidden]
    assert {p.opts[0] for p in options} <= set(re.findall(r"--?[\w-]+", told.out))


def test_a_group_writes_the_help_of_each_of_its_commands_once(capsys) -> None:
    for group in ("cache", "calibrate"):
        told = trtbuild(capsys, group, "--help-all").out
        for inner in COMMANDS[group].commands:
            assert told.count(f"Usage: trtbuild {group} {inner} [OPTIONS]") == 1
        assert told.count("--json ") == len(COMMANDS[group].commands)


@pytest.mark.parametrize(("name", "line"), EXAMPLES)
def test_every_example_is_a_command_line_that_parses(name, line, capsys) -> None:
    words = line.split(">")[0].split()
    assert words[0] in ENTRIES
    context = main._group.make_context("trtbuild", list(words))
    _, command, rest = main._group.resolve_command(context, list(words))
    command.make_context(words[0], rest, parent=context)


@pytest.mark.parametrize("name", ["cache", "calibrate"])
def test_what_a_group_says_of_its_commands_is_not_cut_off(name, capsys) -> None:
    listed = trtbuild(capsys, name, "--help").out.rpartition("Commands:")[2]
    assert "..." not in listed
    words = " ".join(listed.split())
    for command in COMMANDS[name].commands.values():
        assert " ".join(command.help.split("\n\n")[0].split()) in words


def test_help_of_calibrate_lists_its_options(capsys) -> None:
    text = trtbuild(capsys, "calibrate", "--help").out
    assert "--calibrator" in text
    assert "merge" in text


@pytest.mark.parametrize("name", ["advise", "check", "diff", "export", "fleet"])
def test_help_promises_no_plots_of_a_page_that_has_none(name, capsys) -> None:
    told = " ".join(trtbuild(capsys, name, "--help-all").out.split())
    said = told[told.index(" --report ") :].partition(" --json ")[0]
    assert "HTML page" in said
    assert "plot" not in said


def test_help_is_as_wide_as_the_terminal() -> None:
    code = "from trtbuild.cli.main import run; run(['verify', '--help'])"
    widths = {}
    for columns in (80, 110):
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "COLUMNS": str(columns)},
        )
        widths[columns] = max(map(len, done.stdout.splitlines()))
    assert 80 < widths[110] <= 110


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (("engin",), "'engine'"),
        (("verify", "--min-sqn", "3"), "--min-sqnr"),
    ],
)
def test_the_nearest_name_is_suggested(words, near, capsys) -> None:
    done = trtbuild(capsys, *words)
    assert done.code == 2
    assert near in done.err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(shell, capsys) -> None:
    done = trtbuild(capsys, "completion", shell)
    assert done.code == 0
    assert f"_TRTBUILD_COMPLETE={shell}_complete" in done.out


def test_options_complete(monkeypatch) -> None:
    code = "from trtbuild.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "_TRTBUILD_COMPLETE": "bash_complete",
            "COMP_WORDS": "trtbuild engine --min-sq",
            "COMP_CWORD": "2",
        },
    )
    assert done.stdout.split() == ["plain,--min-sqnr"]
    assert (done.returncode, done.stderr) == (0, "")  # any output would appear in the user's line


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("engine --effort h", ["plain,high"]),
        ("quantize --target rtx", ["plain,rtx", "plain,rtx-turing"]),
        ("engine --labels im", ["file,im"]),
        ("engine --data im", ["file,im"]),
        ("engine ne", ["file,ne"]),
    ],
)
def test_values_complete(line, found, monkeypatch, capsys) -> None:
    monkeypatch.setenv("_TRTBUILD_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", f"trtbuild {line}")
    monkeypatch.setenv("COMP_CWORD", f"{len(line.split())}")
    assert trtbuild(capsys).out.split() == found
