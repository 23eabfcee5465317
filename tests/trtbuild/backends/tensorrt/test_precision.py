"""FP16 and INT8: how each version is asked for them, and the check of the result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from tests.trtbuild.backends.tensorrt import networks
from trtbuild.backends.tensorrt import TensorRTBackend

if TYPE_CHECKING:
    from tests.tensorrt_stub.fixtures import Answer, Server
    from tests.tensorrt_stub.world import World

FP16_FLAG, INT8_FLAG = 0, 1


def builds(world: World, int8: bool = True, **settings: Any) -> dict[str, Any]:
    """Build and run; return the parser's input and the result."""
    artifact = networks.calibrated() if int8 else networks.float_artifact()
    data = networks.batches(2) if int8 else None
    backend = TensorRTBackend()
    built = backend.build(networks.request(artifact, data, **settings))
    session = backend.open(built.path)
    feeds = networks.batches(1, seed=8)[0]
    scores = session.run(feeds)["scores"]
    wanted = networks.reference(artifact).run(feeds)["scores"]
    proto = onnx.load_from_string(session._engine.native and _model_of(built.path))
    kinds = {v.data_type for v in proto.graph.initializer if v.name.startswith(("w", "b"))}
    return {
        "details": dict(built.details),
        "float16_weights": onnx.TensorProto.FLOAT16 in kinds,
        "inputs": [v.type.tensor_type.elem_type for v in proto.graph.input],
        "dtype": scores.dtype.name,
        "error": float(np.abs(scores - wanted).max() / np.abs(wanted).max()),
    }


def _model_of(path: Any) -> bytes:
    from tests.tensorrt_stub.world import read_plan

    return read_plan(path.read_bytes())[1]


def _flags(answer: Answer) -> set[int]:
    return {call[0] for call in answer.called("IBuilderConfig.set_flag")}


def test_int8_and_fp16_by_flags_on_weakly_typed_10(tensorrt10: Server) -> None:
    answer = tensorrt10.run(builds, fp16=True)
    assert answer.error is None, answer.error["trace"]
    assert {FP16_FLAG, INT8_FLAG} <= _flags(answer)
    assert answer.called("Builder.create_network") == [[0]]
    assert not answer.value["float16_weights"]


def test_int8_and_fp16_in_the_network_elsewhere(tensorrt: Server) -> None:
    answer = tensorrt.run(builds, fp16=True, quantization="explicit")
    assert answer.error is None, answer.error["trace"]
    assert answer.value["float16_weights"]
    assert answer.value["inputs"] == [onnx.TensorProto.FLOAT]
    assert answer.value["dtype"] == "float32"
    strongly = [[1 << 1]] if tensorrt.major == 10 else [[0]]
    assert answer.called("Builder.create_network") == strongly
    if tensorrt.major == 10:  # with strong typing, a precision flag is an error
        assert not _flags(answer) & {FP16_FLAG, INT8_FLAG}
    assert answer.value["error"] < 0.1


def test_fp16_without_int8(tensorrt10: Server, tensorrt11: Server) -> None:
    by_flag = tensorrt10.run(builds, int8=False, fp16=True)
    assert by_flag.error is None, by_flag.error["trace"]
    assert _flags(by_flag) == {FP16_FLAG}
    typed = tensorrt11.run(builds, int8=False, fp16=True)
    assert typed.error is None, typed.error["trace"]
    assert typed.value["float16_weights"]
    assert typed.value["details"]["quantization"] == "none"
    # FP16 rounds weights and values to 11 bits; the rounding of a few sums stays below 2**-7 of the maximum.
    assert 0 < typed.value["error"] < 2**-7


def test_fp32_alone_sets_nothing(tensorrt: Server) -> None:
    answer = tensorrt.run(builds, int8=False)
    assert answer.error is None, answer.error["trace"]
    assert _flags(answer) == set()
    assert answer.value["error"] < 1e-6


def loses_its_precision(world: World, lost: str, **settings: Any) -> None:
    world.loses.add(lost)
    builds(world, **settings)


def test_an_engine_without_int8_is_an_error(tensorrt: Server) -> None:
    error = tensorrt.run(loses_its_precision, lost="int8").error
    assert error is not None
    assert error["exit_code"] == 1
    assert "INT8 was requested, but no layer of the engine runs in it" in error["message"]


def test_an_engine_without_fp16_is_an_error(tensorrt: Server) -> None:
    error = tensorrt.run(loses_its_precision, lost="fp16", int8=False, fp16=True).error
    assert error is not None
    assert error["exit_code"] == 1
    assert "FP16 was requested" in error["message"]


def test_a_plan_that_tells_nothing_is_said_to_be_unchecked(tensorrt: Server) -> None:
    answer = tensorrt.run(builds, verbosity="layer_names_only")
    assert answer.error is None, answer.error["trace"]
    assert answer.value["details"]["precision"].startswith("not checked")
    names = [layer["name"] for layer in answer.value["details"]["layers"]]
    assert "Conv_c1" in names


def test_dla_is_for_10_and_wants_a_core(tensorrt10: Server, tensorrt11: Server) -> None:
    missing = tensorrt10.run(builds, dla=0).error
    assert missing is not None
    assert missing["message"] == "there is no DLA core 0: this device has 0."
    gone = tensorrt11.run(builds, dla=0).error
    assert gone is not None
    assert "has no implicit INT8, which DLA needs" in gone["message"]
    answer = tensorrt10.run(builds_on_dla, dla=1)
    assert answer.called("IBuilderConfig.set_default_device_type") == [[1]]
    assert answer.called("IBuilderConfig.set_dla_core") == [[1]]
    assert {3, INT8_FLAG} <= _flags(answer)  # GPU_FALLBACK


def builds_on_dla(world: World, dla: int) -> dict[str, Any]:
    world.dla_cores = 2
    return builds(world, dla=dla)
