"""The stage: an artifact and data in, the same with a range for every tensor that needs one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from calibrators import Calibration, CalibratorError
from trtbuild.artifact import Artifact, Record
from trtbuild.calibration.observe import collect
from trtbuild.calibration.reuse import provenance_of
from trtbuild.data import data_digest
from trtbuild.errors import InputError
from trtbuild.progress import Progress, silent

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from trtbuild.data import Source

__all__ = ["CalibrateOptions", "calibrate"]


@dataclass(frozen=True)
class CalibrateOptions:
    """How ranges are chosen.

    Attributes:
        method: name of a rule in `calibrators.METHODS`.
        method_options: what the rule takes, for example ``{"percentile": 99.99}``.
        workers: threads that run the network; None takes one per core. Never changes the result.
        preprocess: text that identifies the preprocessing, for the file's provenance.
    """

    method: str = "entropy"
    method_options: Mapping[str, float] = field(default_factory=dict)
    workers: int | None = None
    preprocess: str = "none"


def calibrate(
    artifact: Artifact,
    samples: Source,
    tensors: Collection[str],
    options: CalibrateOptions | None = None,
    progress: Progress = silent,
) -> Artifact:
    """Run `samples` through the artifact's float network and choose a range for each of `tensors`.

    Raises:
        DataError: no sample, one that does not load, NaN or infinity in a tensor.
        InputError: the method or its options are unknown.
    """
    options = options or CalibrateOptions()
    count = sum(1 for _ in samples)
    collector = collect(
        artifact.model,
        samples,
        tensors,
        workers=options.workers,
        total=count,
        progress=progress,
    )
    provenance = {
        **provenance_of(artifact.source),
        "data": data_digest(samples),
        "num_samples": str(count),
        "preprocess": options.preprocess,
    }
    try:
        calibration = Calibration.from_histograms(
            collector.histograms,
            options.method,
            options=options.method_options,
            provenance=provenance,
        )
    except CalibratorError as error:
        raise InputError(str(error)) from error
    record = Record(
        "calibrate",
        f"{len(calibration.ranges)} tensors watched over {count} samples, {options.method} thresholds",
        {"method": options.method, "options": dict(options.method_options), **provenance},
    )
    return artifact.having(record, calibration=calibration)
