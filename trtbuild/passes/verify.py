"""The safety net: an optimised network against its original, on random inputs, in ONNX Runtime.

All graph optimisation of the runtime is off, on one thread. Large weights are fed from where they
are mapped and never copied into a protobuf. What counts as agreement is in `agreement`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from trtbuild.model.attributes import is_random
from trtbuild.model.bodies import all_nodes
from trtbuild.model.light import lighten
from trtbuild.model.mapped_pages import pages_given_back
from trtbuild.passes.agreement import kinds_differ, values_differ
from trtbuild.passes.random_feeds import Binding, bindings, draw_feeds
from trtbuild.runtime.evaluation import EvaluationError, open_session

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import onnx_ir as ir
    import onnxruntime
    from numpy.typing import NDArray

    from trtbuild.model.light import LightModel

__all__ = ["Reference", "find_reference"]

_ENOUGH = 3
"""Choices of symbolic sizes that are compared."""

_DRAWS = 2
"""Inputs per choice; the second one overrides initialisers that are inputs."""

_STEPPING = frozenset(
    {"ArgMax", "ArgMin", "Ceil", "Floor", "NonMaxSuppression", "QuantizeLinear", "Round", "TopK"}
)


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
        valid: whether ONNX's checker takes the original, and so has a say on the result.
    """

    samples: tuple[_Sample, ...] = field(repr=False)
    problem: str
    steps: bool
    is_random: bool
    valid: bool

    @property
    def text(self) -> str:
        """One sentence on what is compared."""
        if not self.samples:
            return f"not compared: {self.problem}"
        sizes = dict.fromkeys(sample.binding.text for sample in self.samples)
        what = "shapes only, it draws random numbers" if self.is_random else "all outputs"
        return f"compared on {len(self.samples)} random inputs ({'; '.join(sizes)}): {what}"

    def difference(self, model: ir.Model, *, coarse: bool = False) -> str | None:
        """Compare `model` with the original.

        Args:
            model: the result.
            coarse: a pass that is meant to change numbers has run, such as one that makes int8
                weights; outputs need to agree to 10 % in the L2 norm only.

        Returns:
            What is wrong; None if nothing is.
        """
        light = lighten(model)
        problem = _invalid(light) if self.valid else None
        if problem or not self.samples:
            return problem
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
                reason = self._disagreement(wanted, got, coarse=coarse)
                if reason:
                    return f"output '{info.name}' with {sample.binding.text}: {reason}"
        return None

    def _disagreement(self, wanted: Any, got: Any, *, coarse: bool) -> str | None:
        reason = kinds_differ(wanted, got)
        if reason or self.is_random:
            return reason
        return values_differ(wanted, got, steps=self.steps, coarse=coarse)


def _invalid(light: LightModel) -> str | None:
    try:
        onnx.checker.check_model(light.proto)
    except onnx.checker.ValidationError as error:
        return f"the graph is invalid: {error}"
    return None


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
    light = lighten(model.clone())  # what the user gave is not touched, not even for a moment
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
        valid=_invalid(light) is None,
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
        with pages_given_back(light.weights.values()):
            return list(session.run(None, complete))
    except Exception as error:  # ONNX Runtime's exceptions share no base of their own
        raise EvaluationError(str(error)) from error
