"""One way to quantize a network, on its way through the search."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from trtbuild.model.operators import WEIGHTED
from trtbuild.quantization import quantize
from trtbuild.search.bias_correction import corrected

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import onnx_ir as ir

    from trtbuild.artifact import Artifact

__all__ = ["Draft"]

_REASON = "kept in float to meet the accuracy budget"


@dataclass(frozen=True)
class Draft:
    """What a step may change.

    Attributes:
        artifact: with the float network (perhaps equalized) and its calibration.
        float_patterns: layers that the user keeps in float.
        float_nodes: layers that the search keeps in float.
        shifts: what bias correction takes out of each layer that is in INT8.
    """

    artifact: Artifact
    float_patterns: tuple[str, ...] = ()
    float_nodes: frozenset[str] = frozenset()
    shifts: Mapping[str, np.ndarray] = field(default_factory=dict)

    def realized(self) -> Artifact:
        """Quantize it.

        Raises:
            InputError: a tensor that needs a range has none.
        """
        shifts = {name: s for name, s in self.shifts.items() if name not in self.float_nodes}
        model = corrected(self.artifact.model, shifts) if shifts else self.artifact.model
        patterns = (*self.float_patterns, *sorted(self.float_nodes))
        artifact = quantize(replace(self.artifact, model=model), patterns)
        decisions = tuple(
            replace(decision, reason=_REASON) if decision.node in self.float_nodes else decision
            for decision in artifact.decisions
        )
        return replace(artifact, decisions=decisions)

    def network(self) -> ir.Model:
        """The Q/DQ network, in TensorRT's form."""
        quantized = self.realized().quantized
        assert quantized is not None
        return quantized

    def int8_layers(self) -> tuple[str, ...]:
        """Names of the layers with weights that are in INT8."""
        decisions = self.realized().decisions
        return tuple(d.node for d in decisions if d.quantized and d.op_type in WEIGHTED)
