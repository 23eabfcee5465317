"""The output of ``--help``: the essential options with examples; ``--help-all`` shows all options."""

from __future__ import annotations

import shutil
from collections import Counter
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = [
    "HELP_NAMES",
    "ListingGroup",
    "SectionedCommand",
    "SectionedOption",
    "help_all_option",
    "shows_all",
    "wide_as_the_terminal",
]

HELP_NAMES = ["-h", "--help"]

# A command with fewer options than this shows all of them at once.
_FEW = 24
_WIDEST = 120
# Longest first sentence, in characters: longer than any.
_SENTENCE = 1000


class SectionedOption(click.Option):
    """An option with its section in the help text, and whether most users need it."""

    def __init__(
        self, *args: Any, section: str = "", essential: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.section = section
        self.essential = essential


class ListingGroup(click.Group):
    """A group whose help shows the whole first sentence of each command, which click would shorten.

    Args:
        examples: command lines and what they do, shown after the description.
    """

    def __init__(self, *args: Any, examples: Sequence[tuple[str, str]] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._examples = examples
        self.params.append(help_all_option("Show every option of every command and exit."))

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the description, then the examples."""
        super().format_help_text(ctx, formatter)
        _write_examples(formatter, self._examples)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands, sorted by name."""
        commands = {name: self.commands[name] for name in self.list_commands(ctx)}
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, one.get_short_help_str(limit=_SENTENCE)) for name, one in commands.items()]
            )


class SectionedCommand(click.Command):
    """A command whose help shows its options in sections.

    Args:
        examples: command lines and what they do, shown after the description.
    """

    def __init__(self, *args: Any, examples: Sequence[tuple[str, str]] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._examples = examples
        # short commands, whose --help shows every option, accept it too: so it works with every command
        self.params.append(help_all_option("Show every option and exit.", hidden=not self._is_long))

    @property
    def _is_long(self) -> bool:
        options = [one.name for one in self.params if isinstance(one, click.Option)]
        return sum(name != "help_all" for name in options) >= _FEW

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the description, then the examples."""
        super().format_help_text(ctx, formatter)
        _write_examples(formatter, self._examples)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options without a section first, then each section."""
        sections: dict[str, list[tuple[str, str]]] = {"": []}
        hidden: Counter[str] = Counter()
        for option in self._options(ctx):
            record = option.get_help_record(ctx)
            title = getattr(option, "section", "")
            if record is None:
                continue
            if self._is_long and not shows_all(ctx) and not getattr(option, "essential", True):
                hidden[title] += 1
            else:
                sections.setdefault(title, []).append(record)
        for title, records in sections.items():
            if records:
                with formatter.section(title or "Options"):
                    formatter.write_dl(records)
        if hidden:
            rest = ", ".join(f"{title or 'general'} {count}" for title, count in hidden.items())
            formatter.write_paragraph()
            formatter.write_text(f"{hidden.total()} more with --help-all: {rest}.")

    def _options(self, ctx: click.Context) -> Iterator[click.Option]:
        return (one for one in self.get_params(ctx) if isinstance(one, click.Option))


def _write_examples(formatter: click.HelpFormatter, examples: Sequence[tuple[str, str]]) -> None:
    if examples:
        with formatter.section("Examples"):
            for line, purpose in examples:
                formatter.write(f"{'':>{formatter.current_indent}}# {purpose}\n")
                formatter.write(f"{'':>{formatter.current_indent}}trtbuild {line}\n")


_ALL = "trtbuild.help_all"


def shows_all(ctx: click.Context) -> bool:
    """Whether the help that is being written was asked for with ``--help-all``."""
    return bool(ctx.meta.get(_ALL))


def help_all_option(text: str, *, hidden: bool = False) -> click.Option:
    """Return the option ``--help-all``; of a group, it writes the help of all its commands, too."""
    return click.Option(
        ["--help-all"], is_flag=True, is_eager=True, expose_value=False, callback=_show_all,
        help=text, hidden=hidden,
    )  # fmt: skip


def _show_all(ctx: click.Context, option: click.Parameter, value: bool) -> None:
    del option
    if value and not ctx.resilient_parsing:
        ctx.meta[_ALL] = True
        click.echo("\n\n".join(_whole_help(ctx)), color=ctx.color)
        ctx.exit()


def _whole_help(ctx: click.Context) -> Iterator[str]:
    yield ctx.get_help()
    group = ctx.command
    if isinstance(group, click.Group):
        for name in group.list_commands(ctx):
            command = group.get_command(ctx, name)
            assert command is not None
            with click.Context(command, info_name=name, parent=ctx) as inner:
                yield from _whole_help(inner)


def wide_as_the_terminal() -> dict[str, Any]:
    """Return click settings that make help as wide as the terminal, up to a readable width."""
    columns = shutil.get_terminal_size().columns
    return {"help_option_names": HELP_NAMES, "max_content_width": min(columns, _WIDEST)}
