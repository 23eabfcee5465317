"""The cause of ruined outputs is named first: found by runs, not only by gradients."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
import pytest

from tests.fakes import FakeBatch
from tests.trtbuild.verification.small_network import batches, images, quantized, run
from trtbuild.model.qdq import activation_pairs
from trtbuild.runtime.onnxruntime import open_session
from trtbuild.search.effects import output_effects
from trtbuild.search.evaluate import Evaluator
from trtbuild.search.faults import MEASURED, find_faults
from trtbuild.search.groups import find_groups, with_float, with_pair_only, without_pair

TENSORS = sorted(activation_pairs(quantized().quantized))


def spoil_range(model: ir.Model, tensor: str, factor: float) -> None:
    """Multiply the scale of the pair behind a tensor, in place, and of no other pair."""
    pair = activation_pairs(model)[tensor]
    scale = pair.quantize.inputs[1]
    new = ir.Value(
        name="spoilt",
        type=scale.type,
        shape=scale.shape,
        const_value=ir.tensor(scale.const_value.numpy() * np.float32(factor), name="spoilt"),
    )
    model.graph.register_initializer(new)
    for node in (pair.quantize, pair.dequantize):
        node.replace_input_with(1, new)


def evaluator(artifact) -> Evaluator:
    return Evaluator(open_session(artifact.model), batches(count=8, size=4))


@pytest.mark.parametrize("tensor", ["r0", "r1", "lastr"])
def test_a_range_that_alone_ruins_the_output_is_first(tensor) -> None:
    artifact = quantized()
    spoil_range(artifact.quantized, tensor, 1 / 30)
    evaluate = evaluator(artifact)
    found = find_faults(artifact.model, artifact.quantized, evaluate)
    worst, second = found.activations[:2]
    assert worst.tensor == tensor
    assert worst.clipped_percent > 10
    assert worst.effect.measured
    assert worst.effect.alone_sqnr_db < second.effect.alone_sqnr_db - 10
    assert worst.effect.gained_db > 3
    readers = {
        use.node.name
        for use in activation_pairs(artifact.quantized)[tensor].dequantize.outputs[0].uses()
    }
    assert found.layers[0].node in readers
    assert sum(one.effect.measured for one in found.layers) == MEASURED
    assert evaluate.num_evaluations <= 1 + 4 * MEASURED


def test_effects_are_those_of_first_order() -> None:
    """A mean of 16 squares of normal numbers: its deviation is sqrt(2 / 16) of it, or 1.5 dB.

    The tolerance is three times that, less than 5 dB, and allows for effects of higher order.
    """
    artifact = quantized()
    groups = {group.name for group in find_groups(artifact.quantized)}
    found = output_effects(artifact.model, artifact.quantized, [one.feeds for one in batches()])
    y = run(artifact.model, images())["logits"].astype(np.float64)

    def sqnr(model: ir.Model) -> float:
        noise = y - run(model, images())["logits"]
        return 10 * math.log10((y**2).sum() / (noise**2).sum())

    assert set(found.layers) >= groups
    for name in groups:
        effect = found.layers[name]
        alone = with_float(artifact.quantized, artifact.model, groups - {name})
        without = with_float(artifact.quantized, artifact.model, {name})
        assert not effect.measured
        assert effect.alone_sqnr_db == pytest.approx(sqnr(alone), abs=5)
        gained = sqnr(without) - sqnr(artifact.quantized)
        assert effect.gained_db == pytest.approx(gained, abs=5)


@pytest.mark.parametrize("tensor", TENSORS)
def test_a_pair_alone_and_all_but_it(tensor) -> None:
    artifact = quantized()
    alone = with_pair_only(artifact.quantized, artifact.model, tensor)
    assert set(activation_pairs(alone)) == {tensor}
    assert sum(node.op_type == "QuantizeLinear" for node in alone.graph) == 1
    rest = without_pair(artifact.quantized, tensor)
    assert set(activation_pairs(rest)) == set(TENSORS) - {tensor}
    pair = activation_pairs(alone)[tensor]
    pair.dequantize.outputs[0].replace_all_uses_with(pair.source)
    expected = run(artifact.model, images())["logits"]
    np.testing.assert_array_equal(run(alone, images())["logits"], expected)


def test_an_output_of_integers_is_judged_by_what_it_is_chosen_by() -> None:
    artifact = quantized()
    spoil_range(artifact.quantized, "r0", 1 / 30)
    for model in (artifact.model, artifact.quantized):
        chosen = ir.node("ArgMax", [model.graph.outputs[0]], {"axis": 1}, name="chosen")
        chosen.outputs[0].name, chosen.outputs[0].dtype = "class", ir.DataType.INT64
        model.graph.append(chosen)
        model.graph.outputs[0] = chosen.outputs[0]
    data = [FakeBatch(batch.feeds, None, batch.names) for batch in batches(count=8, size=4)]
    evaluate = Evaluator(open_session(artifact.model), data)
    found = find_faults(artifact.model, artifact.quantized, evaluate)
    assert found.activations[0].tensor == "r0"
    assert not any(one.effect.measured for one in found.activations)
