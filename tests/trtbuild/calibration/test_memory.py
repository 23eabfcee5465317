"""Memory does not grow with the number of images."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import pytest

from tests.trtbuild.calibration.small_files import write_network
from trtbuild.calibration import CalibrateOptions, collect, float_tensors, observed_network
from trtbuild.calibration.as_tensorrt import calibrate_as_tensorrt
from trtbuild.data.callables import CallableSource
from trtbuild.model.signature import TensorSpec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SHAPE = (1, 3, 32, 32)
IMAGE_BYTES = 4 * int(np.prod(SHAPE))
MANY = 2500
NETWORK = """<ir_version: 8, opset_import: ["" : 17]> n (float[N, 3, 32, 32] x) => (float[N, 3, 16, 16] y) {
  a = Relu (x)
  b = Add (a, x)
  y = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (b)
}"""


def images(count: int) -> CallableSource:
    """Images made when they are read, and not kept."""

    def made() -> Iterator[dict[str, np.ndarray]]:
        rng = np.random.default_rng(8)
        for _ in range(count):
            yield {"x": rng.standard_normal(SHAPE).astype(np.float32)}

    return CallableSource(
        "made:images", made, (TensorSpec("x", np.dtype(np.float32), ("N", *SHAPE[1:])),)
    )


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_network(tmp_path_factory.mktemp("network") / "n.onnx", NETWORK)


def collected(path: Path, source: CallableSource) -> None:
    model = ir.load(path)
    collect(observed_network(model, float_tensors(model)), source, threads=1)


def as_tensorrt(path: Path, source: CallableSource) -> None:
    model = ir.load(path)
    size = CalibrateOptions().batch_size
    calibrate_as_tensorrt(model, source, float_tensors(model), size, provenance={})


@pytest.mark.parametrize("function", [collected, as_tensorrt])
def test_thousands_of_images_fit_where_a_few_do(function, network) -> None:
    function(network, images(2))  # loads compiled code
    tracemalloc.start()
    try:
        function(network, images(MANY))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # 16 MiB of activations may wait to be counted, whatever the number of images.
    assert MANY * IMAGE_BYTES > 28 * 2**20
    assert peak < 22 * 2**20
