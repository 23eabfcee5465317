"""A candidate: a network with some groups in float, of which every question of a search is asked."""

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

__all__ = ["Candidate", "FileCandidate", "HasGroups", "explained"]


class HasGroups(Protocol):
    """What sensitivity, bisecting and ranking need of a candidate, wherever it comes from."""

    def groups(self) -> tuple[Group, ...]:
        """Return the groups in INT8 that round values, in the order of the network."""
        ...

    def with_float(self, names: Collection[str]) -> HasGroups:
        """Return the candidate with these groups in float, too."""
        ...

    def network(self) -> ir.Model:
        """Return the Q/DQ network."""
        ...


@dataclass(frozen=True)
class Candidate:
    """A network that is quantized here: ranges, bias shifts, rounding, and what stays in float.

    Attributes:
        artifact: with the float network (its channels perhaps scaled), its calibration, and what the user
            and the search keep in float.
        shifts: what bias correction takes out of each layer that is in INT8.
        rounded: weights on their grid, of the layers that are in INT8.
        reasons: group that a search keeps in float -> why.
    """

    artifact: Artifact
    shifts: Mapping[str, np.ndarray] = field(default_factory=dict)
    rounded: Mapping[str, np.ndarray] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)

    @property
    def float_groups(self) -> frozenset[str]:
        """Exact names of the groups in float, the user's and the search's."""
        return self.artifact.request.groups

    def realized(self) -> Artifact:
        """Return the artifact, quantized.

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
        return explained(insert_qdq(changed), self.reasons)

    def network(self) -> ir.Model:
        """Return the Q/DQ network, in TensorRT's form."""
        quantized = self.realized().quantized
        assert quantized is not None
        return quantized

    def groups(self) -> tuple[Group, ...]:
        """Return the groups in INT8 that round values, in the order of the network."""
        calibration = self.artifact.calibration
        assert calibration is not None
        placement, _ = place_by_ranges(self.artifact.model, calibration, self.artifact.request)
        return tuple(group for group in placement.groups if group.int8 and group.rounds)

    def with_float(self, names: Collection[str], reason: str = "") -> Candidate:
        """Return the candidate with these groups in float, too; `reason` is what the manifest says."""
        request = self.artifact.request.with_float(names)
        reasons = {**self.reasons, **dict.fromkeys(names, reason)} if reason else self.reasons
        return replace(self, artifact=replace(self.artifact, request=request), reasons=reasons)


def explained(artifact: Artifact, reasons: Mapping[str, str]) -> Artifact:
    """Return the quantized artifact whose groups in float say why the search has taken them there.

    Args:
        artifact: with its placement.
        reasons: group -> why.
    """
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
    """A Q/DQ network as some tool wrote it.

    Attributes:
        quantized: as written.
        reference: the float network, which gives back the weights of groups in float.
        float_groups: names of the groups in float.
    """

    quantized: ir.Model
    reference: ir.Model
    float_groups: frozenset[str] = frozenset()

    def network(self) -> ir.Model:
        """Return the Q/DQ network, without those of the groups in float."""
        if not self.float_groups:
            return self.quantized
        return with_float(self.quantized, self.reference, self.float_groups)

    def groups(self) -> tuple[Group, ...]:
        """Return the groups that are not in float.

        Raises:
            OptionError: nothing in the file reads Q/DQ.
        """
        return tuple(g for g in find_groups(self.quantized) if g.name not in self.float_groups)

    def with_float(self, names: Collection[str]) -> FileCandidate:
        """Return the candidate with these groups in float, too."""
        return replace(self, float_groups=self.float_groups | set(names))
