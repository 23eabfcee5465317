"""Loads a module by ``package.module:attribute`` and a checkpoint, in eval mode; opens it as a session."""

from __future__ import annotations

import importlib
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.export import ExportedProgram

from trtbuild.errors import ModelError
from trtbuild.options.values import IN_MEMORY
from trtbuild.pytorch.checkpoint import CheckpointReport, load_weights
from trtbuild.pytorch.copies import copy_module, enforce_eval, hidden_modules, unwrapped
from trtbuild.pytorch.float64 import tensors_in
from trtbuild.pytorch.refusals import refuse_program, refuse_unfinished
from trtbuild.pytorch.spec import HISTORY_FILE
from trtbuild.wording import counted, listed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trtbuild.model.signature import Signature, TensorSpec
    from trtbuild.pytorch.spec import ModuleSource
    from trtbuild.runtime.session import Feeds, Session

__all__ = ["LoadedModule", "ModuleSession", "load_module", "open_module"]


@dataclass(frozen=True)
class LoadedModule:
    """A module ready for use.

    Attributes:
        module: the module, in eval mode throughout.
        checkpoint: what was loaded, or None without a checkpoint.
        warnings: reasons why this module may differ from the one that the user trained.
    """

    module: nn.Module
    checkpoint: CheckpointReport | None
    warnings: tuple[str, ...]


def load_module(source: ModuleSource) -> LoadedModule:
    """Import, construct, load the weights, and put into eval mode; a module in memory is copied first.

    The current directory is importable. The factory runs on the CPU.

    Raises:
        ModelError: the import fails, the attribute does not exist, the factory raises or does not return an
            `nn.Module`, or the checkpoint does not match.
    """
    is_named = isinstance(source.target, str)
    target = _import_target(source.target) if is_named else source.target
    module = _construct(target, source)
    is_given = not is_named and module is target
    module = unwrapped(module)
    if is_given:
        module = copy_module(module)
    warnings = _changing_buffers(target, source, module)
    report = None
    if source.weights is not None:
        report = _load_weights(module, source, source.weights)
        warnings += report.warnings
    refuse_unfinished(module)
    warnings += _non_finite(module)
    for path in hidden_modules(module):
        warnings.append(
            f"the module in '{path}' is kept in a plain Python container: its weights are in no "
            "checkpoint. Use nn.ModuleList or nn.ModuleDict."
        )
    warnings += enforce_eval(module)
    return LoadedModule(module, report, tuple(warnings))


def _load_weights(module: nn.Module, source: ModuleSource, path: Path) -> CheckpointReport:
    if (path / HISTORY_FILE).is_file():
        from trtbuild.pytorch.prune.history import load_pruned  # Torch-Pruning is slow to import

        load_pruned(module, path)
        return CheckpointReport("", "", len(module.state_dict()), (), (), ())
    return load_weights(
        module,
        path,
        trust=source.trust_checkpoint,
        key=source.weights_key,
        prefix=source.weights_prefix,
        allow_missing=source.allow_missing,
        allow_unexpected=source.allow_unexpected,
    )


def _import_target(target: str) -> Any:
    """The object that ``package.module:attribute`` names."""
    if target.startswith(IN_MEMORY):
        raise ModelError(
            f"the network was a {target} in memory, which no file records; build it from Python."
        )
    name, colon, attributes = target.partition(":")
    if not colon or not name or not attributes:
        raise ModelError(
            f"'{target}' is not package.module:attribute, for example torchvision.models:resnet18."
        )
    value: Any = _import_module(name)
    for attribute in attributes.split("."):
        if not hasattr(value, attribute):
            known = ", ".join(sorted(n for n in vars(value) if not n.startswith("_"))[:12])
            raise ModelError(
                f"'{name}' has no attribute '{attributes}'; it has: {known or 'nothing'}."
            )
        value = getattr(value, attribute)
    return value


def _import_module(name: str) -> Any:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            hint = "; name the module, not its file: package.module" if name.endswith(".py") else ""
            raise ModelError(
                f"cannot import '{name}': there is no module '{error.name}' in '{here}' or among the "
                f"installed packages{hint}."
            ) from error
        raise ModelError(
            f"cannot import '{name}': it needs '{error.name}', which is missing."
        ) from error
    except (Exception, SystemExit) as error:
        raise ModelError(f"importing '{name}' failed:\n{_users_traceback(error)}") from error


def _construct(target: Any, source: ModuleSource) -> nn.Module:
    value = target
    if not isinstance(target, nn.Module | ExportedProgram):
        value = _call_factory(target, source)
    elif source.arguments:
        raise ModelError(f"'{source.name}' is a module already; it takes no arguments.")
    refuse_program(value, f"'{source.name}'")
    if not isinstance(value, nn.Module):
        raise ModelError(
            f"'{source.name}' gave a {type(value).__name__}, not an nn.Module. "
            "Name a factory, a class or an instance."
        )
    return value


def _call_factory(target: Callable[..., Any], source: ModuleSource) -> Any:
    if not callable(target):
        return target
    torch.manual_seed(0)
    try:
        return target(**source.arguments)
    except (Exception, SystemExit) as error:
        raise ModelError(
            f"the factory '{source.name}' raised:\n{_users_traceback(error)}"
        ) from error


def _users_traceback(error: BaseException) -> str:
    """The traceback without frames of this file and of importlib."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename != __file__ and not frame.filename.startswith("<frozen")
    ]
    lines = traceback.format_list(frames) + traceback.format_exception_only(error)
    return "".join(lines).rstrip()


def _changing_buffers(target: Any, source: ModuleSource, module: nn.Module) -> list[str]:
    """Warn of non-persistent buffers that differ in a second construction.

    No checkpoint has them, so each call of the factory gives another model.
    """
    persistent = set(module.state_dict())
    left = {name: buffer for name, buffer in module.named_buffers() if name not in persistent}
    if not left or isinstance(target, nn.Module):
        return []
    torch.manual_seed(1)
    try:
        second = dict(target(**source.arguments).named_buffers())
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a factory may work only once
        return [f"whether the buffers {sorted(left)} are always the same is not known: {error}"]
    return [
        f"the buffer '{name}' is random and not in the checkpoint (persistent=False): every "
        "construction gives another model. Register it with persistent=True, or fill it by a rule."
        for name, buffer in left.items()
        if name in second and not torch.equal(buffer, second[name])
    ]


def _non_finite(module: nn.Module) -> list[str]:
    tensors = (*module.named_parameters(), *module.named_buffers())
    bad = [
        name
        for name, tensor in tensors
        if tensor.is_floating_point() and not tensor.isfinite().all()
    ]
    return [f"{listed(bad, 3)}: NaN or infinite values."] if bad else []


class ModuleSession:
    """A module in eval mode with an engine's interface, a `trtbuild.runtime.session.Session`.

    Args:
        module: the module.
        inputs: the engine's inputs, in the order of the module's positional arguments.
        outputs: the engine's outputs, in the order of the module's output tensors.
    """

    def __init__(
        self, module: nn.Module, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
    ) -> None:
        self._module: nn.Module | None = module
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)

    def run(self, feeds: Feeds) -> dict[str, np.ndarray]:
        """Run the module once, without gradients.

        Raises:
            ModelError: an input is missing, the module raises, or its outputs differ from the engine's in
                number, or have a type that NumPy lacks.
        """
        if self._module is None:
            raise ModelError("this session has been closed; open the module again.")
        missing = [spec.name for spec in self.inputs if spec.name not in feeds]
        if missing:
            raise ModelError(f"the input '{missing[0]}' of the module is missing.")
        arguments = [
            torch.from_numpy(np.ascontiguousarray(feeds[spec.name])) for spec in self.inputs
        ]
        try:
            with torch.inference_mode():
                answers = [answer.numpy() for answer in tensors_in(self._module(*arguments))]
        except Exception as error:
            shapes = [tuple(argument.shape) for argument in arguments]
            raise ModelError(
                f"the module does not run on inputs of shapes {shapes}: {type(error).__name__}: {error}"
            ) from error
        if len(answers) != len(self.outputs):
            raise ModelError(
                f"the module returns {counted(len(answers), 'tensor')}, but the engine has "
                f"{counted(len(self.outputs), 'output')}."
            )
        return {spec.name: answer for spec, answer in zip(self.outputs, answers)}

    def close(self) -> None:
        """Release the module; safe to call twice."""
        self._module = None


def open_module(source: ModuleSource, signature: Signature) -> Session:
    """Open a module as the float reference of an engine, with the engine's inputs and outputs.

    Raises:
        ModelError: it cannot be loaded; see `trtbuild.pytorch.load.load_module`.
    """
    return ModuleSession(load_module(source).module, signature.inputs, signature.outputs)
