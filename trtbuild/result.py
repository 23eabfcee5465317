"""What a build gives, and the names of the networks that are compared in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from trtbuild.artifact import Artifact
    from trtbuild.backends.base import Engine
    from trtbuild.latency.measure import Samples
    from trtbuild.search.budget import Tuned
    from trtbuild.verification.compare import Comparison
    from trtbuild.verification.gate import Verdict
    from trtbuild.verification.layers import LayerReport

__all__ = ["ENGINE", "FLOAT", "TENSORRT_FORM", "TITLES", "EngineResult"]

# The names under which networks are compared and timed.
FLOAT = "float"
TENSORRT_FORM = "tensorrt_form"
ENGINE = "engine"

# What people read for them.
TITLES = {FLOAT: "float", TENSORRT_FORM: "TensorRT form", ENGINE: "engine"}


@dataclass(frozen=True)
class EngineResult:
    """What came out.

    Attributes:
        artifact: the network with its calibration, its Q/DQ form and the reasons.
        engine: what the backend built.
        why_backend: what was picked, and why.
        files: file name -> what it is.
        comparisons: figures against the float network, of TensorRT's form and of the engine.
        verdicts: the gate's judgement of each.
        latency: samples of the float network and of the engine; empty when not measured.
        manifest: path of the record.
        kept_apart: whether calibration is known not to have seen the images of the comparisons.
        layers: the layers' errors, where an output of TensorRT's form is far from the float one.
        tuned: what the search for a budget did; None where none was set.
        record: what stands in the manifest, as JSON types; see `trtbuild.manifest`.
    """

    artifact: Artifact
    engine: Engine
    why_backend: str
    files: Mapping[str, str]
    comparisons: Mapping[str, Comparison]
    verdicts: Mapping[str, Verdict]
    latency: Mapping[str, Samples]
    manifest: Path
    kept_apart: bool
    layers: LayerReport | None = None
    tuned: Tuned | None = None
    record: Mapping[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether every limit holds."""
        return all(verdict.passed for verdict in self.verdicts.values())
