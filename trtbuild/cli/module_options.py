"""The options that name a PyTorch module and say how it becomes ONNX.

Shared by ``export``, ``prune`` and ``engine``. Nothing here imports torch.
"""

from __future__ import annotations

import ast
import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trtbuild.cli.prune_options import prune_options
from trtbuild.errors import OptionError
from trtbuild.pytorch.spec import (
    DEFAULT_OPSET,
    MASK_METHODS,
    ExportSpec,
    InputSpec,
    MaskSpec,
    ModuleSource,
    PruneSpec,
    parse_amount,
    parse_axes,
    parse_input,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["ModuleOptions", "export_options", "is_module_target", "module_options"]


@dataclass(frozen=True)
class ModuleOptions:
    """What the command line said about a module; the target itself is an argument.

    Attributes:
        source: the source with an empty target.
        inputs: its inputs.
    """

    source: ModuleSource
    inputs: tuple[InputSpec, ...]

    def source_of(self, target: str) -> ModuleSource:
        """The source with its target.

        Raises:
            OptionError: no input was given.
        """
        if not self.inputs:
            raise OptionError("a PyTorch module needs its input shape: --input 1x3x224x224.")
        return replace(self.source, target=target)


def is_module_target(text: str) -> bool:
    """Whether a MODEL argument is ``package.module:attribute`` and not a file."""
    module, colon, attribute = text.partition(":")
    named = colon and all(
        part.isidentifier() for part in (*module.split("."), *attribute.split("."))
    )
    return bool(named) and not Path(text).exists()


def module_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that load a module; the command gets one `ModuleOptions` named ``module``."""

    @click.option("--weights", type=click.Path(path_type=Path),
                  help="Checkpoint (.pt, .pth, .safetensors), or a folder from prune.")  # fmt: skip
    @click.option("--arg", "arguments", multiple=True, metavar="NAME=VALUE",
                  help="Keyword argument of the factory. Repeatable.")  # fmt: skip
    @click.option("--input", "inputs", multiple=True, metavar="SPEC",
                  help="[name:]dims[:dtype][:low..high], for example 1x3x224x224. Repeatable.")  # fmt: skip
    @click.option("--dynamic", multiple=True, metavar="AXES",
                  help="batch, or [input:]axis=name,... for other axes. Repeatable.")  # fmt: skip
    @click.option("--trust-checkpoint", is_flag=True,
                  help="Unpickle everything: runs any code that the file holds.")  # fmt: skip
    @click.option("--allow-missing", multiple=True, metavar="PATTERN",
                  help="Keys that the checkpoint need not have. Repeatable.")  # fmt: skip
    @click.option("--allow-unexpected", multiple=True, metavar="PATTERN",
                  help="Keys that the checkpoint may have. Repeatable.")  # fmt: skip
    @functools.wraps(command)
    def wrapped(
        *args: Any,
        weights: Path | None,
        arguments: tuple[str, ...],
        inputs: tuple[str, ...],
        dynamic: tuple[str, ...],
        trust_checkpoint: bool,
        allow_missing: tuple[str, ...],
        allow_unexpected: tuple[str, ...],
        **kwargs: Any,
    ) -> Any:
        source = ModuleSource(
            target="",
            arguments=dict(_argument(text) for text in arguments),
            weights=weights,
            trust_checkpoint=trust_checkpoint,
            allow_missing=allow_missing,
            allow_unexpected=allow_unexpected,
        )
        options = ModuleOptions(source, _with_axes([parse_input(text) for text in inputs], dynamic))
        return command(*args, module=options, **kwargs)

    return wrapped


def export_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `module_options`, `prune_options` and the options of the export itself.

    The command gets ``export``, a function from target and path to an `ExportSpec`.
    """

    @module_options
    @prune_options
    @click.option("--mask", metavar="AMOUNT",
                  help="Zero single weights: a share (30%, 0.3) or a count (12) per layer.")  # fmt: skip
    @click.option("--mask-method", type=click.Choice(MASK_METHODS), default="l1", show_default=True,
                  help="Which weights --mask takes.")  # fmt: skip
    @click.option("--mask-globally", is_flag=True, help="Rank the weights of all layers together.")
    @click.option("--sparsity", type=click.Choice(["2:4"]),
                  help="Make the eligible layers 2:4 sparse.")  # fmt: skip
    @click.option("--fold/--no-fold", default=True, show_default=True,
                  help="Fold BatchNorm into the layers beside it.")  # fmt: skip
    @click.option("--opset", type=int, default=DEFAULT_OPSET, show_default=True, help="17 to 20.")
    @click.option("--force-opset", is_flag=True, help="Allow a newer opset.")
    @click.option("--output-name", "output_names", multiple=True, metavar="NAME",
                  help="Name of an output, in order. Repeatable.")  # fmt: skip
    @click.option("--external-data/--no-external-data", default=None,
                  help="Weights in a file of their own; by default above 2 GB only.")  # fmt: skip
    @functools.wraps(command)
    def wrapped(
        *args: Any,
        module: ModuleOptions,
        prune: PruneSpec | None,
        mask: str | None,
        mask_method: str,
        mask_globally: bool,
        sparsity: str | None,
        fold: bool,
        opset: int,
        force_opset: bool,
        output_names: tuple[str, ...],
        external_data: bool | None,
        **kwargs: Any,
    ) -> Any:
        masks = None if mask is None else MaskSpec(parse_amount(mask), mask_method, mask_globally)

        def export(target: str, path: Path | None) -> ExportSpec:
            return ExportSpec(
                source=module.source_of(target),
                inputs=module.inputs,
                fold=fold,
                prune=prune,
                mask=masks,
                sparsity=sparsity,
                opset=opset,
                force_opset=force_opset,
                output_names=output_names,
                path=path,
                external_data=external_data,
            )

        return command(*args, export=export, **kwargs)

    return wrapped


def _argument(text: str) -> tuple[str, Any]:
    """``name=value``; the value as a Python literal if it is one, else as a string."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise OptionError(f"--arg '{text}' is not name=value.")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, {"true": True, "false": False}.get(value, value)


def _with_axes(inputs: Sequence[InputSpec], dynamic: Sequence[str]) -> tuple[InputSpec, ...]:
    """`inputs` with the dynamic axes that were asked for; without an input's name, of all of them."""
    given = list(inputs)
    for text in dynamic:
        name, axes = parse_axes(text)
        if name is not None and all(spec.name != name for spec in given):
            raise OptionError(f"--dynamic '{text}': no --input is named '{name}'.")
        for index, spec in enumerate(given):
            if name in (None, spec.name):
                given[index] = replace(spec, dynamic={**spec.dynamic, **axes})
    return tuple(given)
