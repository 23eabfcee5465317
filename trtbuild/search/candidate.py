"""A candidate of a search: a quantized network with some groups in float."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from trtbuild.quantization import insert_qdq, place_by_ranges
from trtbuild.search.bias_correction import corrected
from trtbuild.search.groups import find_groups, with_float
from trtbuild.search.rounding import with_weights

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import numpy as np
    import onnx_ir as ir

    from trtbuild.artifact import Artifact
    from trtbuild.plan import Group

__all__ = ["Candidate", "FileCandidate", "HasGroups"]


class HasGroups(Protocol):
    """The interface that sensitivity, bisecting and ranking need of a candidate."""

    def groups(self) -> tuple[Group, ...]:
        """Return the INT8 groups that round values, in the order of the network."""
        ...

    def with_float(self, names: Collection[str]) -> HasGroups:
        """Return the candidate with these groups in float, too."""
        ...

    def network(self) -> ir.Model:
        """Return the Q/DQ network."""
        ...


@dataclass(frozen=True)
class Candidate:
    """A network quantized by trtbuild: ranges, bias shifts, rounded weights, and groups in float.

    Attributes:
        artifact: has the float network (with channels scaled or not), its calibration, and the request for
            what the user and the search keep in float.
        shifts: INT8 layer -> what bias correction subtracts from its bias.
        rounded: INT8 layer -> its weight, rounded to multiples of its scales.
        reasons: group that a search keeps in float -> why.
    """

    artifact: Artifact
    shifts: Mapping[str, np.ndarray] = field(default_factory=dict)
    rounded: Mapping[str, np.ndarray] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)

    @property
    def float_groups(self) -> frozenset[str]:
        """Exact names of the groups that the user and the search keep in float."""
        return self.artifact.request.groups

    def realized(self) -> Artifact:
        """Return the quantized artifact.

        Raises:
            InputError: a tensor that needs a range has none.
        """
        shifts, rounded = (
            {name: item for name, item in items.items() if name not in self.float_groups}
            for items in (self.shifts, self.rounded)
        )
        model = corrected(self.artifact.model, shifts) if shifts else self.artifact.model
        model = with_weights(model, rounded) if rounded else model
        changed = replace(self.artifact, model=model)
        return _explained(insert_qdq(changed), self.reasons)

    def network(self) -> ir.Model:
        """Return the Q/DQ network, in TensorRT's form."""
        quantized = self.realized().quantized
        assert quantized is not None
        return quantized

    def groups(self) -> tuple[Group, ...]:
        """Return the INT8 groups that round values, in the order of the network."""
        calibration = self.artifact.calibration
        assert calibration is not None
        placement, _ = place_by_ranges(self.artifact.model, calibration, self.artifact.request)
        return tuple(group for group in placement.groups if group.int8 and group.rounds)

    def with_float(self, names: Collection[str], reason: str = "") -> Candidate:
        """Return the candidate with these groups in float, too; the manifest states `reason`."""
        request = self.artifact.request.with_float(names)
        reasons = {**self.reasons, **dict.fromkeys(names, reason)} if reason else self.reasons
        return replace(self, artifact=replace(self.artifact, request=request), reasons=reasons)


def _explained(artifact: Artifact, reasons: Mapping[str, str]) -> Artifact:
    """The quantized artifact with the search's reasons (group -> why) for groups in float."""
    if not reasons:
        return artifact
    assert artifact.placement is not None
    groups = tuple(
        replace(group, reason=reasons.get(group.name, group.reason)) for group in artifact.groups
    )
    decisions = tuple(
        replace(decision, reason=reasons.get(decision.node, decision.reason))
        for decision in artifact.decisions
    )
    placement = replace(artifact.placement, groups=groups, decisions=decisions)
    return replace(artifact, placement=placement, decisions=decisions)


@dataclass(frozen=True)
class FileCandidate:
    """A Q/DQ network of any tool.

    Attributes:
        quantized: the network as written.
        reference: the float network, from which groups in float take their weights.
        float_groups: names of the groups in float.
    """

    quantized: ir.Model
    reference: ir.Model
    float_groups: frozenset[str] = frozenset()

    def network(self) -> ir.Model:
        """Return the Q/DQ network, without the Q/DQ of groups in float."""
        if not self.float_groups:
            return self.quantized
        return with_float(self.quantized, self.reference, self.float_groups)

    def groups(self) -> tuple[Group, ...]:
        """Return the groups that are not in float.

        Raises:
            OptionError: no layer of the file reads Q/DQ.
        """
        return tuple(g for g in find_groups(self.quantized) if g.name not in self.float_groups)

    def with_float(self, names: Collection[str]) -> FileCandidate:
        """Return the candidate with these groups in float, too."""
        return replace(self, float_groups=self.float_groups | set(names))
