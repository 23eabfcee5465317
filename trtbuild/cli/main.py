"""``trtbuild``: finds the command, and turns errors into one sentence and an exit code.

0 done, 1 a limit failed, 2 the input is wrong, 3 something needed is not installed, 4 a bug of ours,
5 CANNOT TELL with ``--strict``, 130 interrupted, 141 nobody reads the output, 143, 129 or 137
ended by SIGTERM, SIGHUP or SIGKILL.
"""

from __future__ import annotations

import contextlib
import difflib
import gc
import importlib
import os
import sys
import traceback
from typing import TYPE_CHECKING

import click

from trtbuild.cli.apart import go_on_apart
from trtbuild.cli.failure import BUG, WRONG_INPUT, Failure, complain
from trtbuild.cli.help import help_all_option, wide_as_the_terminal
from trtbuild.cli.output import Answered
from trtbuild.cli.signals import Terminated, runs_end_on_signals, signals_raised
from trtbuild.cli.warning_lines import warnings_shown
from trtbuild.errors import InputError, TrtbuildError, in_one_tree

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

__all__ = ["main"]

INTERRUPTED = 130
UNREAD = 141

# The scripts of `trtbuild completion` set this while a shell asks for completions.
_COMPLETING = "_TRTBUILD_COMPLETE"

# Command -> its line in the overview. Its module is imported when the command is called.
_COMMANDS = {
    "engine": "Build a verified INT8 engine from a float network: the whole job.",
    "fleet": "Build one network for several targets, with one calibration and one table.",
    "demo": "Show in a minute how a build repairs a broken INT8 network; needs no files.",
    "init": "Write a recipe file for `engine`, with every option to fill in.",
    "rebuild": "Repeat the build that a manifest records, and report what differs.",
    "export": "Make a checked ONNX file from a PyTorch module.",
    "prune": "Remove channels of a PyTorch module.",
    "compress": "Prune and train a PyTorch module in rounds, and build it in INT8, within limits.",
    "tune": "Train a PyTorch module, pruned or not, with your training function, and save it.",
    "qat": "Train a PyTorch module with TensorRT's rounding simulated, and write its Q/DQ network.",
    "optimize": "Run graph passes over an ONNX file.",
    "calibrate": "Find the range of every tensor that will be INT8.",
    "advise": "Find near-duplicates and outliers in calibration data, and a subset that suffices.",
    "quantize": "Write the explicit Q/DQ network from ranges.",
    "check": "Say whether TensorRT accepts a network, and what to do about each node that it rejects.",
    "verify": "Compare an engine with its float network: metrics, limits, and the layers at fault.",
    "bench": "Time an engine, alone, against another, or against a baseline.",
    "diff": "Compare two engines of one model, node by node: precision, ranges, kernels, time, size.",
    "crosscheck": "Compare the thresholds of two calibrations, of any origin.",
    "cache": "Show, compare and convert TensorRT calibration caches.",
    "export-triton": "Write an engine into a Triton model repository, with its config.pbtxt.",
    "inspect": "Print the precision that each layer of a TensorRT engine runs in, and why.",
    "doctor": "Report what trtbuild can use on this machine, and how to fix the rest.",
    "completion": "Print the script that completes commands and options in a shell.",
}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands, in the order of the overview."""
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import a command; None if there is none of that name."""
        del ctx
        if name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(
            f"trtbuild.cli.{name.replace('-', '_')}"
        ).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command of a command line, and suggest the nearest name if it is unknown."""
        name = args[0]
        near = difflib.get_close_matches(name, _COMMANDS, n=1)
        if name not in _COMMANDS and near and not ctx.resilient_parsing:
            ctx.fail(f"No such command '{name}'. Did you mean '{near[0]}'?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the overview without importing the commands."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(cls=_LazyGroup, context_settings=wide_as_the_terminal())
@click.version_option(package_name="trtbuild", message="trtbuild %(version)s")
def _group() -> None:
    """Build, calibrate and verify INT8 engines for NVIDIA TensorRT 10 and 11, and TensorRT for RTX.

    Exit codes: 0 done, 1 a limit failed, 2 the input is wrong, 3 something needed is not installed,
    4 a bug of trtbuild, 5 CANNOT TELL with --strict, 130 interrupted, 141 nobody reads the output,
    143, 129 or 137 ended by SIGTERM, SIGHUP or SIGKILL.
    """


_group.params.append(help_all_option("Show every option of every command and exit."))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return the exit code; messages go to standard error."""
    answered = Answered("--json" not in (sys.argv[1:] if arguments is None else arguments))
    try:
        with signals_raised(), runs_end_on_signals(), warnings_shown(), in_one_tree():
            answer = _group.main(
                args=arguments, prog_name="trtbuild", standalone_mode=False, obj=answered
            )
    except (Terminated, click.Abort, KeyboardInterrupt) as error:
        return _stopped(error)
    except click.ClickException as error:
        with contextlib.suppress(OSError):
            error.show()
        failure = Failure("UsageError", error.format_message(), WRONG_INPUT)
        return failure.record(as_json=not answered.in_json)
    except BaseException as error:  # noqa: BLE001 - everything else ends here
        return _failed(error, as_json=not answered.in_json)
    return answer if isinstance(answer, int) else 0


def _failed(error: BaseException, *, as_json: bool) -> int:
    """Report an error, and return the exit code."""
    asked = _asked_to_stop(error)
    if asked is not None:
        return _stopped(asked)
    if _is_unread(error):
        return UNREAD
    if isinstance(error, SystemExit) and _COMPLETING in os.environ:
        return error.code if isinstance(error.code, int) else 0  # Click ends this way
    if isinstance(error, SystemExit):
        text = (
            f"code that trtbuild called ended the program (exit({error.code})); let it return or raise "
            "instead."
        )
        error = InputError(text)
    if isinstance(error, GeneratorExit):
        error = InputError(
            "code that trtbuild called raised GeneratorExit, which is reserved for Python."
        )
    if isinstance(error, TrtbuildError | MemoryError):
        return _refused(error, as_json=as_json)
    complain(traceback.format_exc())  # everything else is our bug
    complain("this is a bug in trtbuild; please report it with the lines above.")
    return BUG


def _asked_to_stop(error: BaseException) -> BaseException | None:
    """The stop signal that led to `error`, if an error during clean-up hides it."""
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, Terminated | KeyboardInterrupt):
        seen = seen.__cause__ or seen.__context__
    return seen


def _is_unread(error: BaseException) -> bool:
    """Whether standard output was closed by its reader, such as ``| head``; drops further output if so."""
    # Rich and Click turn a BrokenPipeError into SystemExit; Click then also wraps standard output
    seen = error.__context__ if isinstance(error, SystemExit) else error
    wrapped = type(sys.stdout).__name__.endswith("PacifyFlushWrapper")
    if not (isinstance(seen, BrokenPipeError) or (wrapped and isinstance(error, SystemExit))):
        return False
    _lead_nowhere(sys.stdout)
    return True


def _lead_nowhere(stream: TextIO) -> None:
    """Redirect `stream` to the null device, with what it still holds in its buffer."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _stopped(error: BaseException) -> int:
    """Report that the user or another process stopped the command, and return the exit code."""
    if isinstance(error, Terminated):
        complain(f"ended by {error.signal.name}; no incomplete file was left behind.")
        return 128 + error.signal
    complain("interrupted; no incomplete file was left behind.")
    return INTERRUPTED


def _refused(error: TrtbuildError | MemoryError, *, as_json: bool) -> int:
    """Report what is wrong with the input, and return the exit code."""
    if isinstance(error, TrtbuildError):
        failure = Failure(type(error).__name__, str(error), error.exit_code)
    else:
        text = f"this machine has too little memory ({error})."
        failure = Failure("MemoryError", text, WRONG_INPUT)
    return failure.tell(as_json=as_json)


def main() -> None:
    """Run the command line of this process, and exit."""
    go_on_apart()
    code = run()
    for stream in filter(None, (sys.stdout, sys.stderr)):  # None if the caller closed it
        try:
            stream.flush()
        except OSError:  # else Python would flush again, fail, and exit with 120
            _lead_nowhere(stream)
    # At exit, Python collects garbage among all loaded objects several times, for up to half a second.
    # `freeze` prevents that. Open files are closed as usual.
    gc.freeze()
    sys.exit(code)
