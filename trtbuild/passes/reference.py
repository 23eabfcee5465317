"""Compares an optimized network with its original, on random inputs, in ONNX Runtime.

The runtime's own graph optimization is off, it uses one thread, and it runs in a process of its own: random
inputs may make a kernel divide by zero, or a loop run for ever. That process maps large weights.

A small network is run at two sizes of its symbolic dims. One whose runs cost more than `_FEW_OPERATIONS` is
run once, and its result once; if no pass has changed it, it is not run at all. Nor is an unchanged
network with many nodes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import onnx

from trtbuild.errors import ExecutionError, OutOfTimeError
from trtbuild.model.attributes import attribute, is_random
from trtbuild.model.graph_library import ir
from trtbuild.model.shapes import dims
from trtbuild.model.traversal import all_graphs, all_nodes
from trtbuild.model.writing import without_weights
from trtbuild.passes.agreement import Tolerance, kinds_differ, values_differ
from trtbuild.passes.random_inputs import draw_feeds

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from trtbuild.model.stats import GraphStats
    from trtbuild.model.writing import WithoutWeights
    from trtbuild.runtime.isolated import IsolatedProcess, IsolatedSession

__all__ = ["Reference", "find_reference", "processor_seconds", "runs_once"]

_ENOUGH = 2
"""How many choices of symbolic sizes are compared: all 1, where axes look alike and sums have one term, and
another one.

A size that a pass writes down by mistake is correct for one choice only, so a third choice would find nothing
that the second does not."""

_DRAWS = 2
"""Inputs per choice if initializers are inputs, which the second draw overrides; else one is enough."""

_FEW_OPERATIONS = 1e9
"""Multiply-accumulates of the runs at all sizes, about 50 ms; a network with more is run at one size."""

_MACS_PER_PARAMETER = 20
"""Time to load a weight from memory, in multiply-accumulates."""

_STEPPING = frozenset(
    {"ArgMax", "ArgMin", "Ceil", "Floor", "NonMaxSuppression", "QuantizeLinear", "Round", "TopK"}
)

_PATIENCE = 3.0
"""A result that takes this many times as long as the original is blamed for it."""

_SIZES = ((1, 1), (3, 5), (2, 8), (2, 32), (1, 64), (1, 224))
"""Size of a leading symbolic dim, and of all others; later pairs are for networks that need larger ones."""

_ONE_RUN_SIZES = ((2, 8), (3, 5), (1, 1), *_SIZES[3:])
"""The same for a network that is run once: the most informative pair first."""

_INTEGERS = ((-100, 100), (0, 8), (0, 1), (1, 1))
"""Ranges for integer inputs; later ones are for networks that use them as indices or counts."""


@dataclass(frozen=True)
class _Sample:
    binding: _Binding
    feeds: Mapping[str, NDArray[Any]]
    outputs: Sequence[Any]


@dataclass(frozen=True)
class Reference:
    """The original network's results for some random inputs.

    Attributes:
        isolated: the process in which networks are run.
        samples: inputs and results; empty where the original could not be run.
        problem: why it could not.
        tolerance: how far the results of an optimized network may differ.
        is_random: whether it draws random numbers itself, so that values cannot be compared.
        valid: whether ONNX's checker accepts the original; only then it has to accept the result.
        opens: whether ONNX Runtime opens the original; then it has to open the result.
    """

    isolated: IsolatedProcess = field(repr=False)
    samples: tuple[_Sample, ...] = field(repr=False)
    problem: str
    tolerance: Tolerance
    is_random: bool
    valid: bool
    opens: bool

    @property
    def text(self) -> str:
        """One sentence on what is compared."""
        if not self.samples:
            return f"not compared: {self.problem}"
        sizes = dict.fromkeys(sample.binding.text for sample in self.samples)
        what = "shapes only, it draws random numbers" if self.is_random else "all outputs"
        inputs = "random input" if len(self.samples) == 1 else "random inputs"
        return f"compared on {len(self.samples)} {inputs} ({'; '.join(sizes)}): {what}"

    def difference(self, model: ir.Model, *, coarse: bool = False) -> str | None:
        """Compare `model` with the original.

        Args:
            model: the result.
            coarse: a pass that is meant to change numbers has run, for example to int8 weights; outputs
                need to agree to 10 % in the L2 norm only.

        Returns:
            What is wrong; None if the results agree.
        """
        detached = without_weights(model)
        problem = _invalid(detached) if self.valid else None
        if problem or not (self.samples or self.opens):
            return problem
        tolerance = replace(self.tolerance, coarse=coarse)
        try:
            session = _opened(detached, self.isolated, _PATIENCE)
        except ExecutionError as error:
            return f"ONNX Runtime does not take the result: {error.reason}"
        for sample in self.samples:
            try:
                outputs = _run(session, sample.feeds)
            except ExecutionError as error:
                return f"it does not run with {sample.binding.text}: {error.reason}"
            for info, wanted, got in zip(session.outputs, sample.outputs, outputs):
                reason = self._disagreement(wanted, got, tolerance)
                if reason:
                    return f"output '{info.name}' with {sample.binding.text}: {reason}"
        return None

    def _disagreement(self, wanted: Any, got: Any, tolerance: Tolerance) -> str | None:
        reason = kinds_differ(wanted, got)
        return reason if reason or self.is_random else values_differ(wanted, got, tolerance)


def _invalid(detached: WithoutWeights) -> str | None:
    try:
        onnx.checker.check_model(detached.proto)
    except onnx.checker.ValidationError as error:
        return f"the graph is invalid: {error}"
    return None


def processor_seconds(size: GraphStats) -> float:
    """Return a generous limit on the time of a network's runs together, on one slow thread.

    Where the multiply-accumulates are unknown, 200 for each parameter are assumed, as in a deep
    convolutional network (ResNet-50: 160).
    """
    return 6.0 + max(size.macs, 200 * size.parameters) / 5e8 + size.parameter_bytes / 5e7


def runs_once(model: ir.Model, size: GraphStats) -> bool:
    """Return whether `model`, of this `size`, is run on one input only because a run costs too much.

    Dims must have been inferred.
    """
    open_dims = _open_dims(model)
    work = sum(
        size.macs * math.prod(lead if leading else other for leading in open_dims.values())
        + _MACS_PER_PARAMETER * size.parameters
        for lead, other in _SIZES[:_ENOUGH]
    )
    return _DRAWS * work > _FEW_OPERATIONS


def find_reference(
    model: ir.Model,
    detached: WithoutWeights,
    isolated: IsolatedProcess,
    *,
    once: bool = False,
    seed: int = 0,
    sizes: Sequence[Mapping[str, int]] = (),
) -> Reference:
    """Run `model` on random inputs, at several sizes of its symbolic dims.

    Args:
        model: the original; its weights are not read here, so another thread may do so.
        detached: a serialized copy of it.
        isolated: the process in which networks are run.
        once: run it at one size only.
        seed: of the random inputs.
        sizes: choices of symbolic dims that replace the built-in ones.
    """
    nodes = list(all_nodes(model.graph))
    samples: list[_Sample] = []
    problem, opens = "ONNX Runtime runs it at none of the sizes that were tried", True
    try:
        session = _opened(detached, isolated)
    except ExecutionError as error:
        problem, opens = f"ONNX Runtime does not take the original: {error.reason}", False
    else:
        draws = _DRAWS if session.overridable else 1
        enough = 1 if once and not sizes else _ENOUGH
        for group in _bindings(model, sizes, _ONE_RUN_SIZES if once else _SIZES):
            if len({sample.binding.text for sample in samples}) >= enough:
                break
            found, reason, goes_on = _first_that_runs(model, session, group, draws, seed)
            samples += found
            problem = reason or problem
            if not goes_on:
                break
    return Reference(
        isolated=isolated,
        samples=tuple(samples),
        problem=problem,
        tolerance=Tolerance(
            eps=_coarsest_eps(model, nodes),
            steps=any(node.domain != "" or node.op_type in _STEPPING for node in nodes),
        ),
        is_random=any(is_random(node) for node in nodes),
        valid=_invalid(detached) is None,
        opens=opens,
    )


def _coarsest_eps(model: ir.Model, nodes: Sequence[ir.Node]) -> float:
    """The machine epsilon of the coarsest float type among weights, activations and casts."""
    values = [value for graph in all_graphs(model.graph) for value in graph.initializers.values()]
    values += [*model.graph.inputs, *(output for node in nodes for output in node.outputs)]
    kinds = {value.dtype for value in values}
    kinds |= {ir.DataType(attribute(node, "to", 1)) for node in nodes if node.op_type == "Cast"}
    floats = [k.numpy() for k in kinds if k is not None and k.is_floating_point()]
    wide = [dtype for dtype in floats if dtype.itemsize >= 2]  # FP8 only quantizes
    return max((float(ml_dtypes.finfo(dtype).eps) for dtype in wide), default=0.0)


def _first_that_runs(
    model: ir.Model, session: IsolatedSession, group: Sequence[_Binding], draws: int, seed: int
) -> tuple[list[_Sample], str, bool]:
    """Samples of the first binding that runs, why the others did not, and whether to try more groups."""
    reason = ""
    for binding in group:
        try:
            return list(_samples(model, session, binding, draws, seed)), "", True
        except OutOfTimeError as error:
            return [], error.reason, False
        except ExecutionError as error:
            reason = error.reason
    return [], reason, True


def _samples(
    model: ir.Model, session: IsolatedSession, binding: _Binding, draws: int, seed: int
) -> Iterator[_Sample]:
    for draw in range(draws):
        random = np.random.default_rng([seed, draw])
        feeds = draw_feeds(model, binding.sizes, binding.integers, random, override=draw % 2 == 1)
        if feeds is None:
            reason = "an input is not a tensor of numbers"
            raise ExecutionError(f"the network is not run: {reason}.", reason)
        yield _Sample(binding, feeds, _run(session, feeds))


def _opened(
    detached: WithoutWeights, isolated: IsolatedProcess, patience: float = 1.0
) -> IsolatedSession:
    return isolated.open(detached.proto.SerializeToString(), detached.weights, patience)


def _run(session: IsolatedSession, feeds: Mapping[str, NDArray[Any]]) -> list[Any]:
    return list(session.run(feeds).values())


@dataclass(frozen=True)
class _Binding:
    """A choice of symbolic sizes and of a range for integers.

    Attributes:
        sizes: size of each symbolic dim; the key is its name, or ``input[axis]`` where it has none.
        integers: lowest and highest value of integer inputs.
    """

    sizes: Mapping[str, int]
    integers: tuple[int, int]

    @property
    def text(self) -> str:
        """The sizes, for a message."""
        return ", ".join(f"{name} = {size}" for name, size in self.sizes.items()) or "its own dims"


def _bindings(
    model: ir.Model, given: Sequence[Mapping[str, int]], guesses: Sequence[tuple[int, int]]
) -> Iterator[list[_Binding]]:
    """Return groups of choices; of a group, the first choice that runs is used.

    Args:
        model: the network.
        given: sizes of symbolic dims that the user knows to be right; they replace `guesses`.
        guesses: size of a leading symbolic dim, and of all others.
    """
    open_dims = _open_dims(model)
    has_integers = any(_is_integer(value) for value in _fed(model))
    ranges = _INTEGERS if has_integers else _INTEGERS[:1]
    if given:
        choices = [{key: dict(sizes).get(key, 1) for key in open_dims} for sizes in given]
    elif open_dims:
        choices = [
            {key: lead if leading else other for key, leading in open_dims.items()}
            for lead, other in guesses
        ]
    else:
        choices = [{}]
    for sizes in choices:
        yield [_Binding(sizes, limits) for limits in ranges]


def _fed(model: ir.Model) -> list[ir.Value]:
    return [value for value in model.graph.inputs if not value.is_initializer()]


def _open_dims(model: ir.Model) -> dict[str, bool]:
    """Return symbolic dim -> whether it is the first dim of an input."""
    answer: dict[str, bool] = {}
    for value in _fed(model):
        for axis, dim in enumerate(dims(value) or ()):
            if not isinstance(dim, int):
                key = dim or f"{value.name}[{axis}]"
                answer[key] = answer.get(key, False) or axis == 0
    return answer


def _is_integer(value: ir.Value) -> bool:
    return value.dtype is not None and value.dtype.is_integer()
