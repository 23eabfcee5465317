"""What an engine is compared by, and what is looked into when it is off."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from trtbuild.errors import OptionError
from trtbuild.options.fields import option, options_of
from trtbuild.plugins import JUDGE, METRIC, Kind, load

__all__ = [
    "REFERENCE_BACKEND",
    "ComparisonOptions",
    "Diagnosis",
    "Metric",
    "TaskOptions",
    "load_metric",
]

Metric: TypeAlias = Callable[..., Any]
"""A user's metric; `trtbuild.verification.scores.MetricAverage` says what it is called with."""

# What builds and runs the portable form; candidates of a diagnosis run there unless an engine is asked for.
REFERENCE_BACKEND = "onnxruntime"


def load_metric(reference: str, kind: Kind = METRIC) -> Metric:
    """Import the metric, or judge: ``package.module:name``, ``script.py:name``, or an installed one's name.

    Args:
        reference: its name.
        kind: which of the two it is.

    Raises:
        OptionError: there is no such module or name, or it cannot be called.
    """
    metric: Metric = load(kind, reference, OptionError)
    if not callable(metric):
        raise OptionError(
            f"the {kind.what} '{reference}' is a {type(metric).__name__}, not a function."
        )
    return metric


def _named_metric(reference: str) -> tuple[str, Metric]:
    return reference, load_metric(reference)


@dataclass(frozen=True, kw_only=True)
class ComparisonOptions:
    """What is looked at.

    Attributes:
        make_task: makes the judge of the network's task, a `trtbuild.verification.tasks.base.Task`; see
            `trtbuild.verification.tasks.choose.choose_task`.
        make_album: makes a `trtbuild.verification.album.Album`, which keeps the looks of the task's worst
            samples; None keeps nothing.
    """

    top_k: int = option(5, "The k of the top-k agreement.", low=2)
    num_worst: int = option(
        10, "How many of the worst samples are listed for each output.", flag="--worst", low=0
    )
    scores: tuple[str, ...] | None = option(
        None, "Output that holds class scores. Repeatable.", metavar="OUTPUT",
        when_absent="those whose shape says so",
    )  # fmt: skip
    label_output: str | None = option(
        None, "The class scores that labels belong to.", metavar="OUTPUT", when_absent="the first"
    )
    metrics: Mapping[str, Metric] = option(
        {}, "Your own metric, higher is better. Repeatable.",
        flag="--metric", metavar="MODULE:FUNCTION", plugin=METRIC, parse=_named_metric, essential=True,
    )  # fmt: skip
    make_task: Callable[[], Any] | None = None
    make_album: Callable[[], Any] | None = None


@dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """What the network is for, so that accuracy is measured on that."""

    kind: Literal[
        "auto", "none", "classify", "detect", "ctc", "embed", "segment", "restore"
    ] = option(
        "auto",
        "Task that the engine is compared with float on, without labels; auto: by the network, if it is "
        "clear.",
        flag="--task", essential=True,
    )  # fmt: skip
    box_layout: Literal["yolov5", "yolov8", "yolox", "ssd", "detr", "nms"] | None = option(
        None, "What a detector's outputs mean.", when_absent="by the network, where that is clear"
    )
    min_score: float | None = option(
        None, "Boxes and masks count above this score.", low=0, high=1,
        when_absent="0.25 for boxes, 0.5 for masks",
    )  # fmt: skip
    coco: Path | None = option(
        None,
        "COCO annotations of the images (JSON): a detector's mAP is measured, too.",
        metavar="FILE",
    )
    judge: str | Metric | None = option(
        None, "Your own judge of float and engine outputs; a number, higher is better.",
        metavar="MODULE:FUNCTION", plugin=JUDGE, takes_objects=True, essential=True,
    )  # fmt: skip

    def __post_init__(self) -> None:
        for field in options_of(type(self)):
            value = getattr(self, field.name)
            if field.choices and value is not None and value not in field.choices:
                known = ", ".join(field.choices)
                raise OptionError(f"there is no {field.flag} '{value}'; there are {known}.")
        if self.judge is not None and self.kind not in ("auto", "none"):
            raise OptionError(f"--judge and --task {self.kind} exclude each other.")
        if self.coco is not None and self.kind not in ("auto", "detect"):
            raise OptionError(f"--coco is for --task detect, not {self.kind}.")
        if self.box_layout is not None and self.kind not in ("auto", "detect"):
            raise OptionError(f"--box-layout is for --task detect, not {self.kind}.")

    @property
    def is_named(self) -> bool:
        """Whether the task, its layout or its judge is said, and not looked for in the network."""
        given = (self.box_layout, self.coco, self.judge)
        return self.kind not in ("auto", "none") or any(one is not None for one in given)


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What is looked into beyond the outputs; each needs a Q/DQ network in ONNX as the engine."""

    layers: bool = option(
        False, "What each layer in INT8 does to the outputs, and its own error.", essential=True
    )
    sensitivity: bool = option(
        False, "What each group of Q/DQ costs alone, measured one by one.", essential=True
    )
    bisect: bool = option(
        False, "When a limit fails: a minimal set of groups that explains it.", essential=True
    )
    num_images: int | None = option(
        64, "Images that --layers, --sensitivity and --bisect run on.",
        flag="--diagnose-images", low=1,
    )  # fmt: skip
    backend: str = option(
        REFERENCE_BACKEND,
        "Where --sensitivity and --bisect run: onnxruntime computes Q/DQ as written, on CPU; tensorrt "
        "builds an engine of every candidate.",
        flag="--diagnose-on", metavar="BACKEND",
    )  # fmt: skip

    @property
    def wanted(self) -> bool:
        """Whether anything is."""
        return self.layers or self.sensitivity or self.bisect
