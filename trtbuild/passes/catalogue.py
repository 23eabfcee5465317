"""Other names of the passes: those of MNN, NCNN and ONNX Runtime, where the rules come from.

Users find a rule that they know from there by its name there. ONNX Runtime's names have underscores for
spaces. ``Name.part`` is a part of the entry ``Name``; a user who says ``Name`` means its parts, too.
"""

from __future__ import annotations

__all__ = ["ALIASES", "aliases_of"]

ALIASES: dict[str, dict[str, str]] = {
    "MNN": {
        "make_names_unique": "RemoveInplace",
        "remove_identity": "RemoveUnusefulOp",
        "remove_dropout": "RemoveDropout",
        "fold_shape": "ResolveTfShapeN",
        "fold_squeeze_axes": "FoldExpandDimsConst",
        "fold_constants": "ConstantFolding",
        "inline_constant_branch": "ConstantFolding.branches",
        "remove_expand_before_binary": "TurnBinaryToElementwise",
        "cancel_squeeze_unsqueeze": "EliminateSqueezeExpandDims",
        "cancel_channel_shuffles": "TransformShuffleChannel",
        "merge_reshapes": "RemoveDuplicateReshape",
        "fuse_layer_norm": "FuseLayerNorm",
        "fuse_prelu": "FuseTfPrelu",
        "convert_sum_to_add": "ConvertBinaryToElementwise",
        "remove_identity_transpose": "TensorConverterSameMerge",
        "remove_transpose_before_output": "RemoveOutputTensorConvert",
        "cancel_inverse_transposes": "RemoveInverseTensorConverter",
        "merge_transposes": "RemoveDuplicatedTensorConvert",
        "sink_transpose_below_add": "BinaryAddToEltWise",
        "sink_transpose_below_qdq": "AddTensorFormatConverter",
        "sink_transpose": "TurnCompabilityOpAsNC4HW4",
        "cancel_dequantize_quantize": "EliminateQuantAndDequant",
        "fold_batch_norm_into_int8_conv": "ConvBNReluFuseToConvInt8",
        "convert_qlinear_conv_to_qdq": "ConvBNReluFuseToConvInt8.qlinear",
        "quantize_conv_weights": "ConvBNReluFuseToConvInt8.weights",
        "sink_squeeze_below_qdq": "Conv1dQuantToConv2dQuant",
        "convert_quantized_conv1d_to_conv2d": "Conv1dQuantToConv2dQuant.conv1d",
        "fuse_pad_into_conv": "TransformOnnxPad",
        "raise_pad_opset": "TransformOnnxPad.opset",
        "fold_batch_norm_into_conv": "MergeBNToConvolution",
        "fold_scale_shift_into_conv": "MergeScaleToConvolution",
        "fold_bias_add": "ConvBiasAdd",
        "merge_relus": "MergeReluToConvolution",
        "merge_clips": "MergeRelu6ToConvolution",
        "quantize_lstm_weights": "LSTMWeightInt8",
        "convert_batch_norm_to_mul_add": "TransformBatchNormal",
        "split_grouped_conv": "TransformGroupConvolution",
        "convert_matmul_to_conv": "ConvertMatMulToConv2D",
        "convert_gemm_to_conv": "TransformInnerProduct",
    },
    "NCNN": {
        "remove_unread": "eliminate_orphaned_memorydata",
        "simplify_constants": "fuse_memorydata_binaryop",
        "remove_noop": "eliminate_noop",
        "remove_pool_1x1": "eliminate_pooling1x1",
        "remove_reshape_after_global_pool": "eliminate_reshape_after_global_pooling",
        "remove_flatten_after_global_pool": "eliminate_flatten_after_global_pooling",
        "remove_flatten_after_gemm": "eliminate_flatten_after_innerproduct",
        "remove_reshape_before_binary": "eliminate_reshape_before_binaryop",
        "convert_prelu_to_leaky_relu": "replace_prelu_with_leaky_relu",
        "convert_mean_to_global_pool": "replace_reduction_with_global_pooling",
        "fold_sum_coefficients": "fuse_binaryop_eltwise",
        "fold_batch_norm_into_gemm": "fuse_innerproduct_batchnorm",
        "fold_add_into_gemm": "fuse_innerproduct_add",
        "fold_scale_shift_into_batch_norm": "fuse_batchnorm_scale",
        "convert_conv_after_global_pool": "replace_convolution_with_innerproduct_after_global_pooling",
        "convert_conv_after_gemm": "replace_convolution_with_innerproduct_after_innerproduct",
    },
    "ONNX Runtime": {
        "fold_unsqueeze": "Unsqueeze_Elimination",
        "merge_equal_constants": "Transformer_Memcpy",
        "merge_equal_nodes": "Common_Subexpression_Elimination",
        "remove_full_slice": "Slice_Elimination",
        "remove_noop_expand": "Expand_Elimination",
        "cancel_concat_slice": "Concat_Slice_Elimination",
        "sink_transpose_below_activation": "Conv_Activate_Fusion",
        "fold_scale_into_conv": "Conv_Mul_Fusion",
        "fuse_transpose_into_gemm": "Matmul_transpose_Fusion",
        "fuse_matmul_add": "Matmul_Add_Fusion",
        "fold_scale_into_matmul": "Matmul_Scale_Fusion",
    },
    "trtbuild before 0.1": {
        "dequantize_bias": "qdq_float_bias",
        "write_qdq_axis": "qdq_written_axis",
        "make_qdq_signed": "qdq_signed",
        "make_qdq_symmetric": "qdq_symmetric",
    },
}
"""Tool -> name of a pass here -> its name in that tool."""


def aliases_of(name: str) -> dict[str, str]:
    """Return tool -> its name for the pass `name`; empty for a pass that no tool has."""
    return {tool: names[name] for tool, names in ALIASES.items() if name in names}
