"""Networks cut in front of foreign operators: TensorRT gets the whole, and some outputs are compared."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from tests.trtbuild.backends.tensorrt import networks
from trtbuild.artifact import Artifact
from trtbuild.backends.tensorrt import TensorRTBackend
from trtbuild.data import batches
from trtbuild.data.samples import Sample
from trtbuild.jobs.compare import compare_with_float, forms_beside
from trtbuild.model import name_nodes
from trtbuild.model.cut import cut, operators_outside
from trtbuild.options.compare import ComparisonOptions
from trtbuild.runtime.onnxruntime import open_session
from trtbuild.titles import ENGINE

if TYPE_CHECKING:
    from tests.tensorrt_stub.fixtures import Server
    from tests.tensorrt_stub.world import World


def artifact(early: bool) -> Artifact:
    """The small network with a Gelu of another domain on its scores; ONNX Runtime stands in for a plugin."""
    model = networks.network()
    (scores,) = model.graph.outputs
    scores.name = "logits"
    gelu = ir.node(
        "Gelu", [scores], domain="com.microsoft", outputs=[ir.Value(name="scores")], name="act"
    )
    gelu.outputs[0].type, gelu.outputs[0].shape = scores.type, scores.shape
    model.graph.append(gelu)
    model.graph.outputs[:] = [gelu.outputs[0], *([scores] if early else [])]
    model.opset_imports["com.microsoft"] = 1
    name_nodes(model)
    front, found = cut(model, operators_outside(model, lambda domain, _: domain == ""))
    return Artifact("net", front, front, cut=found)


def compares(world: World, early: bool) -> dict[str, Any]:
    """Build and compare; return the engine's outputs, and the compared ones with their errors."""
    samples = [
        Sample(str(number), bytes([number]), lambda feeds=feeds: feeds)
        for number, feeds in enumerate(networks.batches(4))
    ]
    made = networks.with_ranges(artifact(early))
    backend = TensorRTBackend()
    session = backend.open(
        backend.build(networks.request(made, networks.batches(4), quantization="explicit")).path
    )
    with forms_beside(made, {ENGINE: session}) as candidates:
        reference = open_session(made.float_reference)
        found, _ = compare_with_float(
            made, reference, candidates, batches(samples, 1), ComparisonOptions()
        )
    outputs = [spec.name for spec in session.outputs]
    session.close()
    return {
        "outputs": outputs,
        "compared": {name: [one.name for one in item.outputs] for name, item in found.items()},
    }


def test_outputs_that_both_have_are_compared(tensorrt11: Server) -> None:
    answer = tensorrt11.run(compares, early=True)
    assert answer.error is None, answer.error["trace"]
    assert answer.value["outputs"] == ["scores", "logits"]
    assert answer.value["compared"] == {"tensorrt_form": ["logits"], "engine": ["logits"]}


def test_an_engine_with_no_output_in_front_is_built_and_not_compared(tensorrt11: Server) -> None:
    answer = tensorrt11.run(compares, early=False)
    assert answer.error is None, answer.error["trace"]
    assert answer.value["outputs"] == ["scores"]
    assert answer.value["compared"] == {"tensorrt_form": ["logits"]}


def test_implicit_builds_get_the_whole_network(tensorrt10: Server) -> None:
    answer = tensorrt10.run(whole_networks)
    assert answer.error is None, answer.error["trace"]
    assert answer.value == [True, True, True]


def whole_networks(world: World) -> list[bool]:
    """Return whether the plans of each precision compute the whole network."""
    answers = []
    plain = artifact(early=False)
    calibrated = networks.with_ranges(plain)
    for made, options in (
        (plain, {"fp16": True}),
        (calibrated, {"quantization": "implicit"}),
        (replace(calibrated, name="typed"), {"quantization": "explicit", "fp16": True}),
    ):
        backend = TensorRTBackend()
        built = backend.build(networks.request(made, networks.batches(4), **options))
        session = backend.open(built.path)
        outputs = session.run(networks.batches(1)[0])
        answers.append(list(outputs) == ["scores"] and bool(np.isfinite(outputs["scores"]).all()))
        session.close()
    return answers
