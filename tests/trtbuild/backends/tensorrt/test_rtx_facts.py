"""The table of facts on TensorRT for RTX agrees with its builder."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest

from calibrators import Calibration, TensorRange
from tests.trtbuild.backends.tensorrt import networks
from trtbuild.artifact import Artifact
from trtbuild.backends.tensorrt import TensorRTBackend
from trtbuild.model import name_nodes
from trtbuild.plan import PlacementRequest
from trtbuild.quantization import insert_qdq, place, watched_tensors
from trtbuild.runtime.tensorrt.versions import RTX
from trtbuild.target import COMMON, FOR_RTX

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("rtx")

GROUPS = 24


def grouped(read: int, made: int) -> ir.Model:
    """A pointwise convolution, and one of 24 groups."""
    proto = onnx.parser.parse_model(
        f"""<ir_version: 10, opset_import: ["" : 21]>
        net (float[1, 16, 28, 28] x) => (float[1, {made * GROUPS}, 26, 26] y) {{
            [first] a = Conv (x, v)
            [grouped] y = Conv <group = {GROUPS}> (a, w)
        }}"""
    )
    rng = np.random.default_rng(0)
    for name, shape in {
        "v": (read * GROUPS, 16, 1, 1),
        "w": (made * GROUPS, read, 3, 3),
    }.items():
        weight = rng.normal(size=shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
    model: ir.Model = ir.from_proto(proto)
    name_nodes(model)
    return model


def weights_bytes(model: ir.Model, folder: Path, *in_float: str) -> int:
    """Bytes of the plan's weights in INT8 and FP16, from the builder's own message."""
    asked = PlacementRequest(in_float, target=COMMON)
    ranges = {
        name: TensorRange(3.0, 4.0, -4.0, 4.0, "minmax", "", 9, 0)
        for name in watched_tensors(model, asked)
    }
    calibrated = Artifact(
        "net", model, model, calibration=Calibration("minmax", ranges), request=asked
    )
    request = networks.request(
        insert_qdq(calibrated), fp16=True, compute_capabilities=["8.9"], quantization="explicit"
    )
    engine = TensorRTBackend(product=RTX).build(replace(request, directory=folder))
    return int(engine.details["weights_bytes"])


@pytest.mark.parametrize(("read", "made"), [(2, 4), (4, 1), (8, 5)])
def test_groups_are_in_int8_where_that_takes_less_than_fp16(
    read: int, made: int, tmp_path: Path
) -> None:
    model = grouped(read, made)
    placed = place(model, PlacementRequest(target=FOR_RTX))
    (group,) = (one for one in placed.groups if one.name == "grouped")
    int8, half = (weights_bytes(model, tmp_path, *names) for names in ((), ("grouped",)))
    assert group.int8 == (int8 < half)
