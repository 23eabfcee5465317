"""Builds a network that came in INT8: its scales stay, missing ones are added; float is the reference."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtbuild.artifact import Record
from trtbuild.calibration import calibrate
from trtbuild.errors import DataError, OptionError
from trtbuild.jobs.loading import load
from trtbuild.migration.prequantized import WIDEN, Prequantized, filled, take_in
from trtbuild.migration.qoperators import is_quantized
from trtbuild.options.tensorrt import Quantization
from trtbuild.wording import counted, listed

if TYPE_CHECKING:
    from trtbuild.artifact import Artifact
    from trtbuild.data import DataPlan
    from trtbuild.progress import Progress
    from trtbuild.recipes import EngineRecipe

__all__ = ["PrequantizedBuild", "prequantized_build", "with_gaps_filled"]

_log = logging.getLogger(__name__)

# Number of names that a message shows.
_MOST_NAMED = 4


@dataclass(frozen=True)
class PrequantizedBuild:
    """A quantized network before its build.

    Attributes:
        artifact: the float network that it is judged against, with the Q/DQ form.
        recipe: recipe of the build.
        network: the result of taking it in.
    """

    artifact: Artifact
    recipe: EngineRecipe
    network: Prequantized

    @property
    def calibrates(self) -> bool:
        """Whether samples are needed to fill its gaps."""
        return bool(self.network.tensors)


def prequantized_build(artifact: Artifact, recipe: EngineRecipe) -> PrequantizedBuild | None:
    """Take in the network of `artifact` if it is quantized; return None for a float network.

    Args:
        artifact: the artifact as it was read.
        recipe: recipe of the build; it may name the float network that this one is judged against.

    Raises:
        ModelError: it holds something that has no exact symmetric INT8 form.
        OptionError: an option contradicts that, or has no effect on such a network.
    """
    if not is_quantized(artifact.source):
        if recipe.quantized or recipe.float_model is not None:
            raise OptionError(
                f"'{recipe.model}' holds no Q/DQ and no operators on integers, so --quantized and "
                "--float-model have nothing to keep; leave them out."
            )
        return None
    _check_options(recipe)
    network = take_in(
        artifact.source, artifact.request.target, widen=WIDEN in recipe.optimize.enable
    )
    _say(network, recipe)
    of_float = None
    if recipe.float_model is not None:
        of_float = load(recipe.float_model, recipe.data.batch_axes)
    judge = "itself without Q/DQ" if of_float is None else f"'{of_float.name}'"
    record = Record(
        "take in",
        f"{counted(sum(one.int8 for one in network.decisions), 'layer')} in INT8 as in the given "
        f"network, judged against {judge}",
        {
            "rewritten": list(network.rewritten),
            "left_out": list(network.left_out),
            "gaps": list(network.gaps),
            "unwanted": list(network.unwanted),
            "float_model": None if of_float is None else of_float.name,
        },
    )
    taken = artifact.having(
        record,
        source=network.float_model if of_float is None else of_float.source,
        model=network.float_model,
        quantized=network.model,
        decisions=network.decisions,
    )
    return PrequantizedBuild(taken, recipe, network)


def _check_options(recipe: EngineRecipe) -> None:
    without_effect = {
        "--float": recipe.float_patterns,
        "--float-group": recipe.float_groups,
        "--calibration": recipe.calibration,
    }
    for flag, given in without_effect.items():
        if given:
            raise OptionError(
                f"'{recipe.model}' is quantized already and keeps its scales and places, so {flag} has no "
                "effect; leave it out, or give the float network."
            )
    if recipe.weights_only:
        raise OptionError(
            f"'{recipe.model}' is quantized already; --weights-only is for float networks."
        )
    if not recipe.int8:
        raise OptionError(
            f"'{recipe.model}' is quantized already; build it with --int8, or give the float network."
        )
    if recipe.tensorrt.quantization is Quantization.IMPLICIT:
        raise OptionError(
            f"'{recipe.model}' is quantized already, which is explicit; leave --quantization implicit out."
        )


def _say(network: Prequantized, recipe: EngineRecipe) -> None:
    where = f"'{recipe.model}'"
    if not recipe.quantized:
        _log.warning(
            "%s is quantized already: its scales are kept, and no ranges are chosen.", where
        )
    if network.left_out:
        _log.warning(
            "%s: left out: %s without a symmetric INT8 form that feed no INT8 layer: %s.",
            where, counted(len(network.left_out), "Q/DQ pair"), _some(network.left_out),
        )  # fmt: skip
    if network.gaps:
        _log.warning(
            "%s: scales are added to %s that had them on one side only: %s.",
            where, counted(len(network.gaps), "layer"), _some(network.gaps),
        )  # fmt: skip
    if network.unwanted:
        _log.warning(
            "%s: %s where TensorRT's rules place none; that may cost speed: %s.",
            where, counted(len(network.unwanted), "Q/DQ pair"), _some(network.unwanted),
        )  # fmt: skip


def _some(names: tuple[str, ...]) -> str:
    return listed([f"'{name}'" for name in names], _MOST_NAMED)


def with_gaps_filled(
    prequantized: PrequantizedBuild, artifact: Artifact, plan: DataPlan, progress: Progress
) -> Artifact:
    """Return `artifact` with Q/DQ on both sides of every layer that had them on one side only.

    Args:
        prequantized: the network.
        artifact: its artifact, with the records since then.
        plan: the data; it calibrates if scales are needed.
        progress: called after every sample.

    Raises:
        DataError: samples are needed and missing, or a tensor was zero in all of them.
    """
    network, recipe = prequantized.network, prequantized.recipe
    if not network.gaps:
        return artifact
    ranges: dict[str, float] = {}
    details: dict[str, object] = {}
    if network.tensors:
        assert plan.calibration is not None
        options = recipe.calibrate_options
        found = calibrate(artifact, plan.calibration, network.tensors, options, progress)
        assert found.calibration is not None
        ranges = {name: one.amax for name, one in found.calibration.ranges.items()}
        details = {"method": found.calibration.method, **found.calibration.provenance}
    for name, amax in ranges.items():
        if not 0 < amax < float("inf"):
            raise DataError(
                f"the tensor '{name}' has the range {amax:g} in the calibration data, and its layer needs a "
                "scale; check the data."
            )
    record = Record(
        "fill gaps",
        f"missing scales filled in for {counted(len(network.gaps), 'layer')}, {len(ranges)} by calibration",
        {"amax": ranges, **details},
    )
    return artifact.having(record, quantized=filled(network, ranges))
