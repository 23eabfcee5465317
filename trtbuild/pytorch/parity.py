"""Compares the exported file in ONNX Runtime with the module, on several samples and sizes.

The reference is the module in float64. The file may differ from it as much as ordinary float32 arithmetic
does: ``|onnx - exact| <= 8 |torch - exact| + 1e-5 max|exact|``. The first term is for networks whose own
rounding is large (50 layers differ by 1e-3 from float64 and are correct); the second is about 80 steps of
float32, for networks that torch happens to compute exactly. A wrong graph differs by 1e-1.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from trtbuild.errors import ModelError
from trtbuild.pytorch.fake_quantize import FrozenFakeQuantize
from trtbuild.pytorch.float64 import distance, float64_copy, outputs64, tensors_in
from trtbuild.pytorch.inputs import sample, with_sizes
from trtbuild.runtime.onnxruntime import Execution, open_session

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import nn

    from trtbuild.pytorch.inputs import BoundInputs
    from trtbuild.runtime.session import Feeds, Session

__all__ = ["ParityReport", "check_parity", "rounding_error"]

_SLACK = 8.0
_FLOOR = 1e-5
_ROUNDING_FLOOR = 5e-2
"""For a module that rounds to 8 bits: a value between two steps may go to either, in layer after layer."""
_NUDGE, _NUDGES = 1e-6, 4
"""Relative difference of sums in another order, and how many perturbations of that size are tried."""
_NO_BFLOAT16 = "ONNX Runtime on the CPU does not run bfloat16; the file was not compared."


@dataclass(frozen=True)
class ParityReport:
    """How much the file's results differ from the module's.

    Attributes:
        samples: the tried shapes, as ``name 2x3x224x224``.
        relative_error: largest ``max|onnx - exact| / max|exact|`` over samples and outputs.
        torch_relative_error: the same for the module's own float32 arithmetic.
        note: why the comparison is incomplete, or empty.
    """

    samples: tuple[str, ...]
    relative_error: float | None
    torch_relative_error: float | None
    note: str = ""


def check_parity(path: Path, module: nn.Module, inputs: BoundInputs) -> ParityReport:
    """Compare the ONNX file at `path` with `module`.

    Args:
        path: the file, with its external data beside it.
        module: the module before folding.
        inputs: the module's inputs; dynamic dims are also tried at other sizes.

    Raises:
        ModelError: the file does not load, or its results differ.
    """
    if any(spec.dtype == "bfloat16" for spec in inputs.specs):
        return ParityReport((), None, None, _NO_BFLOAT16)
    session, exact = open_session(path, Execution.REFERENCE), float64_copy(module)
    compared = []
    for seed, sizes in enumerate(_sizes(inputs), start=1):
        tried = ((case, _module_outputs(module, case, seed)) for case in sizes)
        case, own = next(((one, told) for one, told in tried if told is not None), (inputs, None))
        if own is not None:
            outputs = session.run(_feeds(session, case, seed)).values()
            found = [torch.from_numpy(array) for array in outputs]
            compared.append(_compared(module, exact, case, seed, own, found))
    in_float64 = all(one.in_float64 for one in compared)
    return ParityReport(
        tuple(one.shapes for one in compared),
        max((error for one in compared for error in one.errors), default=None),
        max((error for one in compared for error in one.own_errors), default=None),
        "" if in_float64 else "float64 is not possible; compared with float32.",
    )


@dataclass(frozen=True)
class _Compared:
    """A sample that agrees: its shapes, each output's errors, and whether they are relative to float64."""

    shapes: str
    errors: tuple[float, ...]
    own_errors: tuple[float, ...]
    in_float64: bool


def _compared(
    module: nn.Module,
    exact: nn.Module,
    case: BoundInputs,
    seed: int,
    own: Sequence[torch.Tensor],
    found: Sequence[torch.Tensor],
) -> _Compared:
    """Compare one sample: the module's `own` outputs and those of the file, `found`, with the exact ones."""
    truth = _exact_outputs(exact, case, seed)
    shapes = ", ".join(f"{s.name} {'x'.join(map(str, s.dims))}" for s in case.specs)
    rounds = any(isinstance(child, FrozenFakeQuantize) for child in module.modules())
    moved = rounding_error(module, case, seed, own) if rounds else [0.0] * len(own)
    floor = _ROUNDING_FLOOR if rounds else _FLOOR if truth is not None else 1e-3
    yardstick = own if truth is None else truth
    errors, own_errors = [], []
    for index, (want, got, mine) in enumerate(zip(yardstick, found, own, strict=True)):
        error, own_error = distance(want, got), max(distance(want, mine), moved[index])
        if not error <= _SLACK * own_error + floor:
            raise ModelError(
                f"the exported file computes something else: output {index} for {shapes} is off by "
                f"{error:.1e} of its largest value (the module's own rounding is {own_error:.1e})."
            )
        errors.append(error)
        own_errors.append(own_error)
    return _Compared(shapes, tuple(errors), tuple(own_errors), truth is not None)


def _sizes(inputs: BoundInputs) -> list[tuple[BoundInputs, ...]]:
    """The cases to try; in each, the first sizes that the module accepts are used.

    The given sizes, twice; every dynamic dim one larger, or else doubled (a network that halves its
    maps may need even sizes); and batch 1.
    """
    dims = {name: spec.dims[axis] for spec in inputs.specs for axis, name in spec.dynamic.items()}
    cases: list[tuple[BoundInputs, ...]] = [(inputs,), (inputs,)]
    if dims:
        more = with_sizes(inputs, {name: size + 1 for name, size in dims.items()})
        cases.append((more, with_sizes(inputs, {name: 2 * size for name, size in dims.items()})))
        batches = {spec.dynamic[0] for spec in inputs.specs if 0 in spec.dynamic}
        if batches:
            cases.append((with_sizes(inputs, dict.fromkeys(batches, 1)),))
    return cases


def _module_outputs(module: nn.Module, case: BoundInputs, seed: int) -> list[torch.Tensor] | None:
    """The module's outputs; None where the module does not accept this size."""
    arguments, keywords = sample(case, seed)
    try:
        with torch.no_grad():
            return tensors_in(module(*arguments, **keywords))
    except Exception:
        if seed == 1:
            raise
        return None


def rounding_error(
    module: nn.Module, case: BoundInputs, seed: int, outputs: Sequence[torch.Tensor]
) -> list[float]:
    """Return how much each output of a module that rounds changes if its roundings' inputs change by 1e-6.

    Sums in another order differ by as much, and then a value between two steps may go to the other one. The
    changes are relative to each output's largest magnitude.

    Args:
        module: its roundings are `FrozenFakeQuantize`.
        case: its inputs.
        seed: of the sample.
        outputs: its outputs for that sample.
    """
    arguments, keywords = sample(case, seed)
    generator = torch.Generator().manual_seed(seed)

    def nudge(_: nn.Module, given: tuple[torch.Tensor, ...]) -> torch.Tensor:
        (values,) = given
        noise = 2 * torch.rand(values.shape, generator=generator) - 1
        return values + (_NUDGE * values.abs().max() * noise).to(values.dtype)

    found = [0.0] * len(outputs)
    with contextlib.ExitStack() as hooks, torch.no_grad():
        for one in module.modules():
            if isinstance(one, FrozenFakeQuantize):
                hooks.enter_context(one.register_forward_pre_hook(nudge))
        for _ in range(_NUDGES):
            others = tensors_in(module(*arguments, **keywords))
            found = [max(far, distance(*pair)) for far, *pair in zip(found, outputs, others)]
    return found


def _exact_outputs(exact: nn.Module, case: BoundInputs, seed: int) -> list[torch.Tensor] | None:
    try:
        return outputs64(exact, case, seed)
    except Exception:  # noqa: BLE001 - the user's forward may refuse float64
        return None


def _feeds(session: Session, case: BoundInputs, seed: int) -> Feeds:
    arguments, keywords = sample(case, seed)
    values: Sequence[torch.Tensor] = (*arguments, *keywords.values())
    wanted = {spec.name for spec in session.inputs}
    return {n: value.numpy() for n, value in zip(case.names, values) if n in wanted}
