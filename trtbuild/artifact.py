"""The one value that goes from stage to stage."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - read by `decode`
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from trtbuild.plan import ANYWHERE

if TYPE_CHECKING:
    import onnx_ir as ir

    from calibrators import Calibration
    from trtbuild.model.cut import Cut
    from trtbuild.plan import Decision, Group, Placement, PlacementRequest, PortableChoice

__all__ = ["Artifact", "EarlyStop", "Record"]


@dataclass(frozen=True)
class Record:
    """What one stage did: of types that `trtbuild.json_codec.encode` knows."""

    stage: str
    summary: str
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class EarlyStop:
    """How a calibration that might stop early has ended.

    Attributes:
        share: by how much the thresholds of two halves may differ, as a share.
        num_used: samples that were counted.
        num_given: samples that there were.
        num_tensors: tensors observed.
        apart: tensor -> by how much its halves' thresholds differ, as a share, of those that do not
            agree, the widest first; None where one half of the data holds no sample.
    """

    share: float
    num_used: int
    num_given: int
    num_tensors: int
    apart: Mapping[str, float | None]

    def __str__(self) -> str:
        return (
            f"{self.num_used} of {self.num_given} samples were used, and in {len(self.apart)} of "
            f"{self.num_tensors} tensors thresholds of two halves do not agree to {self.share:.1%}"
        )


@dataclass(frozen=True)
class Artifact:
    """A network on its way through the pipeline.

    A stage is a function ``(artifact, options) -> artifact``; it clones the network before it
    changes anything (`onnx_ir.Model.clone` shares the weights, so that is cheap).

    Attributes:
        name: stem of every file written, for example ``resnet20``.
        source: the network as it was given, or its part in front of `cut`.
        model: the network at this stage: as given, then prepared. Always float.
        calibration: range of each observed tensor of `model`, once calibrated.
        given_calibration: the calibration of the network before a search has changed it, which fits the
            network that the user has; None where nothing could change it.
        halves_apart: tensor -> by how much the thresholds of two halves of the data differ, as a
            share; empty where that is not known.
        early_stop: how a calibration that might stop early has ended; None where it could not.
        quantized: `model` with Q/DQ in TensorRT's form, once quantized.
        placement: where the Q/DQ of `quantized` stand.
        decisions: for every node that could be INT8, whether it is, and why.
        portable: what was chosen for ONNX Runtime's form alone; None for nothing.
        history: one record per stage done; the manifest is made of them.
        cut: where the network was cut in front of operators that ONNX Runtime cannot run; None where it
            is whole.
        request: what is asked of the placement: what stays in float, and for which compiler.
        reference: the module as it was loaded, where channels or weights were taken from it before it
            became `source`; None where `source` itself is what figures count from.
    """

    name: str
    source: ir.Model
    model: ir.Model
    calibration: Calibration | None = None
    given_calibration: Calibration | None = None
    halves_apart: Mapping[str, float] = field(default_factory=dict)
    early_stop: EarlyStop | None = None
    quantized: ir.Model | None = None
    decisions: tuple[Decision, ...] = ()
    placement: Placement | None = None
    portable: PortableChoice | None = None
    history: tuple[Record, ...] = ()
    cut: Cut | None = None
    request: PlacementRequest = ANYWHERE
    reference: ir.Model | None = None

    @property
    def float_reference(self) -> ir.Model:
        """What every figure and limit counts from: `reference`, else `source`."""
        return self.source if self.reference is None else self.reference

    def whole(self, model: ir.Model) -> ir.Model:
        """Return `model`, a form of this artifact's network, with what lies behind the cut after it."""
        return model if self.cut is None else self.cut.join(model)

    @property
    def came_in_float(self) -> bool:
        """Whether its INT8 form, where there is one, was made here."""
        made_here = self.placement is not None or self.calibration is not None
        return self.quantized is None or made_here

    @property
    def groups(self) -> tuple[Group, ...]:
        """Every place where INT8 was chosen or refused, of the forms of both runtimes."""
        return () if self.placement is None else self.placement.groups

    def with_calibration(self, calibration: Calibration) -> Artifact:
        """Return this artifact with ranges that were found before, and where they came from."""
        record = Record(
            "calibrate",
            f"{len(calibration.ranges)} ranges from an earlier calibration",
            {"method": calibration.method, **calibration.provenance},
        )
        return self.having(record, calibration=calibration, halves_apart={}, early_stop=None)

    def having(self, record: Record, **changes: Any) -> Artifact:
        """Return this artifact with `changes` made and `record` added to its history."""
        return replace(self, history=(*self.history, record), **changes)
