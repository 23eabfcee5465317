"""Data classes for where Q/DQ go and with which scales; rules make plans, `insert` inserts their Q/DQ."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from trtbuild.enums import StrEnum
from trtbuild.model.graph_library import ir

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from trtbuild.target import Target

__all__ = [
    "ANYWHERE",
    "INT8_LIMIT",
    "Consumer",
    "Decision",
    "Group",
    "GroupKind",
    "GroupRecord",
    "OutputSteps",
    "Placement",
    "PlacementRequest",
    "Plan",
    "PortableChoice",
    "QuantParams",
    "WeightPoint",
    "symmetric",
]

# TensorRT's symmetric INT8: amax maps to 127, and scale = amax / 127.
INT8_LIMIT = 127

# The consumer of a tensor that is an output of the network.
GRAPH_OUTPUT = "graph output"


@dataclass(frozen=True)
class Decision:
    """Why one node (or tensor) runs in INT8 or stays in float."""

    node: str
    op_type: str
    int8: bool
    reason: str


@dataclass(frozen=True, order=True)
class Consumer:
    """One reader of a tensor: an input of a node, or an output of the network (`GRAPH_OUTPUT`, position)."""

    node: str
    index: int


@dataclass(frozen=True)
class QuantParams:
    """Scale (positive, float32), zero point and integer type of one quantized tensor."""

    scale: np.float32
    zero_point: int = 0
    dtype: ir.DataType = ir.DataType.INT8


@dataclass(frozen=True, order=True)
class WeightPoint:
    """A constant weight that becomes INT8.

    Attributes:
        node: name of the node that reads it.
        index: which input of that node it is.
        axis: axis of the per-channel scales, or None for one scale.
    """

    node: str
    index: int
    axis: int | None


class GroupKind(StrEnum):
    """The purpose of a group's Q/DQ."""

    LAYER = "layer"
    SKIP_BRANCH = "skip branch"
    POOL = "pool"
    CONCAT = "concat"
    MOVEMENT = "data movement"
    ATTENTION = "attention"
    # only in ONNX Runtime's form
    KERNEL = "integer kernel"
    OUTPUT = "graph output"

    @property
    def in_tensorrt_form(self) -> bool:
        """Whether TensorRT's form has such groups, too."""
        return self not in (GroupKind.KERNEL, GroupKind.OUTPUT)


@dataclass(frozen=True)
class GroupRecord:
    """One place where INT8 is chosen, as records list it; see `Group`."""

    name: str
    op_type: str
    kind: str
    int8: bool
    reason: str


@dataclass(frozen=True)
class Group:
    """Q/DQ pairs that are kept or removed together, independently of other groups.

    Attributes:
        name: name of the node that reads through them, which is unique; ``output NAME`` for an output of
            the network.
        op_type: the node's operator; `GRAPH_OUTPUT` for an output.
        kind: what the Q/DQ are for.
        consumers: the inputs that read through a Q/DQ pair; a layer's weight belongs to its data input.
        int8: whether the group is in INT8; otherwise the user or a search keeps it in float.
        reason: why.
        macs: multiply-accumulates for one image; 0 if it has none or shapes are not known.
    """

    name: str
    op_type: str
    kind: GroupKind
    consumers: frozenset[Consumer]
    int8: bool
    reason: str
    macs: int = 0

    @property
    def in_tensorrt_form(self) -> bool:
        """Whether it is in TensorRT's form, too."""
        return self.kind.in_tensorrt_form

    @property
    def rounds(self) -> bool:
        """Whether TensorRT's form rounds values for this group alone.

        Data movement and Concat share the scale of the tensors that they pass on. Without their own Q/DQ,
        the values are rounded by the Q/DQ of the groups behind them instead.
        """
        passing_on = (GroupKind.CONCAT, GroupKind.MOVEMENT)
        return self.in_tensorrt_form and self.kind not in passing_on

    @property
    def record(self) -> GroupRecord:
        """The part that records list."""
        return GroupRecord(self.name, self.op_type, self.kind, self.int8, self.reason)


@dataclass(frozen=True)
class PlacementRequest:
    """The request for a placement: what stays in float, and for which compiler.

    Attributes:
        patterns: groups to keep in float, by name, op type, or a glob over either.
        groups: exact names of further groups to keep in float; never read as patterns.
        target: the compiler; None for the installed one.
    """

    patterns: tuple[str, ...] = ()
    groups: frozenset[str] = frozenset()
    target: Target | None = None

    def with_float(self, names: Iterable[str]) -> PlacementRequest:
        """Return the request with the groups of these names kept in float, too."""
        return replace(self, groups=self.groups.union(names))


ANYWHERE = PlacementRequest()
"""The request that keeps nothing in float."""


@dataclass(frozen=True)
class Placement:
    """Where Q/DQ go, before any range is known.

    Attributes:
        consumers: tensor -> the readers that read it through a Q/DQ pair; other readers get floats.
        weights: the weights that become INT8.
        roots: quantized tensor -> the tensors whose ranges decide its scale: itself if it is computed;
            behind data movement, the tensor that the values come from; behind a Concat, all its parts.
        groups: all groups of Q/DQ, in INT8 or float, in the order of the network.
        decisions: one per node, with the reason; made from the groups.
        differences: tensor -> (sum, addend): the tensor is the one minus the other, so its range follows
            from theirs; it has no roots and is not observed.
        unclipped: roots whose scale covers all values seen, even if the calibration's rule clips.
    """

    consumers: Mapping[str, frozenset[Consumer]]
    weights: tuple[WeightPoint, ...]
    roots: Mapping[str, frozenset[str]]
    groups: tuple[Group, ...]
    decisions: tuple[Decision, ...]
    differences: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    unclipped: frozenset[str] = frozenset()

    @property
    def observed(self) -> frozenset[str]:
        """The tensors that need a range."""
        return frozenset().union(*self.roots.values())

    @property
    def in_float(self) -> frozenset[str]:
        """Names of the groups that are kept in float."""
        return frozenset(group.name for group in self.groups if not group.int8)


@dataclass(frozen=True)
class Plan:
    """A placement with scales: the input of `insert`.

    Attributes:
        consumers: as in `Placement`.
        weights: as in `Placement`.
        params: quantized tensor -> scale and zero point.
        int32_biases: nodes whose constant bias becomes int32, with the product of input and weight scale
            as its scale; ONNX Runtime's integer kernels need this, and TensorRT rejects it.
    """

    consumers: Mapping[str, frozenset[Consumer]]
    weights: tuple[WeightPoint, ...]
    params: Mapping[str, QuantParams]
    int32_biases: frozenset[str] = frozenset()


@dataclass(frozen=True)
class OutputSteps:
    """Per-channel scales (axis 1) and the zero point of a convolution's output in uint8.

    Attributes:
        scales: positive, float32 ``[channels]``.
        zero_point: one for all channels, 0 to 255.
    """

    scales: np.ndarray
    zero_point: int


@dataclass(frozen=True)
class PortableChoice:
    """Choices for ONNX Runtime's form alone.

    Attributes:
        same_grid: whether tensors with values of both signs that TensorRT's form rounds, too, are rounded to
            the same values; otherwise each gets the finest scale that its range allows.
        steps: tensor -> its per-channel scales, for outputs of convolutions that float operators read; see
            `trtbuild.quantization.output_channels`.
        in_float: tensors that are not rounded; the convolutions that compute them run in float.
        kernels: whether nodes without weights that are INT8 in this form alone (Sigmoid and Mul of a SiLU)
            run in INT8.
    """

    same_grid: bool = False
    steps: Mapping[str, OutputSteps] = field(default_factory=dict)
    in_float: frozenset[str] = frozenset()
    kernels: bool = True


def symmetric(amax: float) -> QuantParams:
    """Return signed INT8 with ``scale = float32(amax) / float32(127)``, in float32 as TensorRT divides."""
    return QuantParams(np.float32(amax) / np.float32(INT8_LIMIT))
