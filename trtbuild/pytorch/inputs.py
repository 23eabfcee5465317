"""Sample inputs: seeded tensors for ``forward``, bound to its parameters."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from trtbuild.errors import OptionError
from trtbuild.pytorch.refusals import refuse_unfinished
from trtbuild.wording import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trtbuild.pytorch.spec import InputSpec

__all__ = [
    "BoundInputs",
    "Parameters",
    "bind_inputs",
    "other_batch",
    "sample",
    "with_sizes",
]


@dataclass(frozen=True)
class BoundInputs:
    """Inputs and the parameters of ``forward`` that take them, in order.

    Attributes:
        specs: the inputs, each with a name.
        positional: how many of them are passed by position; the others are passed by keyword.
        collected: name of the parameter ``*args`` that takes the last of them; empty without one.
        parameters: names of the parameters that take one input each.
    """

    specs: tuple[InputSpec, ...]
    positional: int
    collected: str = ""
    parameters: frozenset[str] = frozenset()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the inputs in order."""
        return tuple(str(spec.name) for spec in self.specs)


def bind_inputs(module: nn.Module, inputs: Sequence[InputSpec] | BoundInputs) -> BoundInputs:
    """Give every input the name of its parameter of ``forward``; inputs that are bound already stay.

    Raises:
        OptionError: a name is not a parameter, or there are too many or too few inputs.
        ModelError: it is no module, or a part of it is TorchScript, or lazy and without weights.
    """
    if isinstance(inputs, BoundInputs):
        return inputs
    refuse_unfinished(module)
    takes = Parameters.of(module)
    named = _named(inputs, takes)
    given = {spec.name for spec in named}
    absent = [name for name in takes.required if name not in given]
    if absent:
        raise OptionError(f"forward needs an input for {', '.join(absent)}: give one more --input.")
    places = {name: at for at, name in enumerate((*takes.free, takes.variadic, *takes.keyword))}
    named.sort(key=lambda spec: places.get(str(spec.name), len(takes.free)))
    names = [str(spec.name) for spec in named if spec.name not in takes.keyword]
    positional = len(names) if takes.variadic else _prefix_length(names, takes.free)
    return BoundInputs(tuple(named), positional, takes.variadic, frozenset(takes.order))


@dataclass(frozen=True)
class Parameters:
    """The parameters of a module's ``forward``, by name.

    Attributes:
        free: those that an input may be passed to by position.
        keyword: those that take one by keyword only.
        variadic: the parameter ``*args``; empty without one.
        required: those without a default.
    """

    free: tuple[str, ...]
    keyword: tuple[str, ...]
    variadic: str
    required: tuple[str, ...]

    @classmethod
    def of(cls, module: nn.Module) -> Parameters:
        """Read the signature of ``forward``."""
        found = inspect.signature(module.forward).parameters.values()
        free = [p.name for p in found if p.kind in (p.POSITIONAL_OR_KEYWORD, p.POSITIONAL_ONLY)]
        keyword = [p.name for p in found if p.kind is p.KEYWORD_ONLY]
        variadic = next((p.name for p in found if p.kind is p.VAR_POSITIONAL), "")
        own = (*free, *keyword)
        required = [p.name for p in found if p.default is p.empty and p.name in own]
        return cls(tuple(free), tuple(keyword), variadic, tuple(required))

    @property
    def order(self) -> tuple[str, ...]:
        """The parameters that take one input each, in order."""
        return (*self.free, *self.keyword)


def _named(specs: Sequence[InputSpec], takes: Parameters) -> list[InputSpec]:
    """The inputs, each with a name: its own, or that of the next parameter without an input."""
    taken = {spec.name for spec in specs}
    own = takes.free if takes.variadic else takes.order  # *args takes the others by position
    left = [name for name in own if name not in taken]
    named = []
    for index, spec in enumerate(specs):
        spare = f"input_{index}" if takes.variadic else None
        name = spec.name or (left.pop(0) if left else spare)
        if name is None or (spec.name and name not in takes.order and not takes.variadic):
            raise OptionError(
                f"forward({', '.join(takes.order)}) cannot take {counted(len(specs), 'input')}"
                + (f": it has no parameter '{name}'. " if name else ". ")
                + "Each input is one tensor: where a parameter is a dict or a tuple, wrap the module in one "
                "whose forward takes the tensors."
            )
        named.append(replace(spec, name=name))
    return named


def _prefix_length(names: Sequence[str], free: Sequence[str]) -> int:
    length = 0
    while length < min(len(names), len(free)) and names[length] == free[length]:
        length += 1
    return length


def sample(
    inputs: BoundInputs, seed: int, dtype: torch.dtype | None = None
) -> tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor]]:
    """Draw the arguments and keyword arguments of one call of ``forward``.

    Args:
        inputs: the inputs to draw.
        seed: the same seed gives the same values.
        dtype: replaces every floating-point type after drawing.
    """
    generator = torch.Generator().manual_seed(seed)
    values = [_draw(spec, generator) for spec in inputs.specs]
    if dtype is not None:
        values = [value.to(dtype) if value.is_floating_point() else value for value in values]
    keywords = dict(zip(inputs.names[inputs.positional :], values[inputs.positional :]))
    return tuple(values[: inputs.positional]), keywords


def _draw(spec: InputSpec, generator: torch.Generator) -> torch.Tensor:
    dtype: torch.dtype = getattr(torch, spec.dtype)
    if not spec.is_float:
        low, high = (
            (0, 1) if spec.low is None or spec.high is None else (int(spec.low), int(spec.high))
        )
        return torch.randint(low, high + 1, spec.dims, generator=generator).to(dtype)
    if spec.low is None or spec.high is None:
        return torch.randn(spec.dims, generator=generator).to(dtype)
    return (spec.low + (spec.high - spec.low) * torch.rand(spec.dims, generator=generator)).to(
        dtype
    )


def with_sizes(inputs: BoundInputs, sizes: dict[str, int]) -> BoundInputs:
    """Return `inputs` with every dynamic dim named in `sizes` set to that size."""
    specs = []
    for spec in inputs.specs:
        dims = tuple(
            sizes.get(spec.dynamic.get(axis, ""), dim) for axis, dim in enumerate(spec.dims)
        )
        specs.append(replace(spec, dims=dims))
    return replace(inputs, specs=tuple(specs))


def other_batch(inputs: BoundInputs) -> list[BoundInputs]:
    """Return `inputs` with one more sample, if all inputs have the same batch size; else nothing."""
    sizes = {spec.dims[0] for spec in inputs.specs if spec.dims}
    if len(sizes) != 1:
        return []
    size = sizes.pop() + 1
    specs = tuple(replace(s, dims=(size, *s.dims[1:])) if s.dims else s for s in inputs.specs)
    return [replace(inputs, specs=specs)]
