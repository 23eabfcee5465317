"""The passes in the order in which one round runs them, with the reason for their place."""

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
    # a graph off which every later condition can be read
    MakeNamesUnique,  # first of all: shape inference goes by names
    RemoveUnread,  # a dead reader would block fusions
    RemoveIdentity,  # what stands between two operators hides them from each other
    RemoveDropout,
    SimplifyConstants,  # one form of constants for all that follows
    # constants: what they decide is decided before anything is matched
    FoldShape,
    FoldSqueezeAxes,
    FoldUnsqueeze,
    FoldConstants,
    InlineConstantBranch,  # behind the folding, which finds the conditions
    MergeEqualConstants,  # equal constants are one, so that
    MergeEqualNodes,  # equal nodes have equal operands
    # nodes that do nothing
    RemoveNoop,
    RemoveFullSlice,
    RemoveNoopExpand,
    RemoveExpandBeforeBinary,
    RemovePool1x1,
    CancelConcatSlice,
    # chains of reshapes: the special ones first, the general one takes what is left
    CancelSqueezeUnsqueeze,
    RemoveReshapeAfterGlobalPool,
    RemoveFlattenAfterGlobalPool,
    RemoveFlattenAfterGemm,
    RemoveReshapeBeforeBinary,
    CancelChannelShuffles,  # before its Reshapes are joined with neighbours
    MergeReshapes,
    # patterns of many nodes, before their parts are taken for something else
    FuseLayerNorm,
    FusePrelu,
    ConvertPreluToLeakyRelu,
    ConvertMeanToGlobalPool,  # behind layer normalisation, whose means it would take
    ConvertSumToAdd,
    # products in the one form that layers know, before Transposes are cancelled
    WriteOutAttention,
    ConvertEinsumToMatmul,
    MoveConstantToRightOfMatmul,
    # layout: cancel first, then sink towards the next chance to cancel
    RemoveIdentityTranspose,
    RemoveTransposeBeforeOutput,
    CancelInverseTransposes,
    MergeTransposes,
    SinkTransposeBelowActivation,
    SinkTransposeBelowAdd,
    SinkTransposeBelowQdq,
    SinkTranspose,
    # quantised graphs: into TensorRT's form first, which the others know
    DequantizeBias,
    WriteQdqAxis,
    MakeQdqSigned,
    CancelDequantizeQuantize,
    FoldBatchNormIntoInt8Conv,
    SinkSqueezeBelowQdq,
    # folds into weights: several operators at once before one of them alone
    FusePadIntoConv,
    FoldBatchNormIntoConv,
    FoldScaleShiftIntoConv,
    FoldSumCoefficients,
    FoldScaleIntoConv,
    FoldBiasAdd,
    FuseTransposeIntoGemm,  # a Gemm takes in more than a MatMul, so it comes first
    FuseMatmulAdd,
    FoldBatchNormIntoGemm,
    FoldAddIntoGemm,
    FoldScaleIntoMatmul,
    FoldScaleShiftIntoBatchNorm,  # for a BN that found no layer to go into
    # activations, once the layers in front of them have taken in what they can
    MergeRelus,
    MergeClips,
    # on request, in an order in which opposites leave the later one's form
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
    """Make one of each pass that comes with trtbuild, in order."""
    return [make() for make in _IN_ORDER]
