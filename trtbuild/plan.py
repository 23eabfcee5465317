"""Where Q/DQ go and with which numbers, as data; rules make plans, `insert` carries them out."""

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
    """One reader of a tensor: a node's input; or the network's output (`GRAPH_OUTPUT`, position)."""

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
        index: input index there.
        axis: axis of the per-channel scales, or None for one scale.
    """

    node: str
    index: int
    axis: int | None


class GroupKind(StrEnum):
    """What the Q/DQ of a group are for."""

    LAYER = "layer"
    SKIP_BRANCH = "skip branch"
    POOL = "pool"
    CONCAT = "concat"
    MOVEMENT = "data movement"
    ATTENTION = "attention"
    # these two stand in ONNX Runtime's form alone
    KERNEL = "integer kernel"
    OUTPUT = "graph output"


@dataclass(frozen=True)
class Group:
    """One place where INT8 is chosen: Q/DQ that stand or go together, whatever others do.

    Attributes:
        name: of the node that reads through them, which is exact and unique; ``output NAME`` for an
            output of the network.
        op_type: the node's operator; `GRAPH_OUTPUT` for an output.
        kind: what they are for.
        consumers: the inputs that read through a pair; a layer's weight goes with its data input.
        int8: whether it is in INT8; otherwise the user or a search keeps it in float.
        reason: why.
        macs: multiply-accumulates for one image; 0 where it has none or the shapes are not known.
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
        """Whether it stands in TensorRT's form, too."""
        return self.kind not in (GroupKind.KERNEL, GroupKind.OUTPUT)

    @property
    def rounds(self) -> bool:
        """Whether TensorRT's form rounds values for it alone.

        Data movement and Concat share the scale of what is read behind them: in float, they only pass
        the rounding on to there.
        """
        passing_on = (GroupKind.CONCAT, GroupKind.MOVEMENT)
        return self.in_tensorrt_form and self.kind not in passing_on


@dataclass(frozen=True)
class PlacementRequest:
    """What is asked of a placement: what stays in float, and for which compiler it is.

    Attributes:
        patterns: groups kept in float, by name, op type, or a glob over either.
        groups: exact names of further ones; never read as patterns.
        target: the compiler; None for what is installed.
    """

    patterns: tuple[str, ...] = ()
    groups: frozenset[str] = frozenset()
    target: Target | None = None

    def with_float(self, names: Iterable[str]) -> PlacementRequest:
        """Return the request with the groups of these names in float, too."""
        return replace(self, groups=self.groups.union(names))


ANYWHERE = PlacementRequest()
"""The request that keeps nothing in float."""


@dataclass(frozen=True)
class Placement:
    """Where Q/DQ go, before any range is known.

    Attributes:
        consumers: tensor -> the readers that read it through a Q/DQ pair; the others read floats.
        weights: the weights that become INT8.
        root: quantized tensor -> the tensors whose ranges decide its scale (itself, where it is
            computed; the origin of the values, behind data movement; all parts, behind a Concat).
        groups: every place where INT8 is chosen, in the order of the network.
        decisions: one per node, with the reason; made from the groups.
        differences: tensor -> (sum, addend): its range follows from theirs, since it is one minus
            the other; such a tensor has no roots and is not observed.
        unclipped: roots whose scale spans all that was seen, whatever the calibration's rule clips.
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
    """A placement with the numbers: what `insert` needs.

    Attributes:
        consumers: as in `Placement`.
        weights: as in `Placement`.
        params: quantized tensor -> scale and zero point.
        int32_biases: nodes whose constant bias becomes int32 with the scale of the products, which
            ONNX Runtime's integer kernels want and TensorRT refuses.
    """

    consumers: Mapping[str, frozenset[Consumer]]
    weights: tuple[WeightPoint, ...]
    params: Mapping[str, QuantParams]
    int32_biases: frozenset[str] = frozenset()


@dataclass(frozen=True)
class OutputSteps:
    """How uint8 stands for what a convolution gives, with a scale for each channel (axis 1).

    Attributes:
        scales: positive, float32 ``[channels]``.
        zero_point: of all channels, 0 to 255.
    """

    scales: np.ndarray
    zero_point: int


@dataclass(frozen=True)
class PortableChoice:
    """What is chosen for ONNX Runtime's form alone.

    Attributes:
        same_grid: tensors of both signs that TensorRT's form rounds, too, are rounded to the same values;
            else to steps that are as fine as what each tensor holds allows.
        steps: tensor -> its scales, of those that a convolution gives to float operators; see
            `trtbuild.quantization.output_channels`.
        in_float: tensors that are not rounded; the convolutions that give them compute in float.
        kernels: whether what has no weights and is INT8 in this form alone (a SiLU's Sigmoid and Mul) is.
    """

    same_grid: bool = False
    steps: Mapping[str, OutputSteps] = field(default_factory=dict)
    in_float: frozenset[str] = frozenset()
    kernels: bool = True


def symmetric(amax: float) -> QuantParams:
    """Return signed INT8 with ``scale = float32(amax) / float32(127)``, in float32 as TensorRT divides."""
    return QuantParams(np.float32(amax) / np.float32(INT8_LIMIT))
