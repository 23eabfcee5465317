"""How ranges are found, as one value."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from trtbuild.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["AS_TENSORRT", "CalibrateOptions"]

# The method that depends on the order of the batches; the others work on histograms alone.
AS_TENSORRT = "entropy-tensorrt"


@dataclass(frozen=True, kw_only=True)
class CalibrateOptions:
    """How ranges are chosen, and where the work is done (which never changes the ranges, but for `device`).

    Attributes:
        method: a rule of `calibrators.METHODS` or `calibrators.presets`, or ``entropy-tensorrt``.
        method_options: what the rule takes, for example ``{"percentile": 99.99}``.
        batch_size: of ``entropy-tensorrt``; no other rule depends on it.
        until_stable: stop when the thresholds of two halves of the data differ by at most this share
            in every tensor; None uses all the data.
        workers: processes; 1 stays in this one, with a thread per core.
        ray: work on a Ray cluster instead of processes.
        ray_address: of the cluster; None starts one here.
        device: ``cpu``, or ``cuda``: ONNX Runtime's CUDA provider, whose activations are near those of a
            CPU, and PyTorch, which counts them there.
        preprocess: text that identifies the preprocessing, for the file's provenance.
    """

    method: str = "entropy"
    method_options: Mapping[str, float] = field(default_factory=dict)
    batch_size: int = 8
    until_stable: float | None = None
    workers: int = 1
    ray: bool = False
    ray_address: str | None = None
    device: str = "cpu"
    preprocess: str = "none"

    def __post_init__(self) -> None:
        spread_out = self.workers > 1 or self.ray or self.until_stable is not None
        if self.method == AS_TENSORRT and spread_out:
            raise OptionError(
                f"{AS_TENSORRT} depends on the order of all batches, so it cannot be spread over workers "
                "or stopped early; use entropy, or leave --workers, --ray and --until-stable out."
            )
        if self.device != "cpu" and (self.workers > 1 or self.ray or self.method == AS_TENSORRT):
            raise OptionError(
                f"--calibrate-on {self.device} works in one process, and not for {AS_TENSORRT}; leave one of "
                "the options out."
            )
        if self.until_stable is not None and not 0 < self.until_stable < 1:
            raise OptionError("--until-stable is a share between 0 and 100 %, for example 1%.")
