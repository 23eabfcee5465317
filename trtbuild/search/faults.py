"""Finds the layers at fault: the worst by first-order effect are run alone in INT8 and alone in float."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from trtbuild.progress import silent
from trtbuild.search.candidate import FileCandidate
from trtbuild.search.effects import output_effects
from trtbuild.search.groups import with_pair_only, without_pair
from trtbuild.search.score import worst_sqnr_db
from trtbuild.verification.layers import Effect, Entry, layer_errors, worst_first

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from trtbuild.progress import Progress
    from trtbuild.search.evaluate import Evaluator
    from trtbuild.verification.compare import LabelledBatch
    from trtbuild.verification.layers import LayerReport

__all__ = ["MEASURED", "find_faults"]

MEASURED = 4
"""How many layers, and how many activations, are run, twice each."""


def _doubtful(found: Sequence[Entry]) -> list[Entry]:
    """Those to run: the worst `MEASURED` by first-order effect, and as many of unknown effect."""
    known = [one for one in found if one.effect is not None]
    unknown = [one for one in found if one.effect is None]
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

    layers = {layer.node: layer for layer in report.layers}
    worst = _doubtful([layer for layer in report.layers if layer.node in groups])
    for number, layer in enumerate(worst, 1):
        alone = candidate.with_float(groups - {layer.node}).network()
        without = candidate.with_float({layer.node}).network()
        layers[layer.node] = replace(layer, effect=effect(alone, without))
        progress("worst layers", number, len(worst))
    activations = {one.tensor: one for one in report.activations}
    suspects = _doubtful(report.activations)
    for number, one in enumerate(suspects, 1):
        alone = with_pair_only(quantized, reference, one.tensor)
        without = without_pair(quantized, one.tensor)
        activations[one.tensor] = replace(one, effect=effect(alone, without))
        progress("worst activations", number, len(suspects))
    return replace(
        report, layers=worst_first(layers.values()), activations=worst_first(activations.values())
    )
