"""The result of ``trtbuild diff`` as a report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.diff.compare import ChangeKind
from trtbuild.report.model import Card, Line, Report, Section, Table, Tone, names, numbers
from trtbuild.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from trtbuild.diff.compare import EngineDiff, FigureChange, NodeChange, NodeDiff, SideFacts
    from trtbuild.report.model import Block, Cell

__all__ = ["diff_blocks", "diff_report", "figure_table"]

_NUM_SHOWN = 60
_MOST_CHANGES = 6


def diff_report(found: EngineDiff, *, has_all_nodes: bool = False) -> Report:
    """Return the report.

    Args:
        found: the comparison.
        has_all_nodes: whether to list every node, not only those that differ.
    """
    return Report(
        title=f"{found.first.name} against {found.second.name}",
        cards=tuple(_cards(found)),
        facts={"A": _facts(found.first), "B": _facts(found.second)},
        notes=tuple(_notes(found)),
        sections=(
            Section("Nodes", (_node_table(found, has_all=has_all_nodes),)),
            Section("Ranges", (_range_table(found),)),
            Section("On one side alone", (_alone_table(found),)),
            Section("What it costs", (_cost_table(found), figure_table(found.figures))),
        ),
        data=found.to_json(),
    )


def diff_blocks(found: EngineDiff) -> tuple[Block, ...]:
    """Return the tables of the differences between nodes, without figures and costs."""
    return _node_table(found, has_all=False), _range_table(found), _alone_table(found)


def _facts(side: SideFacts) -> str:
    counts = ", ".join(f"{count} {precision}" for precision, count in side.precisions.items())
    files = [] if side.name.endswith(side.file) else [side.file]
    if side.network not in ("", side.file):
        files.append(f"nodes of {side.network}")
    of = f" ({', '.join(files)})" if files else ""
    return f"{side.name}{of}: {counted(side.num_nodes, 'node')}, {counts}"


def _notes(found: EngineDiff) -> Iterator[Line]:
    for letter, side in (("A", found.first), ("B", found.second)):
        if side.unknown:
            yield Line(f"note: of {letter}, {side.unknown}", Tone.NOTE)
    if not found.nodes and found.only_first and found.only_second:
        yield Line("note: no node is in both; A and B seem to be of two models", Tone.BAD)
    for condition in found.conditions:
        yield Line(f"note: {condition}, so not all figures can be compared", Tone.NOTE)


def _cards(found: EngineDiff) -> Iterator[Card]:
    count = sum(bool(node.changes) for node in found.nodes)
    renamed = sum(node.name != node.second_name for node in found.nodes)
    alone = len(found.only_first) + len(found.only_second)
    in_both = counted(len(found.nodes), "node")
    detail = f"{in_both} in both, {renamed} of them renamed; {alone} on one side alone"
    if found.equal:
        yield Card("Same", "they compute alike", detail, Tone.GOOD)
    else:
        yield Card("Different", counted(count, "node"), detail, Tone.NOTE)
    moved = [node for node in found.nodes if _has(node, ChangeKind.PRECISION, ChangeKind.RAN)]
    if moved:
        yield Card("Precision moved", counted(len(moved), "node"), _moves(moved))
    if found.first.ms is not None and found.second.ms is not None:
        change = found.second.ms - found.first.ms
        detail = f"{found.first.ms:.4g} ms in A, {found.second.ms:.4g} ms in B, all layers"
        yield Card("Time", f"{change:+.3g} ms", detail)
    if found.first.num_bytes and found.second.num_bytes:
        change = found.second.num_bytes - found.first.num_bytes
        detail = f"{found.first.num_bytes} bytes in A, {found.second.num_bytes} in B"
        yield Card("Size", f"{change:+d} bytes", detail)


def _moves(moved: list[NodeDiff]) -> str:
    counts: dict[str, int] = {}
    for node in moved:
        text = f"{node.precision[0]} → {node.precision[1]}"
        counts[text] = counts.get(text, 0) + 1
    return ", ".join(f"{count} {text}" for text, count in counts.items())


def _has(node: NodeDiff, *kinds: ChangeKind) -> bool:
    return any(change.what in kinds for change in node.changes)


def _node_table(found: EngineDiff, *, has_all: bool) -> Table:
    nodes = found.nodes if has_all else found.changed
    # a side without a network has no sizes of constants
    are_known = all(
        any(sizes) for sizes in zip(*((n.first_bytes, n.second_bytes) for n in found.nodes))
    )
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (
            _name(node),
            node.op_type,
            _precision(node),
            _changes(node.changes),
            _change_of(node.first_ms, node.second_ms),
            f"{node.second_bytes - node.first_bytes:+d}"
            if are_known and node.second_bytes != node.first_bytes
            else "",
        )
        for node in nodes
    )
    columns = (
        *names("node", "operator", "precision", "what differs, A → B"),
        *numbers("ms, B - A", "bytes, B - A"),
    )
    return Table(columns, rows, num_shown=None if has_all else _NUM_SHOWN)


def _name(node: NodeDiff) -> Cell:
    if node.name == node.second_name:
        return node.name
    return (node.name, f"in B: {node.second_name}")


def _precision(node: NodeDiff) -> Cell:
    one, other = node.precision
    if one and other and one != other:
        return Line(f"{one} → {other}", Tone.NOTE)
    return one or other


def _changes(changes: tuple[NodeChange, ...]) -> Cell:
    lines = [
        _told(one) for one in changes if one.what not in (ChangeKind.PRECISION, ChangeKind.RAN)
    ]
    if len(lines) > _MOST_CHANGES:
        lines = [*lines[:_MOST_CHANGES], f"{len(lines) - _MOST_CHANGES} more"]
    return tuple(lines) if len(lines) > 1 else "".join(lines)


def _told(change: NodeChange) -> str:
    of = f" of {change.of}" if change.of else ""
    if change.what is ChangeKind.COMPUTATION:
        return change.second
    ratio = _ratio(change)
    if change.what is ChangeKind.WEIGHTS and change.ratio is not None:
        first, second = (
            text.rpartition(",")[0].partition(" at most")[0]
            for text in (change.first, change.second)
        )
        both = f"{first} in both" if first == second else f"{first} → {second}{ratio}"
        return f"weights{of}: other integers or scales; largest weight {both}"
    if change.what is ChangeKind.WEIGHTS and "float" not in (change.first, change.second):
        return f"constants{of}: other values"
    if change.first == change.second:
        why = "by rounding, see --tolerance" if ratio else "in its axes or types"
        return f"{change.what}{of}: {change.first} in both, but differs {why}{ratio}"
    return f"{change.what}{of}: {change.first} → {change.second}{ratio}"


def _ratio(change: NodeChange) -> str:
    """The ratio of both, or by how much it differs from 1; empty if there is none."""
    if change.ratio is None or change.ratio == 1:
        return ""
    text = f"{change.ratio:.4g}"
    return f" (by {change.ratio - 1:+.1e})" if text == "1" else f" (x {text})"


def _change_of(one: float | None, other: float | None) -> str:
    return "" if one is None or other is None else f"{other - one:+.4f}"


def _range_table(found: EngineDiff) -> Table:
    rows = tuple(
        (one.of, one.first, one.second, "" if one.ratio is None else f"{one.ratio:.4g}")
        for one in found.ranges
    )
    return Table(
        (*names("tensor"), *numbers("amax in A", "in B", "B / A")), rows, num_shown=_NUM_SHOWN
    )


def _alone_table(found: EngineDiff) -> Table:
    rows = (*((n, "A") for n in found.only_first), *((n, "B") for n in found.only_second))
    return Table(names("node", "only in"), rows, num_shown=_NUM_SHOWN)


def _cost_table(found: EngineDiff) -> Table:
    rows = tuple(
        (text, f"{one:{form}}", f"{other:{form}}", f"{other - one:+{form}}")
        for text, one, other, form in (
            ("size of the file, bytes", found.first.num_bytes, found.second.num_bytes, "d"),
            ("all layers, ms", found.first.ms, found.second.ms, ".4g"),
        )
        if one is not None and other is not None and one != other
    )
    return Table((*names("in all"), *numbers("A", "B", "B - A")), rows)


def figure_table(figures: Iterable[FigureChange]) -> Table:
    """Return the figures of A and B side by side."""
    rows = tuple(
        (
            one.name,
            _figure(one.first, one.first_between),
            _figure(one.second, one.second_between),
            "" if one.first is None or one.second is None else f"{one.second - one.first:+.4g}",
        )
        for one in figures
    )
    caption = "in brackets: intervals; where those of A and B overlap, the difference may be chance"
    return Table((*names("figure"), *numbers("A", "B", "B - A")), rows, caption if rows else "")


def _figure(value: float | None, between: tuple[float, float] | None) -> str:
    if value is None:
        return ""
    ends = "" if between is None else f" ({between[0]:.4g} to {between[1]:.4g})"
    return f"{value:.5g}{ends}"
