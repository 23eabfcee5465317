"""Decides where Q/DQ go, and what stays in float by the user's patterns and exact names."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from trtbuild.errors import OptionError, did_you_mean
from trtbuild.plan import ANYWHERE, GRAPH_OUTPUT, PlacementRequest
from trtbuild.quantization.masks import masked_sums
from trtbuild.quantization.onnxruntime_placement import portable_groups
from trtbuild.quantization.selection import (
    check_is_float,
    check_patterns,
    idle_patterns,
    matches,
    output_group_name,
)
from trtbuild.quantization.tensorrt_placement import place_tensorrt
from trtbuild.target import installed_target

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    import onnx_ir as ir

    from trtbuild.plan import Consumer, Placement
    from trtbuild.target import Target

__all__ = ["check_floats", "place", "place_for"]

_log = logging.getLogger(__name__)


def place(
    model: ir.Model,
    request: PlacementRequest = ANYWHERE,
    because: Mapping[str, str] | None = None,
    apart: Collection[Consumer] = (),
) -> Placement:
    """Return where Q/DQ go for TensorRT, with every group of both forms.

    Args:
        model: a float network whose nodes have names.
        request: what stays in float, and the compiler to place Q/DQ for. Names of groups that no longer
            exist because other groups are in float are ignored.
        because: names of further groups that stay in float because of their ranges -> why.
        apart: inputs of Concats that keep a scale of their own in TensorRT's form.

    Raises:
        OptionError: a pattern matches nothing, or there is no group of a name.
        ModelError: the network holds Q/DQ already.
    """
    check_is_float(model)
    always = masked_sums(model)
    check_patterns(model, request.patterns)
    target = request.target or installed_target()
    placement = _placed(model, always, target, apart)
    floats = _floats(model, request)
    if not floats and not request.patterns and not because:
        return placement
    chosen = _placed(model, {**always, **(because or {}), **floats}, target, apart)
    known = (*placement.groups, *(group for group in chosen.groups if not group.int8))
    unknown = sorted(request.groups - {group.name for group in known})
    if unknown:
        raise OptionError(
            f"'{unknown[0]}' is the name of no group of Q/DQ in this network"
            f"{did_you_mean(unknown[0], [group.name for group in known])}; "
            "`trtbuild quantize --list` prints them."
        )
    return chosen


def place_for(model: ir.Model, targets: Iterable[Target]) -> list[Placement]:
    """Return where Q/DQ go for each of these compilers, like `place` without a request.

    Raises:
        ModelError: the network holds Q/DQ already.
    """
    check_is_float(model)
    always = masked_sums(model)
    return [_placed(model, always, target, ()) for target in targets]


def check_floats(model: ir.Model, request: PlacementRequest) -> dict[str, str]:
    """Check what a user keeps in float, before calibration; warn of patterns without effect.

    Returns:
        Each pattern without effect -> what it matches. This is no error, as one recipe may serve several
        networks.

    Raises:
        OptionError: a pattern matches nothing, or there is no group of a name.
        ModelError: the network holds Q/DQ already.
    """
    if request.patterns or request.groups:
        place(model, request)
    if not request.patterns:
        return {}
    everything = place(model, PlacementRequest(target=request.target))
    idle = idle_patterns(model, request.patterns, everything.groups)
    for pattern, found in idle.items():
        _log.warning(
            "--float '%s' changes nothing: it matches %s, and no Q/DQ stand there without it either; "
            "`trtbuild quantize --list` prints where they do.",
            pattern,
            found,
        )
    return idle


def _placed(
    model: ir.Model, floats: Mapping[str, str], target: Target, apart: Collection[Consumer]
) -> Placement:
    placement = place_tensorrt(model, floats, target, apart)
    more = portable_groups(model, placement, floats)
    return replace(placement, groups=(*placement.groups, *more))


def _floats(model: ir.Model, request: PlacementRequest) -> dict[str, str]:
    """Name of a node or output to keep in float -> why."""
    nameable = [(node.name or "", node.op_type) for node in model.graph]
    nameable += [(output_group_name(v.name or ""), GRAPH_OUTPUT) for v in model.graph.outputs]
    floats = dict.fromkeys(request.groups, "kept in float by its name")
    for pattern in request.patterns:
        for name, op_type in nameable:
            if matches(pattern, name, op_type):
                floats.setdefault(name, f"kept in float by --float '{pattern}'")
    return floats
