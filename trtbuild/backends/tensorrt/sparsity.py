"""2:4 sparsity in a plan: layers with the pattern, layers that could run sparse, and layers that do.

With ``SPARSE_WEIGHTS`` TensorRT times sparse kernels against dense ones and keeps the faster. Its log names
both sets of layers, and its layer information has ``HasSparseWeights`` and the kernel's name (NVIDIA/TensorRT
issues 2169, 4056 and 4694). Without them nothing is known: TensorRT for RTX chooses kernels where the plan
runs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trtbuild.json_codec import encode
from trtbuild.model.attributes import input_at
from trtbuild.model.constants import array
from trtbuild.model.qdq import weight_behind
from trtbuild.model.traversal import label
from trtbuild.model.two_four import has_two_four, input_channel_axis

if TYPE_CHECKING:
    from collections.abc import Iterable

    import onnx_ir as ir

    from trtbuild.runtime.tensorrt.inspector import EngineLayers, Layer

__all__ = ["PlanSparsity", "sparsity_of", "with_pattern"]

_ELIGIBLE = re.compile(r"\(Sparsity\) Layers eligible for sparse math:(.*)", re.DOTALL)
_PICKED = re.compile(
    r"\(Sparsity\) TRT inference plan picked sparse implementation for layers:(.*)", re.DOTALL
)
_KERNEL = "sparse"
_MOST_NAMED = 8


@dataclass(frozen=True)
class PlanSparsity:
    """2:4 sparsity in a plan, as far as it is known.

    Attributes:
        with_pattern: nodes whose weights have the pattern.
        num_weighted: number of nodes with a constant weight.
        eligible: layers that could run sparse kernels; None if the builder's log does not say.
        picked: layers that run a sparse kernel; None if neither log nor layers say.
        seen_in: source of `picked`: ``log``, ``layers``, or empty.
    """

    with_pattern: tuple[str, ...]
    num_weighted: int
    eligible: tuple[str, ...] | None = None
    picked: tuple[str, ...] | None = None
    seen_in: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return JSON types."""
        found: dict[str, Any] = encode(self)
        return found

    def __str__(self) -> str:
        text = f"2:4: {len(self.with_pattern)} of {self.num_weighted} layers with weights have the pattern"
        if self.eligible is not None:
            text += f", the builder could take {len(self.eligible)} as sparse"
        if self.picked is None:
            return f"{text}; which run sparse kernels cannot be seen here"
        named = ", ".join(self.picked[:_MOST_NAMED]) + (
            ", ..." if len(self.picked) > _MOST_NAMED else ""
        )
        if not self.picked:
            return f"{text}, but dense kernels were faster for all: the zeros gain no time"
        return f"{text}, and sparse kernels were chosen for {len(self.picked)}: {named}"


def sparsity_of(model: ir.Model, log: Iterable[str], layers: EngineLayers) -> PlanSparsity:
    """Find the 2:4 sparsity in a plan.

    Args:
        model: the network that was built, with Q/DQ or in float.
        log: lines of the builder's log.
        layers: layers of the plan; empty if it was not opened.
    """
    lines = list(log)
    eligible, picked = _last(_ELIGIBLE, lines), _last(_PICKED, lines)
    seen_in = "log" if picked is not None else ""
    if picked is None and layers.detailed:
        picked, seen_in = tuple(one.name for one in layers.layers if _runs_sparse(one)), "layers"
    found = [
        (label(node), holds) for node in model.graph if (holds := with_pattern(node)) is not None
    ]
    return PlanSparsity(
        tuple(name for name, holds in found if holds), len(found), eligible, picked, seen_in
    )


def with_pattern(node: ir.Node) -> bool | None:
    """Return whether a node's weight has at least two zeros in every four consecutive input channels.

    Returns:
        None for a node without a constant weight.
    """
    axis, value = input_channel_axis(node), input_at(node, 1)
    if node.domain != "" or axis is None or value is None:
        return None
    weight = weight_behind(value)
    weight = array(value) if weight is None else weight
    return None if weight is None else has_two_four(weight, axis)


def _last(pattern: re.Pattern[str], lines: Iterable[str]) -> tuple[str, ...] | None:
    """The names in the last line that matches; None if no line matches."""
    told = [match[1] for line in lines if (match := pattern.search(line))]
    if not told:
        return None
    return tuple(name for part in told[-1].split(",") if (name := part.strip()))


def _runs_sparse(layer: Layer) -> bool:
    return layer.has_sparse_weights and _KERNEL in layer.tactic.lower()
