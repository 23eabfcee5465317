"""Effect of each rounding on the outputs, to first order: all layers and activations from one backward run.

Let v be random with independent elements of mean zero and variance one, g = d<v, out>/dx, and dx the
change of x by rounding x alone. Then (g . dx)^2 is on average the noise power at the outputs, |J dx|^2
(Hutchinson, A stochastic estimator of the trace, 1990). t is the sum of g . dx over all layers, the noise of
all together; without layer i it is t - g_i . dx_i. v is divided by the size of the part of an output that it
belongs to, so that boxes in pixels count no more than scores (`trtbuild.search.measured`).

    alone    -10 log10( mean (g_i . dx_i)^2 )                          dB, as an SQNR of all parts
    gained    10 log10( mean t^2 / mean (t - g_i . dx_i)^2 )           dB

This is exact for small errors. If a range clips most of a tensor, the error comes out too large, but the
order of layers is right.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trtbuild.errors import ModelError
from trtbuild.gradients import backward_network, differentiable_outputs
from trtbuild.gradients.writer import Writer
from trtbuild.model.edits import set_outputs, tapped
from trtbuild.model.qdq import activation_pairs, quantized_nodes
from trtbuild.model.traversal import values_by_name
from trtbuild.progress import Progress, silent
from trtbuild.runtime.onnxruntime import Execution, open_session
from trtbuild.search.measured import Measure, parts_of
from trtbuild.verification.layers import Effect
from trtbuild.verification.metrics import decibels
from trtbuild.verification.side_branches import own_output, side_branches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import onnx_ir as ir

    from trtbuild.gradients import Backward
    from trtbuild.model.qdq import ActivationPair
    from trtbuild.runtime.session import Feeds

__all__ = ["Effects", "output_effects"]

# Number of random v, over all batches together: effects are then accurate to some 1.5 dB (16 degrees of
# freedom).
_SAMPLES = 16

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Effects:
    """The effects of layers and activations that a gradient reaches.

    Attributes:
        layers: name of a quantized layer -> effect of all its INT8 inputs and weights.
        activations: tensor before a Q/DQ pair -> effect of this pair.
    """

    layers: Mapping[str, Effect]
    activations: Mapping[str, Effect]


def output_effects(
    reference: ir.Model,
    quantized: ir.Model,
    feeds: Sequence[Feeds],
    progress: Progress = silent,
    layers: Callable[[ir.Model], Iterable[ir.Node]] = quantized_nodes,
) -> Effects:
    """Return the effect of every quantized layer and activation of `quantized` on the outputs.

    If the backward network cannot be run, the result is empty.

    Args:
        reference: the float network that `quantized` was made from.
        quantized: the network with Q/DQ, or with other weights.
        feeds: batches to run on; the first few are used.
        progress: told of every run.
        layers: returns the nodes of `quantized` to compute effects of.

    Raises:
        ModelError: the two have no layer in common.
    """
    taps = side_branches(reference, quantized, own_output, layers)
    ends = differentiable_outputs(reference)
    tensors = [*(tap.reference for tap in taps.taps), *taps.activations.values()]
    try:
        backward = backward_network(reference, tensors, ends)
        model, products = _with_products(backward, quantized, layers)
        samples = _sampled(model, backward, reference, feeds[:_SAMPLES], progress)
    except ModelError as error:
        _log.debug("no effects on the outputs are known: %s", error)
        return Effects({}, {})
    by_layer = {tap.node: samples[name] for tap in taps.taps if (name := products.get(tap.node))}
    total = np.sum(list(by_layer.values()), axis=0)
    activations = {
        tensor: samples[name]
        for tensor in taps.activations
        if (name := products.get(_of_tensor(tensor)))
    }
    return Effects(
        {name: _effect(found, total) for name, found in by_layer.items()},
        {name: _effect(found, total) for name, found in activations.items()},
    )


def _effect(found: np.ndarray, total: np.ndarray) -> Effect:
    rest = float(np.mean((total - found) ** 2))
    return Effect(decibels(1.0, float(np.mean(found**2))), decibels(float(np.mean(total**2)), rest))


def _with_products(
    backward: Backward, quantized: ir.Model, layers: Callable[[ir.Model], Iterable[ir.Node]]
) -> tuple[ir.Model, dict[str, str]]:
    """Return the backward network with g . dx as its outputs, and their names by layer and activation."""
    taps = side_branches(backward.model, quantized, own_output, layers)
    model, pairs = taps.reference, activation_pairs(quantized)
    values = values_by_name(model.graph)
    write = Writer(model)
    found = {}
    for tap in taps.taps:
        gradient = backward.gradients.get(tap.reference)
        if gradient is not None:
            change = write.sub(values[tap.own], values[tap.reference])
            found[tap.node] = _product(write, change, values[gradient])
    for tensor, twin in taps.activations.items():
        gradient = backward.gradients.get(twin)
        if gradient is not None:
            change = _rounding(write, values[twin], pairs[tensor])
            found[_of_tensor(tensor)] = _product(write, change, values[gradient])
    set_outputs(model.graph, found.values())
    return model, {key: value.name or "" for key, value in found.items()}


def _of_tensor(name: str) -> str:
    """A key for an activation, which differs from that of a layer with the same name."""
    return f"tensor {name}"


def _product(write: Writer, change: ir.Value, gradient: ir.Value) -> ir.Value:
    return write("ReduceSum", write.mul(change, gradient), keepdims=0)


def _rounding(write: Writer, value: ir.Value, pair: ActivationPair) -> ir.Value:
    """The change by Q and DQ, whose results are clipped multiples of the scale, as zero is exact."""
    steps = write("Round", write.div(value, write.number(pair.scale, value)))
    low, high = (write.number(bound, value) for bound in (pair.low, pair.high))
    grid = write("Clip", write.mul(steps, write.number(pair.scale, value)), low, high)
    return write.sub(grid, value)


def _sampled(
    model: ir.Model,
    backward: Backward,
    reference: ir.Model,
    batches: Sequence[Feeds],
    progress: Progress,
) -> dict[str, np.ndarray]:
    """Return output of `model` -> its values g . dx, one for each batch and v."""
    ends = tuple(backward.seeds)
    forward = open_session(tapped(reference, ends), Execution.FLOAT)
    outputs = [forward.run(feeds) for feeds in batches]
    measure = Measure.of(outputs, parts_of(reference, ends))
    session = open_session(model, Execution.FLOAT)
    rng = np.random.default_rng(0)
    repeats = -(-_SAMPLES // len(batches))
    found: dict[str, list[float]] = {spec.name: [] for spec in session.outputs}
    for number, feeds in enumerate(batches):
        for _ in range(repeats):
            seeds = {given: measure.seed(number, end, rng) for end, given in backward.seeds.items()}
            for name, product in session.run({**feeds, **seeds}).items():
                found[name].append(float(product))
        progress("effects", number + 1, len(batches))
    # scaled so that the mean of squares is a mean over v of a sum over batches
    factor = np.sqrt(len(batches))
    return {name: factor * np.array(products) for name, products in found.items()}
