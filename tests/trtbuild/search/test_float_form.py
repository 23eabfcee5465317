"""The float network of a Q/DQ file is found again where its channels were scaled before it was rounded."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from tests.trtbuild.verification.small_network import (
    batches,
    float_network,
    images,
    quantized,
    run,
    spoil_weight_scale,
)
from trtbuild.runtime.onnxruntime import open_session
from trtbuild.search.evaluate import Evaluator
from trtbuild.search.faults import find_faults
from trtbuild.search.float_form import float_form


def uneven() -> ir.Model:
    """The same function as `float_network`, with very unequal channels between its second and third layer."""
    model = float_network()
    factors = np.geomspace(1 / 30, 30, 8).astype(np.float32)
    outside = factors[:, None, None, None]
    inside = 1 / factors[:, None, None]
    weights = model.graph.initializers
    for name, shaped in (("w1", outside), ("b1", factors), ("w2", inside)):
        content = weights[name].const_value.numpy() * shaped
        weights[name].const_value = ir.tensor(content, name=name)
    return model


def found_for(built: ir.Model, original: ir.Model) -> ir.Model:
    return float_form(built, original, Evaluator(open_session(original), batches()))


def test_a_network_that_was_only_rounded_is_its_own() -> None:
    model = float_network()
    assert found_for(quantized().quantized, model) is model


def test_a_scale_that_nothing_takes_back_is_no_scaled_channel() -> None:
    model, spoilt = float_network(), quantized().quantized
    spoil_weight_scale(spoilt, "Conv_a0", 0.2)
    assert found_for(spoilt, model) is model


def test_scaled_channels_are_found_again() -> None:
    # as a build equalizes the channels
    found = found_for(quantized().quantized, uneven())
    assert not any("QuantizeLinear" in node.op_type for node in found.graph)
    data = images(3)
    wanted, own = (run(one, data)["logits"].astype(np.float64) for one in (uneven(), found))
    noise = np.square(wanted - own).sum() / np.square(wanted).sum()
    # a weight alone is rounded to some 40 dB; its factors are means over many of its elements
    assert 10 * np.log10(1 / noise) > 45


def test_no_layer_is_blamed_for_a_scale_that_its_neighbour_takes_back() -> None:
    built, original = quantized().quantized, uneven()
    evaluate = Evaluator(open_session(original), batches())
    found = find_faults(found_for(built, original), built, evaluate)
    assert min(layer.effect.alone_sqnr_db for layer in found.layers) > 25
    # compared with the original network, a scaled layer seems to lose everything
    wrong = find_faults(original, built, evaluate)
    assert min(layer.effect.alone_sqnr_db for layer in wrong.layers) < 5
