"""Runs NVIDIA's parser and builder in a separate process, so that a crash there does not end the command.

The library stops its process by a signal for some networks: TensorRT for RTX 1.7.1 does so for an FP32
Attention whose queries, keys and values are one tensor. This module is the parent's side; `apart_worker` is
the other. Calibration data is read in the parent, where its readers are, and sent over batch by batch. The
calibrator that TensorRT calls back, and the GPU memory for batches, belong to the other process.

Starting that process takes longer than parsing a small network, so `parser_ahead` starts it before the
network is ready.
"""

from __future__ import annotations

import contextlib
import logging
import pickle
import sys
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from trtbuild.backends.tensorrt.advice import advice_on_death
from trtbuild.backends.tensorrt.builder import Built, build_plan
from trtbuild.backends.tensorrt.refusals import Refusal, Refusals, find_refusals
from trtbuild.backends.tensorrt.shape_inputs import NO_DATA, BuildData
from trtbuild.errors import ModelError
from trtbuild.progress import Progress, silent
from trtbuild.runtime.child import end, how_it_ended, start_module
from trtbuild.runtime.tensorrt.versions import installed

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator, Sequence
    from types import ModuleType

    from trtbuild.backends.tensorrt.builder import Blueprint
    from trtbuild.options.tensorrt import TensorRTOptions
    from trtbuild.runtime.session import Feeds
    from trtbuild.runtime.tensorrt.versions import Product, TensorRT

__all__ = ["build_plan_apart", "find_refusals_apart", "parser_ahead"]

_log = logging.getLogger(__name__)

_WORKER = "trtbuild.backends.tensorrt.apart_worker"


class _DiedError(Exception):
    """The other process ended without an answer; the message says how, and what it reported last."""


def build_plan_apart(
    tensorrt: TensorRT,
    blueprint: Blueprint,
    data: BuildData = NO_DATA,
    progress: Progress = silent,
) -> Built:
    """Do the same as `build_plan`, in a separate process.

    Raises:
        ModelError: as in `build_plan`, and if the library ended its process.
        OptionError, MissingError, DataError: as in `build_plan`.
        KeyboardInterrupt: Ctrl-C; the other process was ended.
        Exception: any error while reading the calibration data; the other process was ended.
    """
    if not _is_found_elsewhere(tensorrt.module):
        return build_plan(tensorrt, blueprint, data, progress)
    # a fixed short file name: TensorRT numbers things by addresses, which move with the length of the message
    folder = blueprint.onnx.parent.absolute()
    named = replace(blueprint, onnx=Path(blueprint.onnx.name), options=_absolute(blueprint.options))
    asked = ("build", named, data.batches is not None)
    try:
        with _started(tensorrt.product, folder) as worker:
            built = worker.answer(asked, _Messages(progress, data))
    except _DiedError as error:
        raise ModelError(
            f"{tensorrt} died while it built '{blueprint.onnx.stem}' ({error}); no plan was written. "
            f"{advice_on_death(str(error), fp16=blueprint.fp16)}"
        ) from error
    assert isinstance(built, Built)
    return replace(built, file=folder / built.file.name)


def _absolute(options: TensorRTOptions) -> TensorRTOptions:
    """The same options with absolute paths, so that the other process finds the files from any folder."""
    cache, timing = (
        None if path is None else path.absolute() for path in (options.cache, options.timing_cache)
    )
    plugins = tuple(path.absolute() for path in options.plugins)
    return replace(options, plugins=plugins, cache=cache, timing_cache=timing)


def find_refusals_apart(tensorrt: TensorRT, path: Path, plugins: Sequence[Path] = ()) -> Refusals:
    """Do the same as `find_refusals`, in a separate process; a parser that crashes refuses the network.

    Raises:
        ModelError, InputError, OptionError, MissingError: as in `find_refusals`.
    """
    if not _is_found_elsewhere(tensorrt.module):
        return find_refusals(tensorrt, path, plugins)
    with _started(tensorrt.product) as worker:
        return worker.refusals(path, plugins)


@contextlib.contextmanager
def parser_ahead(product: Product) -> Iterator[Callable[[Path, Sequence[Path]], Refusals]]:
    """Start the process for one `find_refusals_apart`; the block gets a function of a network and plugins.

    The process loads the library while the network is made, and ends with the block. The library is not
    loaded here.
    """
    loaded = [sys.modules[name] for name in product.modules if name in sys.modules]
    if not all(map(_is_found_elsewhere, loaded)):
        yield lambda path, plugins: find_refusals(installed(product), path, plugins)
        return
    with _started(product) as worker:

        def asked(path: Path, plugins: Sequence[Path]) -> Refusals:
            """Ask the waiting process, or a new one if it has died."""
            if worker.process.poll() is None:
                # absolute: the user's code may have changed this process's folder since the worker started
                places = tuple(plugin.absolute() for plugin in plugins)
                return worker.refusals(path.absolute(), places)
            # if it died while it waited, that is not the network's fault: try again
            return find_refusals_apart(installed(product), path, plugins)

        yield asked


def _is_found_elsewhere(module: ModuleType | None) -> bool:
    """Whether another process can import it; a module made in this process (in tests) exists only here."""
    return module is None or getattr(module, "__spec__", None) is not None


@dataclass
class _Messages:
    """Messages and questions of the other process while it works.

    Attributes:
        progress: called with the build's progress.
        data: answers its questions about the samples.
        errors: errors that TensorRT logged.
        phase: the phase that it reported last.
    """

    progress: Progress = silent
    data: BuildData = NO_DATA
    errors: list[str] = field(default_factory=list)
    phase: str = ""
    _pass: Iterator[Feeds] = field(default_factory=lambda: iter(()))

    def take(self, told: tuple[Any, ...]) -> tuple[Any, ...]:
        """Handle one message, and return the answers to it; `apart_worker` describes the messages."""
        kind, *content = told
        if kind == "progress":
            self.phase = content[0]
            self.progress(*content)
        elif kind == "log":
            name, level, text = content
            logging.getLogger(name).log(level, "%s", text)
        elif kind == "said":
            self.errors.append(content[0])
        elif kind == "batches":
            assert self.data.batches is not None
            self._pass = iter(self.data.batches())
        elif kind == "batch":
            return (next(self._pass, None),)
        elif kind == "count":
            return (self.data.count(*content),)
        return ()

    def last(self) -> list[str]:
        """The last known state of a dead process: its phase, and TensorRT's last error."""
        phase = [f"in the phase '{self.phase.rpartition(': ')[2]}'"] if self.phase else []
        return phase + [f"after '{text.rstrip('. ')}'" for text in self.errors[-1:]]


@dataclass(frozen=True)
class _Worker:
    """The other process, which does one job.

    Attributes:
        process: loads the library, then waits for the job.
        errors: its standard error output.
    """

    process: subprocess.Popen[bytes]
    errors: IO[bytes]

    def refusals(self, path: Path, plugins: Sequence[Path]) -> Refusals:
        """Return what the parser refuses; a parser that crashes refuses the whole network."""
        try:
            found = self.answer(("find_refusals", path, tuple(plugins)), _Messages())
        except _DiedError as error:
            reason, advice = (
                f"the parser crashed on the network ({error})",
                advice_on_death(str(error)),
            )
            return Refusals((Refusal("", "", reason, advice.rstrip("."), needs_plugin=False),))
        assert isinstance(found, Refusals)
        return found

    def answer(self, job: tuple[Any, ...], messages: _Messages) -> Any:
        """Send the job, handle its messages, and return its result or raise its error."""
        sent, received = self.process.stdin, self.process.stdout
        assert sent is not None
        assert received is not None
        answers: tuple[Any, ...] = (job,)
        while True:
            try:
                for answer in answers:
                    _send(sent, answer)
                told = pickle.load(received)  # noqa: S301 - our own process wrote it
            except (EOFError, OSError, pickle.UnpicklingError) as error:
                how = [how_it_ended(self.process.wait()), *messages.last(), *_printed(self.errors)]
                raise _DiedError(", ".join(how)) from error
            if told[0] in ("ok", "error"):
                break
            # outside of `try`: an error while reading data does not mean that the process has ended
            answers = messages.take(told)
        for line in _printed(self.errors):
            _log.info("TensorRT's process %s", line)
        if told[0] == "error":
            raise told[1]
        return told[1]


@contextlib.contextmanager
def _started(product: Product, folder: Path | None = None) -> Iterator[_Worker]:
    """Start the other process in `folder`; it ends with the block, even after an error."""
    with tempfile.TemporaryFile() as errors:
        process = start_module(_WORKER, errors, folder, alike=True)
        try:
            assert process.stdin is not None
            with contextlib.suppress(OSError):  # it has ended already: `answer` will find out
                _send(process.stdin, product.backend)
            yield _Worker(process, errors)
        finally:
            end(process)


def _send(stream: IO[bytes], message: Any) -> None:
    pickle.dump(message, stream, protocol=5)
    stream.flush()


def _printed(errors: IO[bytes]) -> list[str]:
    """The last line that the process printed, if there is one."""
    errors.seek(0)
    lines = errors.read().decode(errors="replace").strip().splitlines()
    return [f"printed '{lines[-1].strip()[:200]}'"] if lines else []
