"""The ways in which PyTorch writes a module as ONNX: two exporters, opsets, a fixed or a dynamic batch."""

from __future__ import annotations

import contextlib
import io
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from architectures.example import Example

__all__ = ["BATCHES", "WRITES", "Way", "export", "spread"]

# The opsets that each exporter of PyTorch 2.13 writes.
WRITES = {"script": range(13, 21), "dynamo": range(18, 24)}
BATCHES = ("static", "dynamic")


@dataclass(frozen=True)
class Way:
    """One export: ``script`` or ``dynamo``, its opset, and a ``static`` or ``dynamic`` batch."""

    exporter: str
    opset: int
    batch: str

    def __str__(self) -> str:
        return f"{self.exporter} {self.opset} {self.batch}"


def spread(number: int, *, both_batches: bool) -> Sequence[Way]:
    """Return the ways of the n-th network: each exporter with both kinds of batch, or with one.

    The opset changes from network to network, so that a list of eight networks has all of them.
    """
    found = []
    for place, (exporter, opsets) in enumerate(WRITES.items()):
        for turn, batch in enumerate(BATCHES):
            opset = opsets[(number + turn * len(opsets) // 2) % len(opsets)]
            if both_batches or turn == (number + place) % len(BATCHES):
                found.append(Way(exporter, opset, batch))
    return found


def export(example: Example, way: Way, path: Path) -> None:
    """Write a module as ONNX.

    Raises:
        Exception: whatever PyTorch's exporters raise.
    """
    inputs, more = example.inputs, _open_axes(example, way)
    if more and way.exporter == "dynamo":  # it would fix a batch of one sample to exactly one
        inputs = tuple(torch.cat([one, one]) for one in inputs)
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            example.module,
            inputs,
            path,
            input_names=_names(example),
            dynamo=way.exporter == "dynamo",
            opset_version=way.opset,
            **more,
        )


def _names(example: Example) -> list[str]:
    return [f"input_{number}" for number in range(len(example.inputs))]


def _open_axes(example: Example, way: Way) -> dict[str, Any]:
    """Return the exporter's argument for dynamic axes; none for a static batch."""
    if way.batch == "static":
        return {}
    axes = [{0: "batch", **example.open_axes.get(n, {})} for n in range(len(example.inputs))]
    if way.exporter == "script":
        return {"dynamic_axes": dict(zip(_names(example), axes))}
    names = {name for one in axes for name in one.values()}
    dims = {name: torch.export.Dim(name) for name in sorted(names)}
    shapes: list[Any] = [{axis: dims[name] for axis, name in one.items()} for one in axes]
    plain, starred = shapes[: example.num_plain], shapes[example.num_plain :]
    return {"dynamic_shapes": (*plain, tuple(starred)) if starred else tuple(plain)}
