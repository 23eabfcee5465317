"""Inputs that hold shapes: bounds of their values at build time, the values themselves at run time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest

from tests.trtbuild.backends.tensorrt import networks
from trtbuild.artifact import Artifact
from trtbuild.backends.tensorrt import TensorRTBackend
from trtbuild.backends.tensorrt.profiles import values_for
from trtbuild.errors import OptionError
from trtbuild.model.signature import TensorSpec
from trtbuild.options.tensorrt import TensorRTOptions
from trtbuild.runtime.onnxruntime import open_session
from trtbuild.runtime.tensorrt.engine import ShapeRange

if TYPE_CHECKING:
    from tests.tensorrt_stub.fixtures import Answer, Server
    from tests.tensorrt_stub.world import World

SIZE = TensorSpec("size", np.dtype(np.int64), (4,))
GIVEN = ("size=1,2,2,2:1,2,4,4:1,2,8,8",)


def resizing() -> Artifact:
    text = """<ir_version: 10, opset_import: ["" : 21]>
        g (float[1, 2, 4, 4] x, int64[4] size) => (float[1, 2, H, W] y) {
            y = Resize <mode = "nearest"> (x, , , size)
        }"""
    model: ir.Model = ir.from_proto(onnx.parser.parse_model(text))
    model.graph[0].name = "resize"
    return Artifact("net", model, model)


def feeds(*extents: int) -> dict[str, np.ndarray]:
    x = np.arange(32, dtype=np.float32).reshape(1, 2, 4, 4)
    return {"x": x, "size": np.array([1, 2, *extents])}


def resizes(world: World, sizes: list[tuple[int, int]], **settings: Any) -> dict[str, Any]:
    """Build a Resize whose sizes are an input, run it, and compare each output with ONNX Runtime's."""
    world.shape_inputs.add("size")
    artifact = resizing()
    data = [feeds(2, 6), feeds(4, 4), feeds(4, 4)] if settings.pop("data", False) else None
    graph = settings.pop("cuda_graph", False)
    built = TensorRTBackend().build(networks.request(artifact, data, **settings))
    session = TensorRTBackend(TensorRTOptions(cuda_graph=graph)).open(built.path)
    right = []
    for size in sizes:
        wanted = open_session(artifact.source).run(feeds(*size))["y"]
        right.append(session.run(feeds(*size))["y"].tolist() == wanted.tolist())
    session.close()
    return {"right": right, "values": built.details["profile_values"]}


def test_values_of_a_shape_input_reach_the_profile(tensorrt: Server) -> None:
    answer = tensorrt.run(resizes, sizes=[(2, 2), (8, 8), (3, 5)], shape_values=GIVEN)
    assert answer.error is None, answer.error["trace"]
    assert answer.value["right"] == [True] * 3
    bounds = {"min": [1, 2, 2, 2], "opt": [1, 2, 4, 4], "max": [1, 2, 8, 8]}
    assert answer.value["values"] == [{"size": bounds}]


def test_without_values_the_data_bounds_them(tensorrt: Server) -> None:
    answer = tensorrt.run(resizes, sizes=[(3, 5)], data=True)
    assert answer.error is None, answer.error["trace"]
    bounds = {"min": [1, 2, 2, 4], "opt": [1, 2, 4, 4], "max": [1, 2, 4, 6]}
    assert answer.value == {"right": [True], "values": [{"size": bounds}]}


def test_an_input_without_bounds_is_named_before_the_build(tensorrt: Server) -> None:
    answer = tensorrt.run(resizes, sizes=[])
    assert "the input 'size' holds a shape" in _error(answer)["message"]
    assert "--shape-values 'size=MIN:OPT:MAX', 4 whole numbers each" in _error(answer)["message"]
    assert not answer.called("Builder.build_serialized_network_to_stream")


def test_values_outside_the_profile_are_refused(tensorrt: Server) -> None:
    message = _error(tensorrt.run(resizes, sizes=[(9, 9)], shape_values=GIVEN))["message"]
    assert "with the values {'size': (1, 2, 9, 9)}" in message
    assert "values in profile 0: 'size' (1, 2, 2, 2) to (1, 2, 8, 8)" in message


def test_a_captured_graph_belongs_to_its_values(tensorrt: Server) -> None:
    """Equal shapes in, equal buffers, other values: 4x2 and 2x4 have outputs of one size in bytes."""
    sizes = [(4, 2), (4, 2), (2, 4), (2, 4), (4, 2)]
    answer = tensorrt.run(resizes, sizes=sizes, shape_values=GIVEN, cuda_graph=True)
    assert answer.error is None, answer.error["trace"]
    assert answer.value["right"] == [True] * 5


def asks_for_others(world: World) -> None:
    """Bounds of values of an input that holds no shape."""
    TensorRTBackend().build(networks.request(resizing(), None, shape_values=list(GIVEN)))


def test_values_of_an_input_that_holds_no_shape(tensorrt: Server) -> None:
    assert "whose values are not a shape" in _error(tensorrt.run(asks_for_others))["message"]


def test_texts_become_ranges() -> None:
    ((profile),) = values_for(["size=1,2,2,2:1,2,4,4:1,2,8,8"], [SIZE])
    assert profile == {"size": ShapeRange((1, 2, 2, 2), (1, 2, 4, 4), (1, 2, 8, 8))}
    assert values_for(["k=3"], [TensorSpec("k", np.dtype(np.int32), ())])[0]["k"].max == (3,)
    assert [p["size"].opt[0] for p in values_for(["size=1,1,1,1", "size=2,2,2,2"], [SIZE])] == [
        1,
        2,
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("size=1x2x3x4", "--shape-values 'size=1x2x3x4' cannot be read"),
        ("size=1,2,2,2:1,2,1,4:1,2,8,8", "min <= opt <= max in every value"),
        ("size=1,2", "are 2 whole numbers, but in the network it is int64 of shape 4"),
        ("sizes=1,2,3,4", "the network's inputs are size"),
    ],
)
def test_other_texts_are_refused(text: str, message: str) -> None:
    with pytest.raises(OptionError) as caught:
        values_for([text], [SIZE])
    assert message in str(caught.value)


def _error(answer: Answer) -> dict[str, Any]:
    assert answer.error is not None, "the scenario ended well"
    return answer.error
