"""What Q/DQ are placed for: small tables of facts on what each of NVIDIA's compilers does with INT8.

Where nothing is known of a target, its table says what the others share. docs/tensorrt.md shows the tables
with the source of every line.

Sources:
    [header] NVIDIA's ``NvInfer.h`` of TensorRT 10 and 11, ``IConvolutionLayer::setNbGroups``.
    [Model Optimizer] NVIDIA's ``modelopt.onnx.quantization.graph_utils``.
    [DLA] NVIDIA, "DLA Supported Layers and Restrictions".
    [measured] plans that the builder of TensorRT for RTX 1.7.1 made for compute capability 8.9: which kernels
        there are, on which type, and how large the plan is. Nothing was run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from trtbuild.errors import MissingError
from trtbuild.machine import is_importable

__all__ = [
    "COMMON",
    "FOR_RTX",
    "FOR_TURING",
    "TARGETS",
    "TENSORRT_11",
    "Attention",
    "Target",
    "installed_target",
]


@dataclass(frozen=True)
class Attention:
    """Attention that becomes one INT8 kernel: Q, K, V and the result of Softmax through Q/DQ.

    Attributes:
        longest: most positions; beyond, the parts are kernels of their own.
        head_sizes: sizes of a head that have the kernel; None where that is not known.
        one_head: whether one head of one sample has it, too; where not, both products run in INT8 apart.
        one_query: whether one position that asks has it, too, as where a decoder makes its next word; where
            not, float has a kernel for it.
    """

    longest: int
    head_sizes: frozenset[int] | None = None
    one_head: bool = True
    one_query: bool = True


@dataclass(frozen=True, kw_only=True)
class Target:
    """What one compiler does with INT8.

    Attributes:
        name: as on the command line.
        title: as in reports.
        convolution: whether Conv runs in INT8.
        conv_transpose: whether ConvTranspose does.
        padded_conv_transpose: whether it does with padding, too.
        group_input_multiple: channels that a group reads must be a multiple of this for INT8.
        group_output_multiple: channels that a group makes must be a multiple of this for INT8.
        depthwise: whether a group of one channel runs in INT8 whatever these multiples say.
        average_pool_windows: (size, stride) of the windows of AveragePool that run in INT8, over two axes;
            None for all.
        global_average: whether GlobalAveragePool computes in INT8; where not, it reads that and averages in
            float.
        fewest_outputs: a Gemm or MatMul of fewer outputs is cheaper in float.
        one_pair_for_pool: whether all readers of a MaxPool that is read in INT8 and in float get one Q/DQ
            pair, lest it run twice.
        attention: which attention becomes one INT8 kernel; None where none is known to.
    """

    name: str
    title: str
    convolution: bool = True
    conv_transpose: bool = True
    padded_conv_transpose: bool = True
    group_input_multiple: int = 1
    group_output_multiple: int = 1
    depthwise: bool = True
    average_pool_windows: frozenset[tuple[int, int]] | None = None
    global_average: bool = True
    fewest_outputs: int = 1
    one_pair_for_pool: bool = False
    attention: Attention | None = None


COMMON = Target(name="common", title="no compiler in particular", conv_transpose=False)
"""ConvTranspose gains nothing on TensorRT for RTX and ONNX Runtime, which run it in float [measured], and on
TensorRT the axis of its scales is disputed; all else is INT8 on one of them at least."""

_MODEL_OPTIMIZER = Attention(longest=512)
TENSORRT_10 = Target(
    name="tensorrt-10",
    title="TensorRT 10",
    group_input_multiple=4,  # [header]
    group_output_multiple=4,  # [header]
    depthwise=True,  # [Model Optimizer]
    fewest_outputs=2,  # [Model Optimizer]: products with a vector stay float
    attention=_MODEL_OPTIMIZER,
)
TENSORRT_11 = replace(TENSORRT_10, name="tensorrt-11", title="TensorRT 11")
"""Nobody has said of it what differs from 10."""

FOR_RTX = Target(
    name="rtx",
    title="TensorRT for RTX",
    conv_transpose=False,  # [measured]: float, and the INT8 weight is dequantized at every run
    # [measured]: what other groups read is filled up to it, with zeros that the plan holds
    group_input_multiple=4,
    depthwise=False,
    # [measured], of 2/1, 2/2, 3/1, 3/2, 4/4, 5/1; over one and three axes none
    average_pool_windows=frozenset({(3, 1)}),
    global_average=False,  # [measured]
    fewest_outputs=3,  # [measured]: one or two outputs cost kernels more than in float
    one_pair_for_pool=True,  # [measured]
    # [measured], of heads of 8 to 256, and of 1, 2, 4, 16 and more queries
    attention=Attention(512, frozenset({16, 32, 64}), one_head=False, one_query=False),
)
FOR_TURING = replace(
    FOR_RTX,
    name="rtx-turing",
    title="TensorRT for RTX on Turing, compute capability 7.5",
    convolution=False,  # [measured]: FP16 behind rounding, 10 kernels for 5 in three of them
)
DLA = Target(
    name="dla",
    title="NVIDIA's deep learning accelerator",
    padded_conv_transpose=False,  # [DLA]
)

TARGETS = {one.name: one for one in (COMMON, TENSORRT_10, TENSORRT_11, FOR_RTX, FOR_TURING, DLA)}


def installed_target() -> Target:
    """Return the table of what is installed: TensorRT, else TensorRT for RTX; without either `COMMON`."""
    # here, because it loads NumPy, and help needs the names of targets alone
    from trtbuild.runtime.tensorrt.versions import RTX, installed

    try:
        return TARGETS[f"tensorrt-{installed().major}"]
    except MissingError:  # none, not NVIDIA's, or another version
        pass
    return FOR_RTX if any(is_importable(module) for module in RTX.modules) else COMMON
