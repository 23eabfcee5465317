"""How ranges are found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from trtbuild.errors import OptionError, in_one_tree
from trtbuild.options.fields import option
from trtbuild.options.values import IN_MEMORY
from trtbuild.plugins import CALIBRATOR

__all__ = ["AS_TENSORRT", "DEFAULT_RULE", "METHOD_NAMES", "CalibrateOptions", "share"]

# The method that depends on the order of the batches; the others work on histograms alone.
AS_TENSORRT = "entropy-tensorrt"

DEFAULT_RULE = "entropy"

# `calibrators.METHODS`, ours, and `calibrators.PRESETS`; written down, for they need NumPy when imported.
METHOD_NAMES = (
    *("entropy", "percentile", "mse", "minmax", "auto", AS_TENSORRT),
    *("gtc2017", "modelopt", "tpu-mlir", "mxnet", "two-sided-4001", "onnxruntime", "ncnn", "mnn"),
    *("caffe-int8", "easyquant", "ppq", "paddleslim"),
)


def name_rule(rule: Callable[..., Any]) -> str:
    """Make a function a method of `calibrators`, and return the name that it has there."""
    from calibrators import add_method  # here: the package loads NumPy

    name = IN_MEMORY + getattr(rule, "__qualname__", type(rule).__qualname__)
    with in_one_tree():
        add_method(name, rule)
    return name


def share(text: str) -> float:
    """Return a share such as ``1%`` or ``0.01``.

    Raises:
        ValueError: it is no number.
    """
    try:
        return float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError as error:
        raise ValueError(f"cannot be '{text}'; write for example 1%") from error


def _percentile(text: str) -> tuple[str, float]:
    try:
        return "percentile", float(text)
    except ValueError as error:
        raise ValueError(f"cannot be '{text}'; write for example 99.99") from error


@dataclass(frozen=True, kw_only=True)
class CalibrateOptions:
    """How ranges are chosen, and where the work is done (which never changes the ranges, but for `device`).

    Attributes:
        method: the rule of all tensors; None leaves the choice to the stage. From Python, a function is one,
            too (`trtbuild.calibration.user_rules`).
        batch_size: of ``entropy-tensorrt``; no other rule depends on it.
        preprocess: text that identifies the preprocessing, for the file's provenance.
    """

    method: str | None = option(
        None,
        f"One rule for all thresholds: {', '.join(METHOD_NAMES)}; or your own, module:function.",
        flag="--calibrator", metavar="NAME", choices=METHOD_NAMES, essential=True,
        plugin=CALIBRATOR, takes_objects=True,
        when_absent="entropy; a build chooses by the effect on the outputs, see --effort",
    )  # fmt: skip
    method_options: Mapping[str, float] = option(
        {}, "With --calibrator percentile: share of the values that lie within the threshold.",
        flag="--percentile", metavar="FLOAT", unit="percent", parse=_percentile, when_absent="99.99",
        example='{ percentile = 99.99 }',
    )  # fmt: skip
    batch_size: int = 8
    until_stable: float | None = option(
        None, "Stop when the thresholds from two halves of the data agree to this share, such as 1%.",
        metavar="SHARE", parse=share, example='"1%"', essential=True,
    )  # fmt: skip
    workers: int = option(1, "Number of processes; does not change the result.", low=1)
    ray: str | None = option(
        None, "Work on a Ray cluster; without an address, on one that is started here.",
        metavar="ADDRESS", bare="",
    )  # fmt: skip
    device: str = option(
        "cpu", "Where the network runs; cuda needs onnxruntime-gpu and PyTorch.",
        flag="--calibrate-on", choices=("cpu", "cuda"),
    )  # fmt: skip
    preprocess: str = "none"

    @property
    def rule(self) -> str:
        """The rule by which thresholds are found of histograms alone."""
        return self.method or DEFAULT_RULE

    def __post_init__(self) -> None:
        if callable(self.method):
            object.__setattr__(self, "method", name_rule(self.method))
        uses_ray = self.ray is not None
        in_parts = self.workers > 1 or uses_ray or self.until_stable is not None
        if self.method == AS_TENSORRT and in_parts:
            raise OptionError(
                f"{AS_TENSORRT} depends on the order of all batches, so it cannot be spread over workers "
                "or stopped early; use entropy, or leave --workers, --ray and --until-stable out."
            )
        if self.device != "cpu" and (self.workers > 1 or uses_ray or self.method == AS_TENSORRT):
            raise OptionError(
                f"--calibrate-on {self.device} works in one process, and not for {AS_TENSORRT}; leave one of "
                "the options out."
            )
        if self.until_stable is not None and not 0 < self.until_stable < 1:
            raise OptionError(
                f"--until-stable is a share between 0 and 100 %, for example 1% or 0.01, and not "
                f"{100 * self.until_stable:g} %; a number without % is a fraction."
            )
