"""Which network is built, how INT8 and FP16 are requested, and whether the engine uses them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtbuild.errors import GateError, ModelError, OptionError
from trtbuild.options.tensorrt import Quantization
from trtbuild.quantization.half import magnitudes, to_half
from trtbuild.wording import counted

if TYPE_CHECKING:
    import onnx_ir as ir

    from trtbuild.artifact import Artifact
    from trtbuild.backends.base import BuildRequest
    from trtbuild.options.tensorrt import TensorRTOptions
    from trtbuild.quantization.half import KeptFloat
    from trtbuild.runtime.tensorrt.inspector import EngineLayers
    from trtbuild.runtime.tensorrt.versions import TensorRT

__all__ = [
    "Precision",
    "check_precision",
    "check_quantization",
    "decide_precision",
    "is_implicit",
    "is_int8",
]


@dataclass(frozen=True)
class Precision:
    """How a network is built.

    Attributes:
        model: the network that TensorRT parses.
        int8: whether INT8 is wanted.
        implicit: whether INT8 comes from a calibrator.
        strongly_typed: whether types are those of the network.
        fp16_flag: whether FP16 is requested by flag.
        kept_float: what stays FP32 in a network that was typed FP16, and why.
    """

    model: ir.Model
    int8: bool
    implicit: bool
    strongly_typed: bool
    fp16_flag: bool
    kept_float: tuple[KeptFloat, ...] = ()

    @property
    def quantization(self) -> str:
        """``implicit``, ``explicit`` or ``none``."""
        if not self.int8:
            return "none"
        return "implicit" if self.implicit else "explicit"


def decide_precision(tensorrt: TensorRT, request: BuildRequest) -> Precision:
    """Choose between builder flags and a typed network.

    INT8 is wanted if the artifact has ranges or a Q/DQ form. FP16 is a flag in weakly typed builds of
    TensorRT 10, and casts in the network everywhere else.

    Raises:
        OptionError: implicit quantization was asked for, and this TensorRT has none.
        ModelError: explicit quantization was asked for, and the network has no Q/DQ form.
    """
    artifact, options = request.artifact, request.options
    int8 = is_int8(artifact)
    # a calibrator would ignore the scales of a network that came quantized
    if int8 and artifact.came_in_float and is_implicit(tensorrt, options):
        return Precision(artifact.whole(artifact.model), int8, True, False, request.fp16)
    if not int8 and tensorrt.has_implicit:
        return Precision(artifact.whole(artifact.model), int8, False, False, request.fp16)
    model = artifact.quantized if int8 else artifact.model
    if model is None:
        raise ModelError(f"'{artifact.name}' has no Q/DQ form; explicit INT8 needs one.")
    if not request.fp16:
        return Precision(artifact.whole(model), int8, False, True, False)
    typed, kept = to_half(model, magnitudes(artifact.calibration))
    return Precision(artifact.whole(typed), int8, False, True, False, kept)


def is_int8(artifact: Artifact) -> bool:
    """Return whether an artifact is to run in INT8: it has ranges, or a Q/DQ form."""
    return artifact.calibration is not None or artifact.quantized is not None


def check_quantization(tensorrt: TensorRT, options: TensorRTOptions) -> None:
    """Refuse a way of quantization that the installed version does not have.

    Raises:
        OptionError: it does not have it.
    """
    is_implicit(tensorrt, options)


def is_implicit(tensorrt: TensorRT, options: TensorRTOptions) -> bool:
    """Return whether INT8 comes from a calibrator; TensorRT then chooses which layers run in it.

    Raises:
        OptionError: implicit INT8 was asked for, or DLA, which needs it, and the version has none.
    """
    if options.dla is not None and not tensorrt.has_implicit:
        raise OptionError(
            f"{tensorrt} has no implicit INT8, which DLA needs. Use TensorRT 10 there."
        )
    if options.quantization is Quantization.AUTO:
        return tensorrt.has_implicit
    if options.quantization is Quantization.IMPLICIT and not tensorrt.has_implicit:
        raise OptionError(
            f"{tensorrt} has no implicit quantization (10 is the last version with calibrators). Use "
            "--quantization explicit; `trtbuild cache convert` turns an old cache into a Q/DQ network."
        )
    return options.quantization is Quantization.IMPLICIT


def check_precision(layers: EngineLayers, precision: Precision, *, fp16: bool) -> str:
    """Check that the engine runs in the precision that was asked for.

    Returns:
        One sentence with the result, for the manifest.

    Raises:
        GateError: INT8 or FP16 was asked for and no layer runs in it.
    """
    if not layers.detailed:
        return "not checked: the plan records no precisions (profiling verbosity is not detailed)"
    counts = layers.precision_counts()
    if precision.int8 and not counts.get("INT8"):
        raise GateError(
            f"INT8 was requested, but no layer of the engine runs in it ({_text(counts)}). Layers without a "
            "range stay in float: calibrate with more data, or build with --quantization explicit."
        )
    if fp16 and not counts.get("FP16") and counts.get("FP32"):
        raise GateError(
            f"FP16 was requested, but no layer of the engine runs in it ({_text(counts)})."
        )
    return _text(counts)


def _text(counts: dict[str, int]) -> str:
    return ", ".join(f"{counted(count, 'layer')} {name}" for name, count in sorted(counts.items()))
