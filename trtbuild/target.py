"""Targets for the placement of Q/DQ: small tables of what each of NVIDIA's compilers does with INT8.

If a fact about a target is not known, its table has what the others share. docs/tensorrt.md shows the tables
with the source of every line.

Sources:
    [header] NVIDIA's ``NvInfer.h`` of TensorRT 10 and 11, ``IConvolutionLayer::setNbGroups``.
    [Model Optimizer] NVIDIA's ``modelopt.onnx.quantization.graph_utils``.
    [DLA] NVIDIA, "DLA Supported Layers and Restrictions".
    [measured] plans that the builder of TensorRT for RTX 1.7.1 made for compute capability 8.9: their
        kernels, the kernels' types, and the size of the plan. No plan was run.
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
    """Which attention becomes one INT8 kernel, if Q, K, V and the output of Softmax have Q/DQ.

    Attributes:
        longest: the most positions; with more, each part of the attention is a kernel of its own.
        head_sizes: head sizes with such a kernel; None if not known.
        one_head: whether a single head of one sample has it, too; if not, both products run in INT8
            separately.
        one_query: whether a single query has it, too, as when a decoder generates a token; if not, there is
            a kernel in float.
    """

    longest: int
    head_sizes: frozenset[int] | None = None
    one_head: bool = True
    one_query: bool = True


@dataclass(frozen=True, kw_only=True)
class Target:
    """What one compiler does with INT8.

    Attributes:
        name: name on the command line.
        title: name in reports.
        convolution: whether Conv runs in INT8.
        conv_transpose: whether ConvTranspose runs in INT8.
        padded_conv_transpose: whether ConvTranspose with padding runs in INT8.
        group_input_multiple: a group's input channels must be a multiple of this for INT8.
        group_output_multiple: a group's output channels must be a multiple of this for INT8.
        depthwise: whether a group of one channel runs in INT8 despite these multiples.
        average_pool_windows: (size, stride) of the AveragePool windows over two axes that run in INT8; None
            for all.
        global_average: whether GlobalAveragePool computes in INT8; if not, it reads INT8 and averages in
            float.
        fewest_outputs: a Gemm or MatMul with fewer outputs is cheaper in float.
        one_pair_for_pool: whether all readers of a MaxPool that has readers in INT8 and in float get one Q/DQ
            pair, so that it does not run twice.
        attention: which attention becomes one INT8 kernel; None if none is known.
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
"""For any compiler: all that runs in INT8 on at least one. ConvTranspose is left out: TensorRT for RTX and
ONNX Runtime run it in float [measured], and for TensorRT the per-channel axis of its scales is disputed."""

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
"""No difference from TensorRT 10 is documented."""

FOR_RTX = Target(
    name="rtx",
    title="TensorRT for RTX",
    conv_transpose=False,  # [measured]: float, and the INT8 weight is dequantized at every run
    # [measured]: input channels of other groups are padded to this multiple, with zeros stored in the plan
    group_input_multiple=4,
    depthwise=False,
    # [measured]: of 2/1, 2/2, 3/1, 3/2, 4/4, 5/1 only this one; none over one or three axes
    average_pool_windows=frozenset({(3, 1)}),
    global_average=False,  # [measured]
    fewest_outputs=3,  # [measured]: one or two outputs need more kernels than in float
    one_pair_for_pool=True,  # [measured]
    # [measured], with head sizes of 8 to 256, and with 1, 2, 4, 16 and more queries
    attention=Attention(512, frozenset({16, 32, 64}), one_head=False, one_query=False),
)
FOR_TURING = replace(
    FOR_RTX,
    name="rtx-turing",
    title="TensorRT for RTX on Turing, compute capability 7.5",
    convolution=False,  # [measured]: runs in FP16 after rounding; three of them took 10 kernels, not 5
)
DLA = Target(
    name="dla",
    title="NVIDIA's deep learning accelerator",
    padded_conv_transpose=False,  # [DLA]
)

TARGETS = {one.name: one for one in (COMMON, TENSORRT_10, TENSORRT_11, FOR_RTX, FOR_TURING, DLA)}


def installed_target() -> Target:
    """Return the table of the installed compiler: TensorRT, else TensorRT for RTX, else `COMMON`."""
    # imported here, because it loads NumPy, and `--help` needs only the names of targets
    from trtbuild.runtime.tensorrt.versions import RTX, installed

    try:
        return TARGETS[f"tensorrt-{installed().major}"]
    except MissingError:  # none, not NVIDIA's, or another version
        pass
    return FOR_RTX if any(is_importable(module) for module in RTX.modules) else COMMON
