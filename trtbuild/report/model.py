"""A report: what was found, as data; nothing here knows how it will look."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from calibrators import Histogram
    from trtbuild.latency.conditions import Conditions, Device
    from trtbuild.latency.measure import Samples
    from trtbuild.latency.regress import LatencyVerdict
    from trtbuild.plan import Decision
    from trtbuild.search.bisect import Culprits
    from trtbuild.search.budget import StepReport
    from trtbuild.search.sensitivity import GroupSensitivity
    from trtbuild.verification.compare import Comparison
    from trtbuild.verification.gate import Verdict
    from trtbuild.verification.layers import LayerReport

__all__ = ["Report", "TensorPlot"]


@dataclass(frozen=True)
class TensorPlot:
    """A tensor's statistics, and the thresholds by label."""

    tensor: str
    histogram: Histogram
    amaxes: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that a page or a file may show; what is empty is left out.

    Attributes:
        title: names the engine.
        facts: label -> text, at the top: files, data, backend.
        verdicts: name of the network -> judgement of its accuracy.
        comparisons: accuracy of each network.
        latency_verdicts: faster, same, slower or cannot tell.
        samples: latencies.
        device, conditions: where and under what they were taken.
        decisions: INT8 or float, layer by layer, with the reason.
        steps: what a search for an accuracy budget did, and on how many images.
        layers, sensitivity, culprits: who is to blame.
        tensors: histograms of the tensors that quantization hurts most.
        manifest: the record of the build.
    """

    title: str
    facts: Mapping[str, str] = field(default_factory=dict)
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    comparisons: tuple[Comparison, ...] = ()
    latency_verdicts: tuple[LatencyVerdict, ...] = ()
    samples: tuple[Samples, ...] = ()
    device: Device | None = None
    conditions: Conditions | None = None
    decisions: tuple[Decision, ...] = ()
    steps: tuple[StepReport, ...] = ()
    num_search_images: int = 0
    layers: LayerReport | None = None
    sensitivity: tuple[GroupSensitivity, ...] = ()
    culprits: Culprits | None = None
    tensors: tuple[TensorPlot, ...] = ()
    manifest: Mapping[str, Any] | None = None

    @property
    def passed(self) -> bool:
        """Whether no limit failed and nothing is slower."""
        sound = all(verdict.passed for verdict in self.verdicts.values())
        return sound and not any(v.answer == "slower" for v in self.latency_verdicts)
