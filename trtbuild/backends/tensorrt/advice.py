"""Advice for cases where TensorRT refuses a node, builds no engine, or ends its process.

The reasons for refused nodes are the parser's, collected by giving TensorRT for RTX 1.7 every network of the
``onnx`` package's own tests.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = [
    "advice_on",
    "advice_on_build",
    "advice_on_death",
    "plain_reason",
    "wants_condition",
    "wants_constant",
    "wants_plugin",
]

_PLUGIN = re.compile(r"plugin|No importer registered", re.IGNORECASE)
_UNREGISTERED = "input was not registered"
_CONSTANT = re.compile(r"constant|initializer|is_weights|resolvedWeights", re.IGNORECASE)


@dataclass(frozen=True)
class _Advice:
    """What to do, for some operators (all if none is named) and some reasons (all if none is given)."""

    text: str
    operators: tuple[str, ...] = ()
    reason: str = ""

    def fits(self, operator: str, reason: str) -> bool:
        """Return whether the advice is for this operator and TensorRT's reason for refusing it."""
        known = not self.operators or operator in self.operators
        return known and bool(re.search(self.reason, reason, re.IGNORECASE))


# The first entry that fits is used.
_TABLE = (
    _Advice(
        "TensorRT accepts no INT32 in a DequantizeLinear; `trtbuild engine --quantized` makes such "
        "biases float",
        ("DequantizeLinear",),
        reason="INT32",
    ),
    _Advice(
        "zero points must be 0 and integers signed; `trtbuild engine --quantized` rewrites what can be "
        "rewritten exactly, else quantize the float network anew",
        ("QuantizeLinear", "DequantizeLinear"),
        reason="zero point|UINT8|unsupported input type",
    ),
    _Advice(
        "give every Q/DQ a scale above zero that is a constant",
        ("QuantizeLinear", "DequantizeLinear"),
        reason="scale",
    ),
    _Advice(
        "`trtbuild engine --quantized` turns it into Q/DQ around the float operator, which TensorRT takes",
        ("QLinearConv", "QLinearMatMul", "QGemm", "QLinearAdd", "QLinearMul", "QLinearConcat",
         "QLinearSigmoid", "QLinearLeakyRelu", "QLinearAveragePool", "QLinearGlobalAveragePool"),
    ),
    _Advice(
        "quantize the float network with Q/DQ; in TensorRT the scales of integers are constants, not "
        "computed at run time",
        ("ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"),
    ),
    _Advice(
        "export it as x * Sigmoid(1.702 x), with an option of the exporter",
        ("QuickGelu",),
    ),
    _Advice(
        "export the network as it was before ONNX Runtime's optimizer fused it",
        ("FusedConv", "FusedGemm", "FusedMatMul", "BiasGelu", "FastGelu", "SkipLayerNormalization",
         "SkipSimplifiedLayerNormalization", "EmbedLayerNormalization", "MultiHeadAttention",
         "GroupQueryAttention"),
        reason="plugin|importer",
    ),
    _Advice(
        "cut the network before it, or export with EfficientNMS_TRT, which TensorRT has, but TensorRT "
        "for RTX does not",
        ("NonMaxSuppression",),
    ),
    _Advice(
        "TensorRT has it as a built-in plugin, TensorRT for RTX does not: build with TensorRT, or "
        "multiply by a mask where the positions are used",
        ("NonZero",),
    ),
    _Advice(
        "TensorRT has it as a built-in plugin, TensorRT for RTX does not: build with TensorRT, or cut "
        "the network before it",
        ("RoiAlign",),
    ),
    _Advice(
        "TensorRT has it as a built-in plugin, TensorRT for RTX does not: build with TensorRT, load a "
        "plugin with --plugin LIB, or cut the network before it",
        ("BatchedNMSDynamic_TRT", "BatchedNMS_TRT", "EfficientNMS_TRT", "InstanceNormalization_TRT",
         "MultiscaleDeformableAttnPlugin_TRT", "NMS_TRT", "PyramidROIAlign_TRT", "ROIAlign_TRT"),
        reason="plugin",
    ),
    _Advice(
        "`trtbuild optimize` writes it as a Split where the sizes and the positions are constants, which "
        "`trtbuild engine` does by itself; else export tensors: TensorRT has no lists",
        ("SplitToSequence", "SequenceAt", "SequenceLength"),
    ),
    _Advice(
        "export tensors and unrolled loops: lists and optional values have no counterpart in TensorRT",
        ("SequenceEmpty", "SequenceInsert", "SequenceConstruct", "SequenceMap", "ConcatFromSequence",
         "Optional", "OptionalGetElement", "OptionalHasElement"),
    ),
    _Advice(
        "do this before the network; texts have no place in an engine",
        ("StringConcat", "StringSplit", "StringNormalizer", "RegexFullMatch", "TfIdfVectorizer",
         "LabelEncoder"),
    ),
    _Advice(
        "export the network for inference, without its loss",
        ("SoftmaxCrossEntropyLoss", "NegativeLogLikelihoodLoss", "Adam", "Adagrad", "Momentum",
         "Gradient"),
    ),
    _Advice(
        "decode and prepare the inputs before the network",
        ("ImageDecoder", "MelWeightMatrix"),
    ),
    _Advice(
        "compute spectra before the network, or export them as STFT or as MatMul with constant waves",
        ("DFT",),
    ),
    _Advice(
        "export it as RandomUniformLike and Less",
        ("Bernoulli",),
    ),
    _Advice(
        "export a constant grid, multiplied by MatMul",
        ("AffineGrid",),
    ),
    _Advice(
        "export it as ConvTranspose with a constant weight",
        ("Col2Im",),
    ),
    _Advice(
        "compute with And, Or and Not on BOOL, or with Mul and Mod on INT32",
        ("BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseNot"),
    ),
    _Advice(
        "use asymmetric, half_pixel, pytorch_half_pixel or align_corners, without antialias, with "
        "the policy stretch",
        ("Resize", "Upsample"),
        reason="only|antialias|stretch|transformation",
    ),
    _Advice(
        "export with dilations of 1, or as a strided convolution",
        ("MaxPool", "AveragePool", "LpPool"),
        reason="dilation",
    ),
    _Advice(
        "do not use its other outputs, so that the export drops them",
        ("LayerNormalization", "BatchNormalization", "MaxPool", "Dropout", "Attention"),
        reason="output",
    ),
    _Advice(
        "switch the module to inference before the export: model.eval()",
        reason="training",
    ),
    _Advice(
        "make the axes, sizes or steps constants in the export; `trtbuild optimize` folds what can be",
        reason=_CONSTANT.pattern,
    ),
    _Advice(
        "export a mask in place of is_causal, no softcap, and K and V of equal shapes",
        ("Attention",),
    ),
    _Advice(
        "export without a reduction, or as Gather and Add",
        ("ScatterND", "ScatterElements"),
        reason="reduc",
    ),
    _Advice(
        "if it reads the condition of a Loop that has none, export the Loop with one, such as a "
        "constant true",
        reason=_UNREGISTERED,
    ),
    _Advice(
        "TensorRT's tensors have at most 8 axes: export with fewer, joined by a Reshape",
        reason="to TensorRT dimensions|MAX_DIMS|exceeds the maximum",
    ),
    _Advice(
        "its inputs have different types, which ONNX does not allow either: export both in one type, "
        "with a Cast",
        reason="must have (the )?same (input )?types?",
    ),
    _Advice(
        "compute in FP32, FP16, INT32 or INT64: TensorRT has no DOUBLE, and no 16-bit or unsigned "
        "integers inside",
        reason="data ?type|date type|UINT8|DOUBLE|input type|only supports",
    ),
    _Advice(
        "load a plugin with --plugin LIB, export with operators that the parser knows, or cut the "
        "network before it",
        reason=_PLUGIN.pattern,
    ),
)  # fmt: skip
_OTHERWISE = "export it with other operators, or with other attributes"


def advice_on(operator: str, reason: str) -> str:
    """Return advice on a refused node.

    Args:
        operator: op type of the node.
        reason: the parser's message.
    """
    return next((one.text for one in _TABLE if one.fits(operator, reason)), _OTHERWISE)


def wants_plugin(reason: str) -> bool:
    """Return whether the parser has no importer and looked for a plugin of that name."""
    return bool(_PLUGIN.search(reason))


def wants_constant(reason: str) -> bool:
    """Return whether the parser needs a constant where it found something else."""
    return bool(_CONSTANT.search(reason))


def wants_condition(reason: str) -> bool:
    """Return whether the parser finds no tensor for an input, as for the condition of a Loop without one."""
    return _UNREGISTERED in reason


def plain_reason(text: str) -> str:
    """Return the parser's message without conditions and source locations."""
    # a missing driver appends this
    text = text.partition("\n[checkMacros.cpp")[0].strip()
    usage = re.search(r"Error Code \d+: [\w ]+\((.*?)( In \w+ at /|\)?$)", text, re.DOTALL)
    if usage:
        return _sentence(usage[1])
    quoted = re.search(r'&& "(.*)"', text, re.DOTALL)
    if quoted:
        return _sentence(quoted[1])
    if text.removeprefix("Assertion failed: ") in ("false", ""):
        return "this parser has no importer for the operator"
    if text.startswith("Assertion failed: "):
        condition, _, said = text.removeprefix("Assertion failed: ").partition(": ")
        return _sentence(said or condition)
    return _sentence(text)


def _sentence(text: str) -> str:
    return " ".join(text.split()).rstrip(" .!")


def advice_on_build(reason: str, *, fp16: bool) -> str:
    """Return a sentence on what helps if no engine was built; empty if nothing is known.

    Measured with TensorRT for RTX 1.7: a causal Attention with shared keys and values builds in FP16, not in
    FP32; TopK accepts a K of at most 3840.
    """
    if "not supported by a dedicated kernel" in reason:
        half = (
            ""
            if fp16
            else ", and try `trtbuild engine --fp16`: some forms have kernels in FP16 only"
        )
        return (
            " `trtbuild optimize` rewrites Attention as MatMul and Softmax, which `trtbuild engine` does "
            f"by itself{half}."
        )
    if "K exceeds the maximum" in reason:
        return (
            " Let TopK select fewer, or in two steps (from parts of its axis, then from the results), or "
            "sort after the engine."
        )
    return ""


def advice_on_death(how: str, *, fp16: bool = True) -> str:
    """Return one or two sentences on what helps if the library ended its process.

    Args:
        how: how the process ended, with the name of the signal.
        fp16: whether layers that are not INT8 were to run in FP16.
    """
    if "SIGKILL" in how:
        return "The system kills processes this way when memory runs out: free some, or build elsewhere."
    if "exit code" in how:
        return "Its Python process did not finish: `trtbuild doctor` says what is missing or does not fit."
    half = "" if fp16 else "`trtbuild engine --fp16`, "
    return (
        f"That is a fault in NVIDIA's library. Try {half}another opset or exporter (an Attention written as "
        "MatMul and Softmax, for example), or another version of the library."
    )
