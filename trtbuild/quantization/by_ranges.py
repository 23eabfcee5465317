"""Places Q/DQ by the ranges: what stays in float because of them is known only after calibration.

- A tensor that was always zero or empty has no scale. Zero is exact in every scale, but other data may not
  be zero, so its readers read floats.
- In TensorRT's form all parts of a Concat share a scale, and other INT8 layers that read a part get this
  scale, too. If they lose more than `MOST_BITS_LOST` by it, the part keeps a scale of its own.
- A Concat between INT8 layers in ONNX Runtime's form alone rounds all parts with one scale; a part loses
  ``log2(widest amax / own amax)`` of its 8 bits, 6 dB each. If a part loses more than `MOST_BITS_LOST`,
  parts and result stay float.
"""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from typing import TYPE_CHECKING

from trtbuild.model.constants import is_constant
from trtbuild.model.traversal import nodes_by_name
from trtbuild.plan import ANYWHERE, Consumer, GroupKind
from trtbuild.quantization.neighbour_ranges import with_neighbours
from trtbuild.quantization.onnxruntime_placement import place_portable
from trtbuild.quantization.placement import place
from trtbuild.quantization.ranges import is_usable, refuse_without_range, without_range
from trtbuild.wording import listed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir

    from calibrators import Calibration, TensorRange
    from trtbuild.artifact import Artifact
    from trtbuild.plan import Placement, PlacementRequest

__all__ = ["MOST_BITS_LOST", "place_by_ranges", "say_without_range"]

# One bit is 6 dB: an engine that far below TensorRT's form is reported (`GAP_DB` of `trtbuild.result`).
MOST_BITS_LOST = 1.0

_log = logging.getLogger(__name__)
_REASON = "the tensor '{}' {}"
_NUM_NAMED = 3


def place_by_ranges(
    model: ir.Model,
    calibration: Calibration,
    request: PlacementRequest = ANYWHERE,
) -> tuple[Placement, Mapping[str, str]]:
    """Return where Q/DQ go, like `place`, with groups kept in float if their ranges do not allow rounding.

    Returns:
        The placement; and tensor -> why it has no scale, for tensors that would have been quantized.

    Raises:
        OptionError, ModelError: see `place`.
        InputError: a range is missing, or tensors without a scale leave nothing in INT8, or all inputs of
            the network have no scale (the data are all zero).
    """
    because: dict[str, str] = {}
    apart: frozenset[Consumer] = frozenset()
    dead: dict[str, str] = {}
    first = placement = place(model, request)
    while True:
        portable = place_portable(model, placement)
        found = {
            **without_range(model, placement, calibration),
            **without_range(model, _covered(model, portable, calibration), calibration),
        }
        more = _readers_of(found, placement, portable)
        more |= _unlike_concats(model, placement, portable, calibration)
        dead.update(found)
        parts = apart | _shared_parts(model, placement, calibration)
        if not more.keys() - because.keys() and parts == apart:
            break
        because.update(more)
        apart = parts
        placement = place(model, request, because, apart)
    fed = [value.name for value in model.graph.inputs if not is_constant(value)]
    if dead and (not placement.weights or all(name in dead for name in fed)):
        refuse_without_range(model, first, dead)
    return placement, dead


def _covered(model: ir.Model, portable: Placement, calibration: Calibration) -> Placement:
    """ONNX Runtime's placement, without tensors of unknown range: TensorRT's form alone needs fewer."""
    if portable.observed <= calibration.ranges.keys():
        return portable
    known = with_neighbours(model, calibration.ranges).keys()
    return replace(portable, roots={n: of for n, of in portable.roots.items() if of <= known})


def say_without_range(artifact: Artifact, *, is_strict: bool = False) -> None:
    """Warn of every tensor without a scale, and of the groups that stay in float because of it.

    Args:
        artifact: a calibrated artifact.
        is_strict: raise an error for the first such tensor instead.

    Raises:
        InputError: there is such a tensor and `is_strict` is set; a range is missing; or all are zero.
    """
    assert artifact.calibration is not None
    model = artifact.model
    placement, dead = place_by_ranges(model, artifact.calibration, artifact.request)
    if dead and is_strict:
        refuse_without_range(model, place(model, artifact.request), dead)
    for name, what in dead.items():
        reason = _REASON.format(name, what)
        kept = [group.name for group in placement.groups if group.reason == reason]
        if kept:
            _log.warning("%s; %s in float for it.", reason, _named(kept))


def _named(kept: Sequence[str]) -> str:
    names = listed([f"'{name}'" for name in kept], _NUM_NAMED)
    return f"{names} {'stays' if len(kept) == 1 else 'stay'}"


def _readers_of(
    dead: Mapping[str, str], placement: Placement, portable: Placement
) -> dict[str, str]:
    """The INT8 groups that read one of these tensors -> why they have to stay in float."""
    why = {
        consumer: _REASON.format(name, what)
        for form in (portable, placement)
        for name, what in dead.items()
        for consumer in form.consumers.get(name, ())
    }
    return {
        group.name: next(why[consumer] for consumer in sorted(group.consumers & why.keys()))
        for group in placement.groups
        if group.int8 and group.consumers & why.keys() and group.kind is not GroupKind.OUTPUT
    }


def _unlike_concats(
    model: ir.Model, placement: Placement, portable: Placement, calibration: Calibration
) -> dict[str, str]:
    """Concats of ONNX Runtime's form alone, and their readers there, if the parts are too unlike -> why."""
    nodes = nodes_by_name(model.graph)
    kernels = {g.name: g for g in placement.groups if g.kind is GroupKind.KERNEL and g.int8}
    concats = [nodes[name] for name, group in kernels.items() if group.op_type == "Concat"]
    if not concats:
        return {}
    known = with_neighbours(model, calibration.ranges)
    found = {}
    for node in concats:
        bits = _bits_lost(node, known)
        if bits <= MOST_BITS_LOST:
            continue
        reason = f"one scale for all parts would cost the smallest {bits:.1f} of its 8 bits"
        found[node.name or ""] = reason
        readers = portable.consumers.get(node.outputs[0].name or "", ())
        found.update({reader.node: reason for reader in readers if reader.node in kernels})
    return found


def _shared_parts(
    model: ir.Model, placement: Placement, calibration: Calibration
) -> frozenset[Consumer]:
    """The inputs of Concats where the shared scale costs other readers of the part too much.

    The widest part of a Concat is never among them, because the shared scale comes from it.
    """
    concats = [g.name for g in placement.groups if g.kind is GroupKind.CONCAT and g.int8]
    if not concats:
        return frozenset()
    nodes, known = nodes_by_name(model.graph), with_neighbours(model, calibration.ranges)
    found = set()
    for name in concats:
        parts = [value.name or "" for value in nodes[name].inputs if value is not None]
        own = [known[part].amax if part in known else 0.0 for part in parts]
        for index, part in enumerate(parts):
            joined = (known[root].amax for root in placement.roots[part] if root in known)
            shared = any(reader.node != name for reader in placement.consumers[part])
            narrow = 0 < own[index] < max(own) and index != own.index(max(own))
            if shared and narrow and math.log2(max(joined) / own[index]) > MOST_BITS_LOST:
                found.add(Consumer(name, index))
    return frozenset(found)


def _bits_lost(node: ir.Node, known: Mapping[str, TensorRange]) -> float:
    ranges = (known.get(value.name or "") for value in node.inputs if value is not None)
    amaxes = [given.amax for given in ranges if given is not None and is_usable(given)]
    return math.log2(max(amaxes) / min(amaxes)) if amaxes else 0.0
