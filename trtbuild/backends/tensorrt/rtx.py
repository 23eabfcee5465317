"""Special cases of TensorRT for RTX: the GPUs that a plan is for, and what is refused before a build.

Facts come from version 1.7 on a machine without a GPU, and from NVIDIA's page "CPU-Only AOT and TensorRT-RTX
Engines": by default an engine runs on compute capability 8.0, 8.6, 8.9, 12.0 and later, and on 7.5 only if
that is asked for.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from trtbuild.errors import OptionError
from trtbuild.options.fields import options_of
from trtbuild.options.tensorrt import TensorRTOptions
from trtbuild.quantization.isolated_layers import layers_alone
from trtbuild.runtime.cuda import cuda_driver
from trtbuild.runtime.tensorrt.versions import TURING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trtbuild.artifact import Artifact
    from trtbuild.runtime.tensorrt.versions import TensorRT

__all__ = ["capabilities", "check_rtx", "notes", "set_capabilities", "why_not_opened"]

_MEMBER = re.compile(r"SM(\d+)(\d)")

_EXPLICIT_ALONE = "it has no calibrators; INT8 comes from Q/DQ in the network"
_TIMES_NOTHING = (
    "it times no kernels; --runtime-cache keeps those that it compiles when a plan is opened"
)
_LACKING = {
    "accept_foreign_cache": _EXPLICIT_ALONE,
    "cache": _EXPLICIT_ALONE,
    "calibrator": _EXPLICIT_ALONE,
    "ranges": _EXPLICIT_ALONE,
    "avg_timing": _TIMES_NOTHING,
    "editable_timing_cache": _TIMES_NOTHING,
    "lock": _TIMES_NOTHING,
    "timing_cache": _TIMES_NOTHING,
    "version_compatible": "its packages lack the library that such plans need",
    "exclude_lean_runtime": "its packages lack that runtime",
    "hardware_compatibility": "--compute-capability says which GPUs a plan is for",
    "runtime_platform": "its plans run on Linux and Windows alike",
    "build_route": "it has no build routes",
    "dla": "an RTX GPU has no DLA",
}
_WITH_A_GPU = ("refit", "strip_plan")


def check_rtx(tensorrt: TensorRT, options: TensorRTOptions, *, fp16: bool) -> None:
    """Refuse what TensorRT for RTX cannot build.

    Args:
        tensorrt: the installed version.
        options: options of the build.
        fp16: whether layers that are not INT8 run in FP16.

    Raises:
        OptionError: an option that it does not have, or a GPU that it does not know.
    """
    flags = {field.name: field.flag for field in options_of(TensorRTOptions)}
    for name in options.changed:
        if name in _LACKING:
            raise OptionError(
                f"{tensorrt} does not take {flags[name]}: {_LACKING[name]}. Leave it out."
            )
        if name in _WITH_A_GPU and cuda_driver().problem:
            raise OptionError(
                f"{tensorrt} takes {flags[name]} only on a machine with a GPU, but {cuda_driver().problem}."
            )
    if TURING in capabilities(tensorrt, options) and not fp16:
        raise OptionError(
            f"for compute capability {TURING} (Turing) {tensorrt} has neither FP32 matrix products nor INT8 "
            f"convolutions. Add --fp16, or leave {TURING} out of --compute-capability."
        )


def capabilities(tensorrt: TensorRT, options: TensorRTOptions) -> tuple[str, ...]:
    """Return the target compute capabilities of a plan, such as ``8.9``: as asked for, else all from 8.0 on.

    Raises:
        OptionError: the installed version does not know one of them.
    """
    known = _known(tensorrt)
    for wanted in options.compute_capabilities:
        if wanted not in known:
            raise OptionError(
                f"{tensorrt} knows no compute capability {wanted}; it knows {', '.join(known)}."
            )
    wanted_or_all = options.compute_capabilities or [one for one in known if one != TURING]
    return tuple(dict.fromkeys(wanted_or_all))


def _known(tensorrt: TensorRT) -> Mapping[str, Any]:
    """Compute capability -> member of TensorRT's enumeration, the oldest first."""
    members = tensorrt.module.ComputeCapability.__members__
    matches = {name: match for name in members if (match := _MEMBER.fullmatch(name))}
    return {f"{match[1]}.{match[2]}": members[name] for name, match in matches.items()}


def set_capabilities(tensorrt: TensorRT, config: Any, options: TensorRTOptions) -> None:
    """Set the target GPUs of a plan in a builder configuration.

    Raises:
        OptionError: TensorRT refuses a compute capability.
    """
    wanted = capabilities(tensorrt, options)
    known = _known(tensorrt)
    config.num_compute_capabilities = len(wanted)
    for index, name in enumerate(wanted):
        config.set_compute_capability(known[name], index)
    count = config.num_compute_capabilities
    taken = [config.get_compute_capability(index) for index in range(count)]
    if taken != [known[name] for name in wanted]:
        raise OptionError(f"{tensorrt} refuses the compute capabilities {', '.join(wanted)}.")


def why_not_opened(tensorrt: TensorRT, options: TensorRTOptions) -> str:
    """Return why a plan cannot run on this machine; empty if it can."""
    driver = cuda_driver()
    if driver.problem:
        return driver.problem
    gpu = driver.gpus[options.device]
    if gpu.compute_capability not in capabilities(tensorrt, options):
        return (
            f"it is not for the GPU here, {gpu.name} of compute capability {gpu.compute_capability}"
        )
    return ""


def notes(
    tensorrt: TensorRT, options: TensorRTOptions, artifact: Artifact, *, fp16: bool
) -> tuple[str, ...]:
    """Return what a user should know about a plan.

    These are its target GPUs, advice on FP16, and the number of INT8 layers that cost extra kernels: the
    compiler rounds the input of such a layer in one kernel and rescales the result in another, where float
    takes one kernel for all (measured; between INT8 layers one kernel does both).

    Args:
        tensorrt: the installed version.
        options: options of the build.
        artifact: what was built; a float network has no decisions.
        fp16: whether layers that are not INT8 run in FP16.
    """
    gpus = ", ".join(capabilities(tensorrt, options))
    chosen = "" if options.compute_capabilities else "; --compute-capability chooses others"
    found = [f"the plan is for RTX GPUs of compute capability {gpus}{chosen}"]
    if artifact.quantized is None:
        return tuple(found)
    if not fp16:
        found.append(
            "what is not INT8 stays FP32 in the plan; on RTX GPUs INT8 is usually combined with --fp16"
        )
    convolutions = sum(one.int8 and one.op_type == "Conv" for one in artifact.decisions)
    if TURING in capabilities(tensorrt, options) and convolutions:
        found.append(
            f"on compute capability {TURING} (Turing) its {convolutions} INT8 convolutions run in FP16, "
            "after rounding in separate kernels; --target rtx-turing keeps them in float, as a plan for "
            f"{TURING} alone does by default"
        )
    if alone := layers_alone(artifact.model, artifact.decisions):
        found.append(
            f"INT8 layers between float layers: {len(alone)}; each takes three kernels (round, compute, "
            "rescale) instead of one. On a machine with such a GPU, compare the plan with one of --fp16 "
            "alone: `trtbuild bench --against`"
        )
    return tuple(found)
