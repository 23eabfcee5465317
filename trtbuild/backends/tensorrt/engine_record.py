"""The manifest's record of a plan: how it was built, for what, and what the library reported."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trtbuild.backends.tensorrt.rtx import capabilities
from trtbuild.runtime.tensorrt.machine import machine_record
from trtbuild.runtime.tensorrt.plugins import plugin_records

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trtbuild.backends.tensorrt.builder import Blueprint, Built
    from trtbuild.backends.tensorrt.precision import Precision
    from trtbuild.options.tensorrt import TensorRTOptions
    from trtbuild.runtime.tensorrt.engine import Profile
    from trtbuild.runtime.tensorrt.inspector import EngineLayers
    from trtbuild.runtime.tensorrt.logger import Log
    from trtbuild.runtime.tensorrt.versions import TensorRT

__all__ = ["SeenPlan", "engine_record"]

# The builder logs it at level INFO for each plan.
_WEIGHTS = re.compile(r"Total Weights Memory: (\d+) bytes")


@dataclass(frozen=True)
class SeenPlan:
    """What a plan reports about itself.

    Attributes:
        layers: layers of the opened plan; empty if it was not opened.
        verdict: the result of the precision check, as a sentence.
        not_opened: why it cannot be opened on this machine; empty if it can.
    """

    layers: EngineLayers
    verdict: str
    not_opened: str = ""


def engine_record(
    tensorrt: TensorRT, blueprint: Blueprint, precision: Precision, built: Built, seen: SeenPlan
) -> dict[str, Any]:
    """Return the manifest's entries of an engine, JSON types only.

    Args:
        tensorrt: the version that built it.
        blueprint: what was to be built.
        precision: the precision that was asked for.
        built: the result.
        seen: what the plan reports about itself.
    """
    options, layers = blueprint.options, seen.layers
    return {
        "machine": machine_record(tensorrt.version, options.device),
        "compute_capabilities": capabilities(tensorrt, options) if tensorrt.is_rtx else (),
        "quantization": precision.quantization,
        "precision": seen.verdict,
        "flags": built.flags,
        "profiles": _profiles_json(blueprint.profiles),
        "profile_values": _profiles_json(built.values),
        "profile_values_from_samples": _from_samples(built, options),
        "calibration": _calibration_json(built),
        "timing_cache": built.timing_cache,
        "plugins": plugin_records(options.plugins),
        "kept_fp32": [{"node": k.node, "reason": k.reason} for k in precision.kept_float],
        "weights_bytes": _weights_bytes(built.log),
        "reformats": layers.num_reformats,
        "layers": layers.to_json(),
        "warnings": list(dict.fromkeys(built.log.texts("WARNING"))),  # each once
        "errors": built.log.errors,
    }


def _weights_bytes(log: Log) -> int | None:
    """Bytes of weights in the plan, as the builder logged them (1 per INT8 weight); None if it did not."""
    told = (match for text in log.texts("INFO") if (match := _WEIGHTS.search(text)))
    last = next(reversed(list(told)), None)
    return int(last[1]) if last else None


def _profiles_json(profiles: Sequence[Profile]) -> list[dict[str, Any]]:
    return [{name: given.to_json() for name, given in one.items()} for one in profiles]


def _from_samples(built: Built, options: TensorRTOptions) -> list[str]:
    """The inputs whose values nobody gave: they come from the samples."""
    given = {text.rpartition("=")[0] for text in options.shape_values}
    return sorted({name for profile in built.values for name in profile} - given)


def _calibration_json(built: Built) -> dict[str, Any]:
    if not built.range_source:
        return {}
    return {
        "calibrator": built.calibrator,
        "ranges_from": built.range_source,
        "batches": built.num_batches,
        "samples_left_out": built.num_samples_left_out,
    }
