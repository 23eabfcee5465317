"""The safety net: an optimised network against its original, on random inputs, in ONNX Runtime.

All graph optimisation of the runtime is off, on one thread. Large weights are fed from where they
are mapped and never copied into a protobuf.

Tolerance. A fold rounds a weight once more, so results differ by a few units in the last place of
the type, grown by the sums behind an output; ``1024 * eps`` (float32: 1.2e-4) of the element plus
as much of the largest element leaves room for deep networks and is far below what any wrong rewrite
makes. Half floats keep fewer bits in reserve: ``32 * eps``. Where a rounding operator
(QuantizeLinear, ArgMax, Cast to integers ...) turns a last bit into a step, a few elements may be a
step off, and the whole must still agree to 5 % in the L2 norm.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import onnx

from trtbuild.graph.bodies import all_nodes
from trtbuild.graph.evaluation import EvaluationError, open_session
from trtbuild.graph.light import lighten
from trtbuild.graph.operators import is_random
from trtbuild.graph.random_feeds import Binding, bindings, draw_feeds

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import onnx_ir as ir
    import onnxruntime
    from numpy.typing import NDArray

    from trtbuild.graph.light import LightModel

__all__ = ["Reference", "find_reference"]

_ENOUGH = 3
"""Choices of symbolic sizes that are compared."""

_DRAWS = 2
"""Inputs per choice; the second one overrides initialisers that are inputs."""

_STEPPING = frozenset(
    {"ArgMax", "ArgMin", "Ceil", "Floor", "NonMaxSuppression", "QuantizeLinear", "Round", "TopK"}
)

_FEW = 0.02
"""Share of elements that a rounding operator may leave a step off."""


@dataclass(frozen=True)
class _Sample:
    binding: Binding
    feeds: Mapping[str, NDArray[Any]]
    outputs: Sequence[Any]


@dataclass(frozen=True)
class Reference:
    """What the original network answers to some random inputs.

    Attributes:
        samples: inputs and answers; empty where the original could not be run.
        problem: why it could not.
        steps: whether the network rounds on its way.
        is_random: whether it draws random numbers itself, so that values cannot be compared.
    """

    samples: tuple[_Sample, ...] = field(repr=False)
    problem: str
    steps: bool
    is_random: bool

    @property
    def text(self) -> str:
        """One sentence on what is compared."""
        if not self.samples:
            return f"not compared: {self.problem}"
        sizes = dict.fromkeys(sample.binding.text for sample in self.samples)
        what = "shapes only, it draws random numbers" if self.is_random else "all outputs"
        return f"compared on {len(self.samples)} random inputs ({'; '.join(sizes)}): {what}"

    def difference(self, model: ir.Model) -> str | None:
        """Compare `model` with the original; answer what is wrong with it, None if nothing."""
        light = lighten(model)
        try:
            onnx.checker.check_model(light.proto)
        except onnx.checker.ValidationError as error:
            return f"the graph is invalid: {error}"
        if not self.samples:
            return None
        try:
            session = open_session(light.proto)
        except EvaluationError as error:
            return f"ONNX Runtime does not take the result: {error}"
        for sample in self.samples:
            try:
                outputs = _run(session, light, sample.feeds)
            except EvaluationError as error:
                return f"it does not run with {sample.binding.text}: {error}"
            for info, wanted, got in zip(session.get_outputs(), sample.outputs, outputs):
                reason = self._compare(wanted, got)
                if reason:
                    return f"output '{info.name}' with {sample.binding.text}: {reason}"
        return None

    def _compare(self, wanted: Any, got: Any) -> str | None:
        if isinstance(wanted, list):
            if not isinstance(got, list) or len(wanted) != len(got):
                return "another number of elements in the sequence"
            answers = [self._compare(w, g) for w, g in zip(wanted, got)]
            return next((answer for answer in answers if answer), None)
        if not isinstance(wanted, np.ndarray):
            return None if wanted == got else "another value"
        if wanted.dtype != got.dtype or wanted.shape != got.shape:
            return f"{wanted.dtype}{list(wanted.shape)} became {got.dtype}{list(got.shape)}"
        return None if self.is_random else _values_differ(wanted, got, steps=self.steps)


def find_reference(
    model: ir.Model, *, seed: int = 0, sizes: Sequence[Mapping[str, int]] = ()
) -> Reference:
    """Run `model` on random inputs, at several sizes of its symbolic dims.

    Args:
        model: the original.
        seed: of the random inputs.
        sizes: choices of symbolic dims to use instead of our own.
    """
    nodes = list(all_nodes(model.graph))
    light = lighten(model)
    samples: list[_Sample] = []
    problem = "ONNX Runtime runs it at no size that was tried"
    try:
        session = open_session(light.proto)
    except EvaluationError as error:
        problem = f"ONNX Runtime does not take the original: {error}"
    else:
        for group in bindings(model, sizes):
            if len({sample.binding.text for sample in samples}) >= _ENOUGH:
                break
            found, reason = _first_that_runs(model, session, light, group, seed)
            samples += found
            problem = reason or problem
    return Reference(
        samples=tuple(samples),
        problem=problem,
        steps=any(node.domain != "" or node.op_type in _STEPPING for node in nodes),
        is_random=any(is_random(node) for node in nodes),
    )


def _first_that_runs(
    model: ir.Model,
    session: onnxruntime.InferenceSession,
    light: LightModel,
    group: Sequence[Binding],
    seed: int,
) -> tuple[list[_Sample], str]:
    reason = ""
    for binding in group:
        try:
            return list(_samples(model, session, light, binding, seed)), ""
        except EvaluationError as error:
            reason = str(error)
    return [], reason


def _samples(
    model: ir.Model,
    session: onnxruntime.InferenceSession,
    light: LightModel,
    binding: Binding,
    seed: int,
) -> Iterator[_Sample]:
    for draw in range(_DRAWS):
        random = np.random.default_rng([seed, draw])
        feeds = draw_feeds(model, binding, random, override=draw % 2 == 1)
        if feeds is None:
            raise EvaluationError("an input is no tensor of numbers")
        yield _Sample(binding, feeds, _run(session, light, feeds))


def _run(
    session: onnxruntime.InferenceSession, light: LightModel, feeds: Mapping[str, NDArray[Any]]
) -> list[Any]:
    given = {info.name for info in session.get_inputs()}
    given |= {info.name for info in session.get_overridable_initializers()}
    complete = {name: tensor.numpy() for name, tensor in light.weights.items()}
    complete |= {name: content for name, content in feeds.items() if name in given}
    try:
        return list(session.run(None, complete))
    except Exception as error:  # ONNX Runtime's exceptions share no base of their own
        raise EvaluationError(str(error)) from error


def _values_differ(wanted: NDArray[Any], got: NDArray[Any], *, steps: bool) -> str | None:
    """Say how two arrays of one type and shape differ; None if they agree."""
    if wanted.dtype.kind in "OSU":
        return None if np.array_equal(wanted, got) else "other text"
    first, second = wanted.astype(np.float64), got.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        finite = first[np.isfinite(first)]
        largest = float(np.max(np.abs(finite), initial=0.0))
        relative = _relative_tolerance(wanted.dtype)
        near = np.isclose(second, first, rtol=relative, atol=relative * largest, equal_nan=True)
        if near.all():
            return None
        away = float(np.nanmax(np.abs(second - first), initial=0.0))
        if steps and _few_steps(first, second, near):
            return None
    return f"differs by up to {away:.3g} where the largest value is {largest:.3g}"


def _relative_tolerance(dtype: np.dtype[Any]) -> float:
    if dtype.kind in "biu":
        return 0.0
    eps = float(ml_dtypes.finfo(dtype).eps)
    return (32 if dtype.itemsize < 4 else 1024) * eps


def _few_steps(
    first: NDArray[np.float64], second: NDArray[np.float64], near: NDArray[np.bool_]
) -> bool:
    if float(np.mean(~near)) > _FEW:
        norm, gap = np.linalg.norm(first), np.linalg.norm(second - first)
        return bool(gap <= 0.05 * norm)
    return bool(np.isfinite(second).all() == np.isfinite(first).all())
