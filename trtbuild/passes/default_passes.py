"""The passes in the order of one round, with the reasons for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.passes.rewrites.attention import WriteOutAttention
from trtbuild.passes.rewrites.batch_norm import (
    ConvertBatchNormToMulAdd,
    FoldBatchNormIntoConv,
    FoldBatchNormIntoGemm,
    FoldScaleShiftIntoBatchNorm,
)
from trtbuild.passes.rewrites.branches import InlineConstantBranch
from trtbuild.passes.rewrites.cleanup import MakeNamesUnique, RemoveUnread, SimplifyConstants
from trtbuild.passes.rewrites.clip_ranges import MergeClips, MergeRelus
from trtbuild.passes.rewrites.constant_folding import FoldConstants
from trtbuild.passes.rewrites.conv1d_quant import (
    ConvertQuantizedConv1dToConv2d,
    SinkSqueezeBelowQdq,
)
from trtbuild.passes.rewrites.group_convolution import SplitGroupedConv
from trtbuild.passes.rewrites.identity import RemoveDropout, RemoveIdentity
from trtbuild.passes.rewrites.int8_convolution import (
    ConvertQlinearConvToQdq,
    FoldBatchNormIntoInt8Conv,
    QuantizeConvWeights,
)
from trtbuild.passes.rewrites.layer_norm import FuseLayerNorm
from trtbuild.passes.rewrites.layout import (
    SinkTranspose,
    SinkTransposeBelowActivation,
    SinkTransposeBelowAdd,
    SinkTransposeBelowQdq,
)
from trtbuild.passes.rewrites.lstm_int8 import QuantizeLstmWeights
from trtbuild.passes.rewrites.matmul import FuseMatmulAdd, FuseTransposeIntoGemm
from trtbuild.passes.rewrites.matmul_scale import FoldScaleIntoMatmul
from trtbuild.passes.rewrites.noop import RemoveExpandBeforeBinary, RemoveNoop, RemoveNoopExpand
from trtbuild.passes.rewrites.one_form import ConvertSumToAdd
from trtbuild.passes.rewrites.pad import FusePadIntoConv, RaisePadOpset
from trtbuild.passes.rewrites.pooling import ConvertMeanToGlobalPool, RemovePool1x1
from trtbuild.passes.rewrites.prelu import ConvertPreluToLeakyRelu, FusePrelu
from trtbuild.passes.rewrites.products import ConvertEinsumToMatmul, MoveConstantToRightOfMatmul
from trtbuild.passes.rewrites.qdq_repair import (
    DequantizeBias,
    MakeQdqSigned,
    MakeQdqSymmetric,
    WriteQdqAxis,
)
from trtbuild.passes.rewrites.quantize_pairs import CancelDequantizeQuantize
from trtbuild.passes.rewrites.reshapes import (
    CancelChannelShuffles,
    MergeReshapes,
    RemoveFlattenAfterGemm,
    RemoveFlattenAfterGlobalPool,
    RemoveReshapeAfterGlobalPool,
    RemoveReshapeBeforeBinary,
)
from trtbuild.passes.rewrites.scale_shift import (
    FoldAddIntoGemm,
    FoldBiasAdd,
    FoldScaleIntoConv,
    FoldScaleShiftIntoConv,
    FoldSumCoefficients,
)
from trtbuild.passes.rewrites.sequences import ConvertSplitToSequence
from trtbuild.passes.rewrites.shape_nodes import FoldShape
from trtbuild.passes.rewrites.slices import CancelConcatSlice, RemoveFullSlice
from trtbuild.passes.rewrites.squeezes import (
    CancelSqueezeUnsqueeze,
    FoldSqueezeAxes,
    FoldUnsqueeze,
)
from trtbuild.passes.rewrites.subexpressions import (
    MergeEqualConstants,
    MergeEqualNodes,
)
from trtbuild.passes.rewrites.to_convolution import ConvertGemmToConv, ConvertMatmulToConv
from trtbuild.passes.rewrites.to_inner_product import (
    ConvertConvAfterGemm,
    ConvertConvAfterGlobalPool,
)
from trtbuild.passes.rewrites.transposes import (
    CancelInverseTransposes,
    MergeTransposes,
    RemoveIdentityTranspose,
    RemoveTransposeBeforeOutput,
)

if TYPE_CHECKING:
    from trtbuild.passes.pass_base import Pass

__all__ = ["shipped_passes"]


_IN_ORDER: tuple[type[Pass], ...] = (
    # first bring the graph into a form in which every later condition can be checked
    MakeNamesUnique,  # first of all: shape inference identifies tensors by name
    RemoveUnread,  # a dead reader would block fusions
    RemoveIdentity,  # operators between two others hide these from each other
    RemoveDropout,
    SimplifyConstants,  # one form of constants for all later passes
    # constants: compute what depends on them before any pattern is matched
    FoldShape,
    FoldSqueezeAxes,
    FoldUnsqueeze,
    FoldConstants,
    InlineConstantBranch,  # after folding, which computes the conditions
    ConvertSplitToSequence,  # after folding, which computes sizes and positions
    MergeEqualConstants,  # equal constants become one, so that
    MergeEqualNodes,  # equal nodes have equal operands
    # nodes that do nothing
    RemoveNoop,
    RemoveFullSlice,
    RemoveNoopExpand,
    RemoveExpandBeforeBinary,
    RemovePool1x1,
    CancelConcatSlice,
    # chains of reshapes: the special passes first, then the general one
    CancelSqueezeUnsqueeze,
    RemoveReshapeAfterGlobalPool,
    RemoveFlattenAfterGlobalPool,
    RemoveFlattenAfterGemm,
    RemoveReshapeBeforeBinary,
    CancelChannelShuffles,  # before its Reshapes are merged with neighbours
    MergeReshapes,
    # patterns of many nodes, before other passes rewrite parts of them
    FuseLayerNorm,
    FusePrelu,
    ConvertPreluToLeakyRelu,
    ConvertMeanToGlobalPool,  # after layer normalization, whose means it would convert
    ConvertSumToAdd,
    # products in the form that the later passes know, before Transposes are cancelled
    WriteOutAttention,
    ConvertEinsumToMatmul,
    MoveConstantToRightOfMatmul,
    # layout: cancel first, then sink Transposes towards others that cancel them
    RemoveIdentityTranspose,
    RemoveTransposeBeforeOutput,
    CancelInverseTransposes,
    MergeTransposes,
    SinkTransposeBelowActivation,
    SinkTransposeBelowAdd,
    SinkTransposeBelowQdq,
    SinkTranspose,
    # quantized graphs: first into TensorRT's form, which the other passes know
    DequantizeBias,
    WriteQdqAxis,
    MakeQdqSigned,
    CancelDequantizeQuantize,
    FoldBatchNormIntoInt8Conv,
    SinkSqueezeBelowQdq,
    # folds into weights: several operators at once before single ones
    FusePadIntoConv,
    FoldBatchNormIntoConv,
    FoldScaleShiftIntoConv,
    FoldSumCoefficients,
    FoldScaleIntoConv,
    FoldBiasAdd,
    FuseTransposeIntoGemm,  # a Gemm absorbs more than a MatMul, so it comes first
    FuseMatmulAdd,
    FoldBatchNormIntoGemm,
    FoldAddIntoGemm,
    FoldScaleIntoMatmul,
    FoldScaleShiftIntoBatchNorm,  # for a BN that no layer could absorb
    # activations, after the layers before them have absorbed what they can
    MergeRelus,
    MergeClips,
    # on request; of two opposite passes, the later one decides the form
    RaisePadOpset,
    ConvertQlinearConvToQdq,
    QuantizeConvWeights,
    ConvertQuantizedConv1dToConv2d,
    QuantizeLstmWeights,
    MakeQdqSymmetric,
    ConvertBatchNormToMulAdd,
    SplitGroupedConv,
    ConvertMatmulToConv,
    ConvertGemmToConv,
    ConvertConvAfterGlobalPool,
    ConvertConvAfterGemm,
)


def shipped_passes() -> list[Pass]:
    """Make an instance of each pass of trtbuild, in order."""
    return [make() for make in _IN_ORDER]
