"""The differences between two sides: node by node, and in total."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from trtbuild.diff.matching import MatchedBy, match_names, match_nodes
from trtbuild.enums import StrEnum
from trtbuild.json_codec import Document

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import onnx_ir as ir

    from trtbuild.diff.facts import NodeFacts
    from trtbuild.diff.matching import Pair
    from trtbuild.diff.reads import Read

__all__ = [
    "ChangeKind",
    "EngineDiff",
    "FigureChange",
    "FigureValue",
    "NodeChange",
    "NodeDiff",
    "Side",
    "SideFacts",
    "compare_sides",
    "figure_changes",
    "other_conditions",
]


class ChangeKind(StrEnum):
    """What differs at a node."""

    COMPUTATION = "computation"
    """Attributes, shapes, or the nodes that it reads from."""
    PRECISION = "precision"
    """The precision that the network asks for."""
    RAN = "ran"
    """The precision that the engine's layer computes in."""
    KERNEL = "kernel"
    RANGE = "range"
    """The scale of a tensor that is read through Q/DQ, or whether it has Q/DQ at all."""
    WEIGHTS = "weights"
    """The integers or scales of a weight, or the values of a float constant, such as a bias."""


@dataclass(frozen=True)
class NodeChange:
    """One difference between a node of the first side and its counterpart on the second.

    Attributes:
        what: the kind of difference.
        of: the tensor that differs, if it is about a tensor.
        first, second: both sides in words.
        ratio: amax of the second side / amax of the first, where both have one; else None.
    """

    what: ChangeKind
    of: str
    first: str
    second: str
    ratio: float | None = None


@dataclass(frozen=True)
class NodeDiff:
    """A node that both sides have.

    Attributes:
        name: its name on the first side.
        second_name: its name on the second side.
        op_type: its operator.
        matched_by: how the two were matched.
        precision: of the first side and of the second, if known: the one that ran, else the one asked for.
        first_ms, second_ms: time of its layer; None if it was not measured.
        first_bytes, second_bytes: size of its constants; 0 if no network was read.
        changes: the differences; times do not count, since they are partly noise.
    """

    name: str
    second_name: str
    op_type: str
    matched_by: MatchedBy
    precision: tuple[str, str]
    first_ms: float | None
    second_ms: float | None
    first_bytes: int
    second_bytes: int
    changes: tuple[NodeChange, ...]


@dataclass(frozen=True)
class FigureValue:
    """A figure of one side, None if it is not known, with its interval if it has one."""

    value: float | None
    between: tuple[float, float] | None = None


@dataclass(frozen=True)
class FigureChange:
    """A figure of both sides, such as the engine's SQNR.

    Attributes:
        name: what it measures, with its unit.
        first, second: None for a side that does not have it.
        first_between, second_between: their intervals, each over its own samples; None if there is none.
    """

    name: str
    first: float | None
    second: float | None
    first_between: tuple[float, float] | None = None
    second_between: tuple[float, float] | None = None


@dataclass(frozen=True)
class SideFacts:
    """Summary of one side.

    Attributes:
        name: as the user gave it.
        file: the network or engine.
        num_bytes: size of that file.
        network: the file that the nodes were read from; empty if none was, only a manifest or layers.
        num_nodes: number of nodes that are neither Q/DQ nor constants.
        precisions: precision -> number of nodes.
        ms: time of all layers in one run; None if it was not measured.
        unknown: what is not known about this side, as a sentence; empty if nothing is missing.
    """

    name: str
    file: str
    num_bytes: int
    network: str
    num_nodes: int
    precisions: dict[str, int]
    ms: float | None
    unknown: str


@dataclass(frozen=True)
class Side:
    """Everything that is known about one side.

    Attributes:
        name: as the user gave it.
        file: name of the network or engine that was read.
        num_bytes: size of that file.
        nodes: its nodes; in the order of `diff.facts.computing_nodes` if there is a network.
        model: its network; None if there is only a manifest or an engine's layers.
        ranges: tensor -> amax, from its manifest.
        ms: time of all layers in one run; None if it was not measured.
        figures: name -> figure, from its manifest.
        conditions: what its figures depend on -> a value that is equal for equal conditions.
        network: see `SideFacts`.
        unknown: see `SideFacts`.
    """

    name: str
    file: str
    num_bytes: int
    nodes: tuple[NodeFacts, ...]
    model: ir.Model | None = None
    ranges: Mapping[str, float] = field(default_factory=dict)
    ms: float | None = None
    figures: Mapping[str, FigureValue] = field(default_factory=dict)
    conditions: Mapping[str, str] = field(default_factory=dict)
    network: str = ""
    unknown: str = ""

    def facts(self) -> SideFacts:
        """Return the summary of this side."""
        counts: dict[str, int] = {}
        for node in self.nodes:
            word = node.ran or node.precision or "not known"
            counts[word] = counts.get(word, 0) + 1
        return SideFacts(
            self.name,
            self.file,
            self.num_bytes,
            self.network,
            len(self.nodes),
            dict(sorted(counts.items())),
            self.ms,
            self.unknown,
        )


@dataclass(frozen=True)
class EngineDiff(Document):
    """The differences of two engines or Q/DQ networks of one model.

    Attributes:
        equal: whether both have the same nodes with the same computation; names, times and figures may
            differ.
        first, second: summaries of both sides.
        nodes: nodes that both have, in the order of the first.
        ranges: tensors whose amax differs, if a side has a manifest and no network.
        only_first, only_second: nodes that only this side has.
        figures: accuracy and latency, from the manifests.
        conditions: what differs in how the figures of both sides were measured, so that they tell less
            about the engines.
    """

    SCHEMA = "trtbuild.diff"

    equal: bool = field(init=False)
    first: SideFacts
    second: SideFacts
    nodes: tuple[NodeDiff, ...]
    ranges: tuple[NodeChange, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    figures: tuple[FigureChange, ...]
    conditions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        differ = any(node.changes for node in self.nodes)
        equal = not (differ or self.ranges or self.only_first or self.only_second)
        object.__setattr__(self, "equal", equal)

    @property
    def changed(self) -> tuple[NodeDiff, ...]:
        """The nodes that differ in something, or in their name."""
        return tuple(n for n in self.nodes if n.changes or n.name != n.second_name)


def compare_sides(first: Side, second: Side, tolerance: float = 0.0) -> EngineDiff:
    """Compare two sides; facts that one of them does not know are not differences.

    Args:
        first: facts of the first side.
        second: facts of the second side.
        tolerance: relative difference up to which ranges count as equal.
    """
    pairs = _pairs(first, second)
    left, right = {pair.first for pair in pairs}, {pair.second for pair in pairs}
    are_networks = (
        first.model is not None and second.model is not None
    )  # nodes have the ranges then
    return EngineDiff(
        first=first.facts(),
        second=second.facts(),
        nodes=tuple(
            _node(first.nodes[p.first], second.nodes[p.second], p, tolerance) for p in pairs
        ),
        ranges=() if are_networks else tuple(_ranges(first.ranges, second.ranges, tolerance)),
        only_first=tuple(n.name for k, n in enumerate(first.nodes) if k not in left),
        only_second=tuple(n.name for k, n in enumerate(second.nodes) if k not in right),
        figures=figure_changes(first.figures, second.figures),
        conditions=other_conditions(first.conditions, second.conditions),
    )


def figure_changes(
    first: Mapping[str, FigureValue], second: Mapping[str, FigureValue]
) -> tuple[FigureChange, ...]:
    """Return the figures of both sides, those of the first in its order."""
    unknown = FigureValue(None)
    return tuple(
        FigureChange(name, one.value, other.value, one.between, other.between)
        for name in {**first, **second}
        for one, other in [(first.get(name, unknown), second.get(name, unknown))]
    )


def other_conditions(first: Mapping[str, str], second: Mapping[str, str]) -> tuple[str, ...]:
    """Return the conditions that both sides know and that differ."""
    return tuple(name for name in first if first[name] != second.get(name, first[name]))


def _pairs(first: Side, second: Side) -> Sequence[Pair]:
    if first.model is not None and second.model is not None:
        return match_nodes(first.model, second.model)
    return match_names([n.name for n in first.nodes], [n.name for n in second.nodes])


def _node(first: NodeFacts, second: NodeFacts, pair: Pair, tolerance: float) -> NodeDiff:
    otherwise = (
        (NodeChange(ChangeKind.COMPUTATION, "", "", pair.otherwise),) if pair.otherwise else ()
    )
    return NodeDiff(
        name=first.name,
        second_name=second.name,
        op_type=first.op_type or second.op_type,
        matched_by=pair.by,
        precision=(first.ran or first.precision, second.ran or second.precision),
        first_ms=first.ms,
        second_ms=second.ms,
        first_bytes=first.num_bytes,
        second_bytes=second.num_bytes,
        changes=(*otherwise, *_changes(first, second, tolerance)),
    )


def _changes(first: NodeFacts, second: NodeFacts, tolerance: float) -> Iterator[NodeChange]:
    for what, one, other in (
        (ChangeKind.PRECISION, first.precision, second.precision),
        (ChangeKind.RAN, first.ran, second.ran),
        (ChangeKind.KERNEL, first.kernel, second.kernel),
    ):
        if one and other and one != other:
            yield NodeChange(what, "", one, other)
    if first.from_network and second.from_network:
        yield from _read_changes(first, second, tolerance)
        yield from _constant_changes(first, second)


def _read_changes(first: NodeFacts, second: NodeFacts, tolerance: float) -> Iterator[NodeChange]:
    one, other = ({read.index: read for read in facts.reads} for facts in (first, second))
    for index in sorted({*one, *other}):
        left, right = one.get(index), other.get(index)
        known = left or right
        assert known is not None
        what = ChangeKind.WEIGHTS if known.is_weight else ChangeKind.RANGE
        if left is None or right is None:
            yield NodeChange(what, known.tensor, _told(left), _told(right))
        elif what is ChangeKind.WEIGHTS and left.form != right.form:
            ratio = _ratio(left.amax, right.amax)
            yield NodeChange(what, left.tensor, f"{_told(left)}, {left.form}",
                         f"{_told(right)}, {right.form}", ratio)  # fmt: skip
        elif what is ChangeKind.RANGE and not _same_range(left, right, tolerance):
            differ = left.kind is not right.kind
            told = (_told(left, with_kind=differ), _told(right, with_kind=differ))
            yield NodeChange(what, left.tensor, *told, _ratio(left.amax, right.amax))


def _constant_changes(first: NodeFacts, second: NodeFacts) -> Iterator[NodeChange]:
    for index, (name, digest) in first.constants.items():
        _, other = second.constants.get(index, ("", digest))
        if other != digest:
            yield NodeChange(ChangeKind.WEIGHTS, name, digest, other)


def _ranges(
    first: Mapping[str, float], second: Mapping[str, float], tolerance: float
) -> Iterator[NodeChange]:
    for name in first:
        one, other = first[name], second.get(name)
        if other is not None and not _close(one, other, tolerance):
            yield NodeChange(
                ChangeKind.RANGE, name, f"{one:.6g}", f"{other:.6g}", _ratio(one, other)
            )


def _same_range(one: Read, other: Read, tolerance: float) -> bool:
    if one.form != other.form or len(one.scales) != len(other.scales):
        return False
    return all(_close(a, b, tolerance) for a, b in zip(one.scales, other.scales))


def _close(one: float, other: float, tolerance: float) -> bool:
    return one == other or abs(one - other) <= tolerance * max(abs(one), abs(other))


def _ratio(one: float | None, other: float | None) -> float | None:
    return other / one if one and other is not None else None


def _told(read: Read | None, *, with_kind: bool = False) -> str:
    if read is None:
        return "float"
    if not read.num_scales:
        return "computed scale"
    text = str(read.kind) if read.amax is None else f"{read.amax:.6g}"
    if with_kind and read.amax is not None:
        text += f" in {read.kind}"
    if read.num_scales > 1:
        text += f"{'' if read.amax is None else ' at most'}, {read.num_scales} scales"
    return f"{text}, zero point {read.zero_point}" if read.zero_point else text
