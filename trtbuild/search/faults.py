"""Finds the layers at fault: the worst by first-order effect are run alone in INT8 and alone in float."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from trtbuild.progress import silent
from trtbuild.search.candidate import FileCandidate
from trtbuild.search.effects import output_effects
from trtbuild.search.groups import with_pair_only, without_pair
from trtbuild.search.score import worst_sqnr_db
from trtbuild.verification.layers import Effect, layer_errors, worst_first

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from trtbuild.progress import Progress
    from trtbuild.search.evaluate import Evaluator
    from trtbuild.verification.compare import LabelledBatch
    from trtbuild.verification.layers import ActivationError, LayerError, LayerReport

__all__ = ["MEASURED", "find_faults"]

MEASURED = 4
"""How many layers, and how many activations, are run, twice each."""


def _doubtful(effects: Sequence[Effect | None]) -> list[int]:
    """The indices to run: the worst `MEASURED` by first-order effect, and as many of unknown effect."""
    known = [place for place, effect in enumerate(effects) if effect is not None]
    unknown = [place for place, effect in enumerate(effects) if effect is None]
    return known[:MEASURED] + unknown[:MEASURED]


def _ordered(
    reference: ir.Model, quantized: ir.Model, batches: Sequence[LabelledBatch], progress: Progress
) -> LayerReport:
    """All layers and activations with their first-order effects, the worst first."""
    report = layer_errors(reference, quantized, batches, progress)
    effects = output_effects(reference, quantized, [one.feeds for one in batches], progress)
    layers = (replace(one, effect=effects.layers.get(one.node)) for one in report.layers)
    activations = (
        replace(one, effect=effects.activations.get(one.tensor)) for one in report.activations
    )
    return replace(report, layers=worst_first(layers), activations=worst_first(activations))


def find_faults(
    reference: ir.Model,
    quantized: ir.Model,
    evaluate: Evaluator,
    progress: Progress = silent,
) -> LayerReport:
    """Return every quantized layer and activation, ordered by its effect on the outputs.

    The effect of all that gradients reach is estimated to first order. The worst `MEASURED` layers and
    activations, and as many that no gradient reaches, are run on the images of `evaluate`. If no output is
    floating point (an ArgMax ends the network), nothing is run; the estimates use the tensors before it.

    Raises:
        ModelError: the two networks have no layer in common, or cannot be run.
        DataError: no batch.
    """
    report = _ordered(reference, quantized, evaluate.batches, progress)
    candidate = FileCandidate(quantized, reference)
    groups = frozenset(group.name for group in candidate.groups())
    whole = evaluate(quantized)
    if whole.worst_sqnr_db is None:
        return report
    base = worst_sqnr_db(whole)

    def effect(alone: ir.Model, without: ir.Model) -> Effect:
        left = worst_sqnr_db(evaluate(without))
        gained = 0.0 if left == base else left - base
        return Effect(worst_sqnr_db(evaluate(alone)), gained, measured=True)

    def of_layer(layer: LayerError) -> LayerError:
        others = groups - {layer.node}
        networks = (candidate.with_float(names).network() for names in (others, {layer.node}))
        return replace(layer, effect=effect(*networks))

    def of_activation(one: ActivationError) -> ActivationError:
        alone = with_pair_only(quantized, reference, one.tensor)
        return replace(one, effect=effect(alone, without_pair(quantized, one.tensor)))

    rounding = [layer for layer in report.layers if layer.node in groups]
    layers = {layer.node: layer for layer in report.layers}
    activations = {one.tensor: one for one in report.activations}
    worst = _doubtful([layer.effect for layer in rounding])
    suspects = _doubtful([one.effect for one in report.activations])
    for number, place in enumerate(worst):
        layers[rounding[place].node] = of_layer(rounding[place])
        progress("worst layers", number + 1, len(worst))
    for number, place in enumerate(suspects):
        one = report.activations[place]
        activations[one.tensor] = of_activation(one)
        progress("worst activations", number + 1, len(suspects))
    return replace(
        report,
        layers=worst_first(layers.values()),
        activations=worst_first(activations.values()),
    )
