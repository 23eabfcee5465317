"""Folds BatchNorm and similar norms into the convolution or linear layer beside them.

The module is analysed on the graph of ``torch.export`` (`plan`), changed as a module (`on_module`) and
checked on a float64 copy. Norms that cannot be folded in the module are left to the graph passes after the
export. In a module that cannot be traced, only plain ``nn.Sequential`` containers are folded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from trtbuild.errors import ModelError, first_line
from trtbuild.foreign_warnings import warnings_that_only_warn
from trtbuild.pytorch.copies import copy_module, make_weights_plain, unwrapped
from trtbuild.pytorch.float64 import float64_copy, outputs64, relative_difference
from trtbuild.pytorch.fold.layers import TOLERANCE, CannotFoldError
from trtbuild.pytorch.fold.on_module import (
    fold_into_modules,
    norm_modules,
    plan_module_folds,
    plan_sequential_folds,
    take_over,
)
from trtbuild.pytorch.inputs import BoundInputs, bind_inputs, other_batch
from trtbuild.pytorch.tracing import capture

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import nn

    from trtbuild.pytorch.fold.on_module import ModuleFold
    from trtbuild.pytorch.spec import InputSpec

    Planner = Callable[[Mapping[str, str]], tuple[list[ModuleFold], dict[str, str]]]

__all__ = ["TOLERANCE", "FoldReport", "FoldResult", "NormFate", "fold_norms"]


@dataclass(frozen=True)
class NormFate:
    """What was done with one norm.

    Attributes:
        norm: path of the norm module, or name of the graph node of a functional norm.
        kind: its class, or ``functional``.
        outcome: ``folded`` in the module, or ``left``.
        into: paths of the layers that it was folded into.
        reason: why it was left, and whether the graph passes can fold it after the export; empty if it was
            folded.
    """

    norm: str
    kind: str
    outcome: Literal["folded", "left"]
    into: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class FoldReport:
    """What was done with every norm, and the numerical error of all folds.

    Attributes:
        fates: one entry per norm.
        relative_error: largest difference to the unfolded module in float64, relative to the largest
            output; None when nothing was folded.
        evaluated: computed weights (masks, weight norm, spectral norm) that were made plain first.
        notes: other sentences for the user, for example that the module could not be traced.
    """

    fates: tuple[NormFate, ...]
    relative_error: float | None = None
    evaluated: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def folded(self) -> tuple[NormFate, ...]:
        """The folded norms."""
        return tuple(fate for fate in self.fates if fate.outcome != "left")

    @property
    def left(self) -> tuple[NormFate, ...]:
        """The norms that remain."""
        return tuple(fate for fate in self.fates if fate.outcome == "left")


@dataclass(frozen=True)
class FoldResult:
    """The folded module, a copy of the one given, and the report."""

    module: nn.Module
    report: FoldReport


@warnings_that_only_warn()
def fold_norms(module: nn.Module, inputs: Sequence[InputSpec] | BoundInputs) -> FoldResult:
    """Fold every norm that can be folded, on a copy of `module`.

    Computed weights (masks, weight and spectral norm) are evaluated first. The folded state dict no
    longer fits the user's factory (``conv.bias`` is added, ``bn.*`` is gone): save it as ONNX.

    Args:
        module: any module; norms in train mode are not folded.
        inputs: the sample inputs, in the order of ``forward``.

    Raises:
        OptionError: `inputs` do not fit ``forward``.
    """
    module = unwrapped(module)
    bound = bind_inputs(module, inputs)
    with torch.inference_mode(mode=False):  # copies made inside inference mode cannot be traced
        return _fold(module, bound)


def _fold(module: nn.Module, bound: BoundInputs) -> FoldResult:
    device = next((tensor.device for tensor in module.parameters()), torch.device("cpu"))
    base = copy_module(module).cpu()
    evaluated = tuple(make_weights_plain(base))
    plan, notes = _planner(base, bound)
    folded, report = _Folding(base, bound, plan).run()
    notes += report.notes
    return FoldResult(
        folded.to(device), FoldReport(report.fates, report.relative_error, evaluated, notes)
    )


def _planner(base: nn.Module, bound: BoundInputs) -> tuple[Planner, tuple[str, ...]]:
    try:
        program = capture(base, bound)
    except ModelError as error:
        note = f"{error} Only norms inside plain nn.Sequential containers were considered."
        return (lambda barred: plan_sequential_folds(base, bound, barred)), (note,)
    return (lambda barred: plan_module_folds(base, program, barred)), ()


class _Folding:
    """Folds a float64 copy, excludes folds that change the result, and then folds `base` itself."""

    def __init__(self, base: nn.Module, bound: BoundInputs, plan: Planner) -> None:
        self.base = base
        self.plan = plan
        self.samples = [(bound, 1)]
        reference = float64_copy(base)
        try:
            self.expected = [outputs64(reference, bound, 1)]
            self.unverifiable = _not_finite(self.expected[0])
        except Exception as error:  # noqa: BLE001 - the user's forward may raise anything
            self.unverifiable = f"it cannot be run in float64: {first_line(error)}"
            return
        # Another batch size, if the module takes it: there, layouts that agree by chance differ.
        for other in other_batch(bound):
            try:
                self.expected.append(outputs64(reference, other, 2))
            except Exception:  # noqa: BLE001, S112 - a fixed batch size is no fault here
                continue
            self.samples.append((other, 2))

    def run(self) -> tuple[nn.Module, FoldReport]:
        """Return the module with all correct folds, and the report."""
        barred: dict[str, str] = {}
        notes: tuple[str, ...] = ()
        if self.unverifiable:
            notes = (
                f"nothing was folded: a fold could not be verified, because {self.unverifiable}.",
            )
            barred = dict.fromkeys(norm_modules(self.base), "a fold of it could not be verified")
        while True:
            folds, reasons = self.plan(barred)
            try:
                folded, error = self._tried(folds)
                if error <= TOLERANCE:
                    fates = _fates(self.base, folds, reasons)
                    take_over(self.base, folded, folds)
                    break
            except CannotFoldError as refusal:
                barred[refusal.norm] = str(refusal)
                continue
            barred.update(self._culprits(folds, barred))
        return self.base, FoldReport(fates, error if folds else None, notes=notes)

    def _tried(self, folds: list[ModuleFold]) -> tuple[nn.Module, float]:
        """A folded float64 copy and its largest relative difference; infinity if it does not run."""
        if not folds:
            return self.base, 0.0
        module = float64_copy(self.base)
        fold_into_modules(module, folds)
        try:
            found = [outputs64(module, bound, seed) for bound, seed in self.samples]
        except Exception:  # noqa: BLE001 - the user's forward may raise anything
            return module, float("inf")
        pairs = zip(self.expected, found)
        return module, max(relative_difference(want, got) for want, got in pairs)

    def _culprits(self, folds: list[ModuleFold], barred: Mapping[str, str]) -> dict[str, str]:
        """The norms whose fold is wrong on its own; all norms if each fold is right on its own."""
        wrong = {}
        norms = {fold.norm for fold in folds}
        for norm in norms:
            others = dict.fromkeys(norms - {norm}, "tried alone")
            alone, _ = self.plan({**barred, **others})
            _, error = self._tried(alone)
            if error > TOLERANCE:
                wrong[norm] = (
                    f"its fold was taken back: the output differed by {error:.1e} in float64"
                )
        return wrong or dict.fromkeys(
            norms, "its fold was taken back: the output differed in float64"
        )


def _not_finite(outputs: list[torch.Tensor]) -> str:
    finite = all(tensor.isfinite().all() for tensor in outputs)
    return "" if finite else "its output is not finite"


def _fates(
    module: nn.Module, folds: list[ModuleFold], reasons: Mapping[str, str]
) -> tuple[NormFate, ...]:
    """One entry per norm module in the order of registration, then the functional norms."""
    fates = []
    modules = norm_modules(module)
    for path, norm in modules.items():
        into = tuple(dict.fromkeys(fold.layer for fold in folds if fold.norm == path))
        reason = "" if into else reasons.get(path, "it was not called")
        fates.append(
            NormFate(path, type(norm).__name__, "folded" if into else "left", into, reason)
        )
    for name, reason in reasons.items():
        if name not in modules:
            fates.append(NormFate(name, "functional", "left", (), reason))
    return tuple(fates)
