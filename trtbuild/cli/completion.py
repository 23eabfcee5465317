"""``trtbuild completion``: the script that lets a shell complete commands, options and their values."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from trtbuild.cli.help import SectionedCommand
from trtbuild.errors import InputError

__all__ = ["command"]

_SHELLS = ("bash", "zsh", "fish")


@click.command(
    "completion",
    cls=SectionedCommand,
    examples=(
        ("completion bash >> ~/.bash_completion", "for good, in bash"),
        ("completion zsh > ~/.zfunc/_trtbuild", "in zsh, with ~/.zfunc in fpath before compinit"),
        ("completion fish > ~/.config/fish/completions/trtbuild.fish", "in fish"),
    ),
)
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def command(ctx: click.Context, *, shell: str) -> None:
    """Print the script that completes trtbuild's commands, options and their values in SHELL."""
    kind = get_completion_class(shell)
    assert kind is not None
    try:
        click.echo(kind(ctx.find_root().command, {}, "trtbuild", "_TRTBUILD_COMPLETE").source())
    except (OSError, RuntimeError) as error:
        raise InputError(f"no script for {shell}: {error}.") from error
