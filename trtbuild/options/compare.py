"""What an engine is compared by, and what is looked into when it is off."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from trtbuild.errors import OptionError
from trtbuild.options.fields import option

__all__ = ["REFERENCE_BACKEND", "ComparisonOptions", "Diagnosis", "Metric", "load_metric"]

Metric: TypeAlias = Callable[..., Any]
"""A user's metric; `trtbuild.verification.scores.MetricAverage` says what it is called with."""

# Candidates of a diagnosis run here unless an engine is asked for.
REFERENCE_BACKEND = "onnxruntime"


def load_metric(reference: str) -> Metric:
    """Import the metric ``package.module:name``.

    Raises:
        OptionError: not of that form, no such module or name, or it cannot be called.
    """
    module, separator, name = reference.partition(":")
    if not (module and separator and name):
        raise OptionError(f"the metric '{reference}' should be given as 'package.module:function'.")
    try:
        metric: Metric = getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise OptionError(f"the metric '{reference}' cannot be imported: {error}.") from error
    except AttributeError as error:
        raise OptionError(f"the module '{module}' has no '{name}' to use as a metric.") from error
    if not callable(metric):
        raise OptionError(f"the metric '{reference}' is a {type(metric).__name__}, not a function.")
    return metric


def _named_metric(reference: str) -> tuple[str, Metric]:
    return reference, load_metric(reference)


@dataclass(frozen=True, kw_only=True)
class ComparisonOptions:
    """What is looked at."""

    top_k: int = option(5, "The k of the top-k agreement.", low=2)
    num_worst: int = option(
        10, "How many of the worst images are listed for each output.", flag="--worst", low=0
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
        flag="--metric", metavar="MODULE:FUNCTION", parse=_named_metric, essential=True,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What is looked into beyond the outputs; each needs a Q/DQ network in ONNX as the engine."""

    layers: bool = option(
        False, "Error of every layer: its own and what it inherits.", essential=True
    )
    sensitivity: bool = option(False, "What each group of Q/DQ costs alone.", essential=True)
    bisect: bool = option(False, "When a limit fails: which groups explain it.", essential=True)
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
