"""The value that each stage takes and returns."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - read by `decode`
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from trtbuild.plan import ANYWHERE
from trtbuild.wording import counted

if TYPE_CHECKING:
    import onnx_ir as ir

    from calibrators import Calibration
    from trtbuild.model.cut import Cut
    from trtbuild.plan import Decision, Group, Placement, PlacementRequest, PortableChoice

__all__ = ["Artifact", "EarlyStop", "Record"]


@dataclass(frozen=True)
class Record:
    """What one stage did; `details` has only types that `trtbuild.json_codec.encode` knows."""

    stage: str
    summary: str
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class EarlyStop:
    """How a calibration with early stopping ended.

    Attributes:
        share: by how much the thresholds of two halves may differ, as a share.
        num_used: number of samples counted.
        num_given: number of samples available.
        num_tensors: number of tensors observed.
        apart: tensors whose halves do not agree -> by how much their thresholds differ, as a share, the
            largest first; None if one half of the data has no sample.
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
    """A network between two stages of the pipeline, with what the stages so far have found.

    A stage is a function ``(artifact, options) -> artifact``; it clones the network before it
    changes anything (`onnx_ir.Model.clone` shares the weights, so a clone is cheap).

    Attributes:
        name: stem of every file written, for example ``resnet20``.
        source: the network as given, or its part before `cut`.
        model: the network at this stage: as given, then prepared. Always float.
        calibration: range of each observed tensor of `model`; None before calibration.
        given_calibration: the calibration from before a search changed the network, which fits the
            user's network; None if nothing could change it.
        halves_apart: tensor -> by how much the thresholds of two halves of the data differ, as a
            share; empty if not known.
        early_stop: how a calibration with early stopping ended; None without early stopping.
        quantized: `model` with Q/DQ in TensorRT's form; None before quantization.
        placement: where the Q/DQ of `quantized` are.
        decisions: for every node that could be INT8, whether it is, and why.
        portable: choices for ONNX Runtime's form alone; None if there are none.
        history: one record per stage done; the manifest is made from them.
        cut: where the network was cut before operators that ONNX Runtime cannot run; None if it is
            whole.
        request: what stays in float, and the compiler to place Q/DQ for.
        reference: the module as loaded, if channels or weights were removed from it to make `source`;
            None if figures are relative to `source` itself.
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
        """The network that all figures and limits are relative to: `reference`, else `source`."""
        return self.source if self.reference is None else self.reference

    def whole(self, model: ir.Model) -> ir.Model:
        """Return `model`, a form of this artifact's network, joined with the part after the cut."""
        return model if self.cut is None else self.cut.join(model)

    @property
    def came_in_float(self) -> bool:
        """Whether the network was given in float: its INT8 form, if it has one, was made by trtbuild."""
        made_here = self.placement is not None or self.calibration is not None
        return self.quantized is None or made_here

    @property
    def groups(self) -> tuple[Group, ...]:
        """All groups of Q/DQ, in INT8 or float, of TensorRT's form and of ONNX Runtime's."""
        return () if self.placement is None else self.placement.groups

    def with_calibration(self, calibration: Calibration) -> Artifact:
        """Return this artifact with the ranges of an earlier calibration, and a record of their origin."""
        record = Record(
            "calibrate",
            f"{counted(len(calibration.ranges), 'range')} from an earlier calibration",
            {"method": calibration.method, **calibration.provenance},
        )
        return self.having(record, calibration=calibration, halves_apart={}, early_stop=None)

    def having(self, record: Record, **changes: Any) -> Artifact:
        """Return this artifact with `changes` made and `record` added to its history."""
        return replace(self, history=(*self.history, record), **changes)
