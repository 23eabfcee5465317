"""The passes in the order in which one round runs them, with the reason for their place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.passes.rewrites.batch_norm import FuseInnerProductBatchNorm, MergeBNToConvolution
from trtbuild.passes.rewrites.batch_norm_form import TransformBatchNormal
from trtbuild.passes.rewrites.batch_norm_scale import FuseBatchNormScale
from trtbuild.passes.rewrites.branches import ConstantBranch
from trtbuild.passes.rewrites.clip_ranges import MergeRelu6ToConvolution, MergeReluToConvolution
from trtbuild.passes.rewrites.constant_folding import ConstantFolding
from trtbuild.passes.rewrites.conv1d_quant import (
    Conv1dQuantToConv2dQuant,
    Conv1dQuantToConv2dQuantWhole,
)
from trtbuild.passes.rewrites.expand import ExpandElimination, TurnBinaryToElementwise
from trtbuild.passes.rewrites.group_convolution import TransformGroupConvolution
from trtbuild.passes.rewrites.identity import RemoveDropout, RemoveUnusefulOp
from trtbuild.passes.rewrites.int8_convolution import (
    ConvBNReluFuseToConvInt8,
    ConvBNReluFuseToConvInt8QLinear,
    ConvBNReluFuseToConvInt8Weights,
)
from trtbuild.passes.rewrites.layer_norm import FuseLayerNorm
from trtbuild.passes.rewrites.layout import (
    AddTensorFormatConverter,
    BinaryAddToEltWise,
    ConvActivateFusion,
    TurnCompabilityOpAsNC4HW4,
)
from trtbuild.passes.rewrites.lstm_int8 import LSTMWeightInt8
from trtbuild.passes.rewrites.matmul import MatmulAddFusion, MatmulTransposeFusion
from trtbuild.passes.rewrites.matmul_scale import MatmulScaleFusion
from trtbuild.passes.rewrites.memory_data import FuseMemoryDataBinaryOp
from trtbuild.passes.rewrites.noop import EliminateNoop
from trtbuild.passes.rewrites.one_form import ConvertBinaryToElementwise
from trtbuild.passes.rewrites.orphans import EliminateOrphanedMemoryData
from trtbuild.passes.rewrites.pad import TransformOnnxPad, TransformOnnxPadOpset
from trtbuild.passes.rewrites.pooling import EliminatePooling1x1, ReplaceReductionWithGlobalPooling
from trtbuild.passes.rewrites.prelu import FuseTfPrelu, ReplacePReluWithLeakyRelu
from trtbuild.passes.rewrites.qdq_repair import (
    QdqFloatBias,
    QdqSigned,
    QdqSymmetric,
    QdqWrittenAxis,
)
from trtbuild.passes.rewrites.quantize_pairs import EliminateQuantAndDequant
from trtbuild.passes.rewrites.reshapes import (
    EliminateFlattenAfterGlobalPooling,
    EliminateFlattenAfterInnerProduct,
    EliminateReshapeAfterGlobalPooling,
    EliminateReshapeBeforeBinaryOp,
    RemoveDuplicateReshape,
)
from trtbuild.passes.rewrites.scale_shift import (
    ConvBiasAdd,
    ConvMulFusion,
    FuseBinaryOpEltwise,
    FuseInnerProductAdd,
    MergeScaleToConvolution,
)
from trtbuild.passes.rewrites.shape_nodes import ResolveTfShapeN
from trtbuild.passes.rewrites.shuffle import TransformShuffleChannel
from trtbuild.passes.rewrites.slices import ConcatSliceElimination, SliceElimination
from trtbuild.passes.rewrites.squeezes import (
    EliminateSqueezeExpandDims,
    FoldExpandDimsConst,
    UnsqueezeElimination,
)
from trtbuild.passes.rewrites.subexpressions import (
    CommonSubexpressionElimination,
    TransformerMemcpy,
)
from trtbuild.passes.rewrites.to_convolution import ConvertMatMulToConv2D, TransformInnerProduct
from trtbuild.passes.rewrites.to_inner_product import (
    ConvolutionAfterGlobalPooling,
    ConvolutionAfterInnerProduct,
)
from trtbuild.passes.rewrites.transposes import (
    RemoveDuplicatedTensorConvert,
    RemoveInverseTensorConverter,
    RemoveOutputTensorConvert,
    TensorConverterSameMerge,
)
from trtbuild.passes.rewrites.unique_names import RemoveInplace

if TYPE_CHECKING:
    from trtbuild.passes.pass_base import Pass

__all__ = ["shipped_passes"]


def shipped_passes() -> list[Pass]:
    """Make one of each pass that comes with trtbuild, in order."""
    return [
        # a graph off which every later condition can be read
        RemoveInplace(),  # first of all: shape inference goes by names
        EliminateOrphanedMemoryData(),  # a dead reader would block fusions
        RemoveUnusefulOp(),  # what stands between two operators hides them from each other
        RemoveDropout(),
        FuseMemoryDataBinaryOp(),  # one form of constants for all that follows
        # constants: what they decide is decided before anything is matched
        ResolveTfShapeN(),
        FoldExpandDimsConst(),
        UnsqueezeElimination(),
        ConstantFolding(),
        ConstantBranch(),  # behind the folding, which finds the conditions
        TransformerMemcpy(),  # equal constants are one, so that
        CommonSubexpressionElimination(),  # equal nodes have equal operands
        # nodes that do nothing
        EliminateNoop(),
        SliceElimination(),
        ExpandElimination(),
        TurnBinaryToElementwise(),
        EliminatePooling1x1(),
        ConcatSliceElimination(),
        # chains of reshapes: the special ones first, the general one takes what is left
        EliminateSqueezeExpandDims(),
        EliminateReshapeAfterGlobalPooling(),
        EliminateFlattenAfterGlobalPooling(),
        EliminateFlattenAfterInnerProduct(),
        EliminateReshapeBeforeBinaryOp(),
        TransformShuffleChannel(),  # before its Reshapes are joined with neighbours
        RemoveDuplicateReshape(),
        # patterns of many nodes, before their parts are taken for something else
        FuseLayerNorm(),
        FuseTfPrelu(),
        ReplacePReluWithLeakyRelu(),
        ReplaceReductionWithGlobalPooling(),  # behind layer normalisation, whose means it would take
        ConvertBinaryToElementwise(),
        # layout: cancel first, then sink towards the next chance to cancel
        TensorConverterSameMerge(),
        RemoveOutputTensorConvert(),
        RemoveInverseTensorConverter(),
        RemoveDuplicatedTensorConvert(),
        ConvActivateFusion(),
        BinaryAddToEltWise(),
        AddTensorFormatConverter(),
        TurnCompabilityOpAsNC4HW4(),
        # quantised graphs: into TensorRT's form first, which the others know
        QdqFloatBias(),
        QdqWrittenAxis(),
        QdqSigned(),
        EliminateQuantAndDequant(),
        ConvBNReluFuseToConvInt8(),
        Conv1dQuantToConv2dQuant(),
        # folds into weights: several operators at once before one of them alone
        TransformOnnxPad(),
        MergeBNToConvolution(),
        MergeScaleToConvolution(),
        FuseBinaryOpEltwise(),
        ConvMulFusion(),
        ConvBiasAdd(),
        MatmulTransposeFusion(),  # a Gemm takes in more than a MatMul, so it comes first
        MatmulAddFusion(),
        FuseInnerProductBatchNorm(),
        FuseInnerProductAdd(),
        MatmulScaleFusion(),
        FuseBatchNormScale(),  # for a BN that found no layer to go into
        # activations, once the layers in front of them have taken in what they can
        MergeReluToConvolution(),
        MergeRelu6ToConvolution(),
        # on request, in an order in which opposites leave the later one's form
        TransformOnnxPadOpset(),
        ConvBNReluFuseToConvInt8QLinear(),
        ConvBNReluFuseToConvInt8Weights(),
        Conv1dQuantToConv2dQuantWhole(),
        LSTMWeightInt8(),
        QdqSymmetric(),
        TransformBatchNormal(),
        TransformGroupConvolution(),
        ConvertMatMulToConv2D(),
        TransformInnerProduct(),
        ConvolutionAfterGlobalPooling(),
        ConvolutionAfterInnerProduct(),
    ]
