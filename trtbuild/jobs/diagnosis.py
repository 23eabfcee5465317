"""Why an engine is far from its float network: the layers at fault, effects of layers, a better rule."""

from __future__ import annotations

import logging
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING

from trtbuild.errors import ModelError
from trtbuild.manifest import OtherRule
from trtbuild.model.parts import output_parts
from trtbuild.progress import Progress, silent
from trtbuild.quantization import insert_qdq
from trtbuild.runtime.onnxruntime import Execution, open_session
from trtbuild.search.effects import Effects, output_effects
from trtbuild.search.evaluate import Evaluator
from trtbuild.search.faults import find_faults
from trtbuild.search.steps import METHODS
from trtbuild.titles import TENSORRT_FORM
from trtbuild.verification.compare import compare
from trtbuild.verification.ruling import FAR_SQNR_DB

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir

    from trtbuild.artifact import Artifact
    from trtbuild.data import Batch
    from trtbuild.verification.compare import Comparison
    from trtbuild.verification.layers import LayerReport

__all__ = ["better_rule", "effects_of", "layers_at_fault"]

_log = logging.getLogger(__name__)

# Another rule is worth suggesting if it gains half a bit.
_CLEARLY_DB = 3.0

_FAULT_BATCHES = 8


def layers_at_fault(
    artifact: Artifact,
    comparisons: Mapping[str, Comparison],
    few: Sequence[Batch],
    progress: Progress = silent,
) -> LayerReport | None:
    """Return the cost of every layer if an output of TensorRT's form is below 20 dB; else None.

    None also for a network that was pruned after loading: its figures show the pruning more than INT8.
    """
    found = comparisons.get(TENSORRT_FORM)
    if found is None or artifact.quantized is None or artifact.reference is not None:
        return None
    if found.worst_sqnr_db is None or found.worst_sqnr_db >= FAR_SQNR_DB:
        return None
    reference = open_session(artifact.model)
    parts = output_parts(artifact.source)
    evaluate = Evaluator(reference, few[:_FAULT_BATCHES], parts=parts)
    return find_faults(artifact.model, artifact.quantized, evaluate, progress)


def effects_of(
    artifact: Artifact,
    layers: LayerReport | None,
    few: Sequence[Batch],
    progress: Progress = silent,
) -> Effects | None:
    """Return the effect of each INT8 layer and activation on the outputs; None if it is not known.

    Args:
        artifact: the network.
        layers: the result of `layers_at_fault`, which has the effects already.
        few: the batches to run.
        progress: called after every run.
    """
    if artifact.quantized is None or not few:
        return None
    if layers is not None:
        by_layer = {one.node: one.effect for one in layers.layers if one.effect}
        by_tensor = {one.tensor: one.effect for one in layers.activations if one.effect}
        return Effects(by_layer, by_tensor)
    try:
        return output_effects(
            artifact.model, artifact.quantized, [one.feeds for one in few], progress
        )
    except ModelError as error:
        _log.debug("no effects of layers are known: %s", error)
        return None


def better_rule(
    artifact: Artifact,
    few: Sequence[Batch],
    progress: Progress = silent,
) -> OtherRule | None:
    """Return the threshold rule that brings TensorRT's form nearest to float, if it is clearly better.

    Args:
        artifact: calibrated with its histograms, and quantized.
        few: the batches to compare on.
        progress: called after each rule.
    """
    calibration = artifact.calibration
    if calibration is None or calibration.histograms is None or artifact.quantized is None:
        return None
    reference = open_session(artifact.source)
    feeds, parts = few[:_FAULT_BATCHES], output_parts(artifact.source)

    def worst_sqnr(model: ir.Model) -> float:
        session = open_session(model, Execution.FLOAT)
        found = compare(reference, session, feeds, parts=parts).worst_sqnr_db
        return inf if found is None else found

    own = worst_sqnr(artifact.quantized)
    best: OtherRule | None = None
    for number, (method, options) in enumerate(METHODS):
        if (method, options) != (calibration.method, dict(calibration.options)):
            chosen = replace(artifact, calibration=calibration.chosen_with(method, **options))
            tried = insert_qdq(chosen).quantized
            assert tried is not None
            sqnr = worst_sqnr(tried)
            if sqnr > max(own + _CLEARLY_DB, best.sqnr_db if best else 0.0):
                extra = "".join(f" --{name} {value:g}" for name, value in options.items())
                best = OtherRule(f"--calibrator {method}{extra}", sqnr, own)
        progress("rules", number + 1, len(METHODS))
    return best
