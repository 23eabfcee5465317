"""Other tools' threshold rules, to compare their thresholds with ours; not meant for deployment.

Each rule works on the tool's own grid, which `calibrators.presets.grids` fills from our histogram as
if all data came in one batch. If a tool's grid grows with its batches, the tool's own threshold
depends on their order. The rules keep the quirks of their tools. docs/calibration-methods.md compares
them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from calibrators.presets.one_sided import (
    caffe_int8,
    easyquant,
    gtc2017,
    mnn,
    modelopt,
    ncnn,
    ppq,
    tpu_mlir,
)
from calibrators.presets.two_sided import mxnet, onnxruntime, paddleslim, two_sided_4001

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["PRESETS"]

PRESETS: Mapping[str, Callable[..., tuple[float, str]]] = {
    "gtc2017": gtc2017,
    "modelopt": modelopt,
    "tpu-mlir": tpu_mlir,
    "mxnet": mxnet,
    "two-sided-4001": two_sided_4001,
    "onnxruntime": onnxruntime,
    "ncnn": ncnn,
    "mnn": mnn,
    "caffe-int8": caffe_int8,
    "easyquant": easyquant,
    "ppq": ppq,
    "paddleslim": paddleslim,
}
"""Name to rule; see `calibrators.methods.METHODS`."""
