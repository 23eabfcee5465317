"""Operators whose result has given lengths."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.model.attributes import attribute, constant_of, input_at, normal_axis
from trtbuild.model.shapes import rank
from trtbuild.search.rows.one_operand import is_one_entry
from trtbuild.search.rows.sizes import BATCH, ONE, Rows, is_of_batch, quotient, times

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import onnx_ir as ir

    from trtbuild.search.rows.known import Known
    from trtbuild.search.rows.sizes import Entry

__all__ = ["OF_LENGTHS"]


def _reshaped(node: ir.Node, known: Known) -> Rows | None:
    """The entries before and after those of the images may be divided anew, but not those of two images."""
    value, target = node.inputs[0], known.entries(node.inputs[1])
    rows = known.rows(value)
    if value is None or rows is None or target is None:
        return None
    own = known.dims(value)
    if 0 in target[len(own) :] or (attribute(node, "allowzero", 0) and 0 in target):
        return None
    new = [own[place] if one == 0 else one for place, one in enumerate(target)]
    of_batch = [place for place, one in enumerate(new) if is_of_batch(one)]
    places = of_batch or [place for place, one in enumerate(new) if one == -1]
    if len(places) != 1:
        return None
    place, found = places[0], _merged(rows, own, 0, len(own))
    before = quotient(found.repeats, times(ONE, new[:place]))
    if of_batch:
        same = {0: rows, BATCH: Rows(place)}.get(target[place])
        return same if same is not None and before == same.repeats else None
    after = quotient(found.size, times(ONE, new[place + 1 :]))
    return None if before is None or after is None else Rows(place, after, before)


def _merged(rows: Rows, own: Sequence[Entry], start: int, end: int) -> Rows:
    """Where images lie in one axis made of several, that of the images among them; its number is `start`."""
    size = times(rows.size, own[rows.axis + 1 : end])
    return Rows(start, size, times(rows.repeats, own[start : rows.axis]))


def _flattened(node: ir.Node, known: Known) -> Rows | None:
    """Into two axes."""
    value = node.inputs[0]
    rows = known.rows(value)
    if value is None or rows is None:
        return None
    own = known.dims(value)
    axis = normal_axis(int(attribute(node, "axis", 1)), len(own))
    return (
        _merged(rows, own, 0, axis)
        if rows.axis < axis
        else _merged(rows, own, axis, len(own)).at(1)
    )


def _place_of_batch(target: Sequence[Entry]) -> int | None:
    """The place of the batch among lengths, of which no other depends on it."""
    places = [place for place, one in enumerate(target) if is_of_batch(one)]
    return places[0] if len(places) == 1 and target[places[0]] == BATCH else None


def _filled(node: ir.Node, known: Known) -> Rows | None:
    place = _place_of_batch(known.entries(node.inputs[0]) or ())
    return None if place is None else Rows(place)


def _expanded(node: ir.Node, known: Known) -> Rows | None:
    value, target = node.inputs[0], known.entries(node.inputs[1])
    rows, num_axes, place = known.rows(value), rank(value), _place_of_batch(target or ())
    if not target or num_axes is None:
        return None
    if rows is None:
        is_repeated = place is not None and is_one_entry(value, place - len(target))
        return Rows(place or 0) if is_repeated and known.is_fixed(value) else None
    new = max(num_axes, len(target))
    from_last = rows.axis - num_axes
    length = target[from_last] if -from_last <= len(target) else 1
    if length == BATCH and rows.is_plain and place == len(target) + from_last:
        return Rows(new + from_last)
    is_kept = length == 1 and not any(map(is_of_batch, target))
    return rows.at(new + from_last) if is_kept else None


def _tiled(node: ir.Node, known: Known) -> Rows | None:
    value, target = node.inputs[0], known.entries(node.inputs[1])
    rows, place = known.rows(value), _place_of_batch(target or ())
    if not target or rank(value) != len(target):
        return None
    if rows is None:
        is_repeated = place is not None and is_one_entry(value, place - len(target))
        return Rows(place or 0) if is_repeated and known.is_fixed(value) else None
    return rows if target[rows.axis] == 1 and not any(map(is_of_batch, target)) else None


def _resized(node: ir.Node, known: Known) -> Rows | None:
    """Along other axes, by factors or to lengths."""
    value, sizes, axes = node.inputs[0], input_at(node, 3), attribute(node, "axes")
    rows, num_axes = known.rows(value), rank(value)
    is_cropped = attribute(node, "coordinate_transformation_mode") == "tf_crop_and_resize"
    if rows is None or num_axes is None or is_cropped:
        return None
    if axes is not None:
        is_apart = rows.axis not in [normal_axis(axis, num_axes) for axis in axes]
        return rows if is_apart and all(map(known.is_fixed, node.inputs[1:])) else None
    if sizes is not None:
        is_kept = _place_of_batch(known.entries(sizes) or ()) == rows.axis and rows.is_plain
        is_free = attribute(node, "keep_aspect_ratio_policy", "stretch") == "stretch"
        return rows if is_kept and is_free else None
    factors = constant_of(node, 2)
    is_kept = factors is not None and len(factors) == num_axes and factors[rows.axis] == 1
    return rows if is_kept else None


OF_LENGTHS: Mapping[str, Callable[[ir.Node, Known], Rows | None]] = {
    "ConstantOfShape": _filled,
    "Expand": _expanded,
    "Flatten": _flattened,
    "Reshape": _reshaped,
    "Resize": _resized,
    "Tile": _tiled,
}
"""Operator -> where images lie in a node's outputs; None if it is not known to keep them apart."""
