"""Quantizes a network with the ranges of a file, and writes it with its Q/DQ."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from trtbuild.calibration import load_calibration
from trtbuild.errors import OptionError, in_one_tree
from trtbuild.jobs.foreign_operators import left_behind, with_left_behind
from trtbuild.jobs.loading import load, prepare
from trtbuild.jobs.paths import check_paths, named_inputs
from trtbuild.jobs.targets import quantize_request
from trtbuild.json_codec import Document
from trtbuild.model import write_model
from trtbuild.quantization import (
    check_floats,
    insert_qdq,
    place,
    place_by_ranges,
    portable_form,
    say_without_range,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from trtbuild.plan import Decision, GroupRecord
    from trtbuild.recipes import QuantizeRecipe

__all__ = ["PlacementList", "QuantizedFile", "decide", "quantize_file"]


@dataclass(frozen=True)
class PlacementList(Document):
    """Where Q/DQ go in a network.

    Attributes:
        layers: every node: whether it runs in INT8, and why or why not.
        groups: every place where INT8 is chosen, those that only ONNX Runtime's form has last.
    """

    SCHEMA = "trtbuild.placement"

    layers: tuple[Decision, ...]
    groups: tuple[GroupRecord, ...]


@dataclass(frozen=True)
class QuantizedFile(Document):
    """The result of writing Q/DQ.

    Attributes:
        files: the written files.
        summary: what was quantized, in a sentence.
        target: the compiler that Q/DQ were placed for.
        float_patterns: patterns of ``--float``.
        float_groups: names of groups that were kept in float.
        layers: every node: whether it runs in INT8, and why or why not.
        without_range: tensor without a usable scale -> why: always zero, never seen, or infinite.
        idle_patterns: patterns of ``--float`` that take nothing out of INT8 -> what they match.
    """

    SCHEMA = "trtbuild.quantization"

    files: tuple[Path, ...]
    summary: str
    target: str
    float_patterns: tuple[str, ...]
    float_groups: tuple[str, ...]
    layers: tuple[Decision, ...]
    without_range: Mapping[str, str]
    idle_patterns: Mapping[str, str]


@in_one_tree()
def decide(recipe: QuantizeRecipe) -> PlacementList:
    """Return where Q/DQ would go, with the decision for every node and group; uses ranges if there are any.

    Raises:
        ModelError: the network cannot be read.
        InputError: the calibration cannot be read, or belongs to another network.
        OptionError: a pattern does not fit the network.
    """
    artifact = prepare(load(recipe.model))
    request = quantize_request(recipe)
    check_floats(artifact.model, request)
    if recipe.calibration is None:
        placement = place(artifact.model, request)
    else:
        ranges = load_calibration(recipe.calibration, artifact.source)
        placement, _ = place_by_ranges(artifact.model, ranges, request)
    groups = sorted(placement.groups, key=lambda group: not group.in_tensorrt_form)
    return PlacementList(
        (*placement.decisions, *left_behind(artifact)), tuple(group.record for group in groups)
    )


@in_one_tree()
def quantize_file(recipe: QuantizeRecipe) -> QuantizedFile:
    """Write the network with Q/DQ, in the form that was asked for.

    Raises:
        ModelError: the network cannot be read.
        InputError: the calibration cannot be read, or belongs to another network.
        OptionError: the calibration or the file to write is not named, or a pattern does not fit.
        OutputError: the file cannot be written.
    """
    if recipe.calibration is None or recipe.output is None:
        raise OptionError("give --calibration FILE and -o FILE, or --list.")
    reads = named_inputs(the_network=recipe.model, the_calibration=recipe.calibration)
    check_paths(reads, [recipe.output])
    artifact = prepare(load(recipe.model))
    ranges = load_calibration(recipe.calibration, artifact.source)
    artifact = replace(artifact.with_calibration(ranges), request=quantize_request(recipe))
    idle = check_floats(artifact.model, artifact.request)
    say_without_range(artifact, is_strict=recipe.strict)
    artifact = insert_qdq(artifact)
    assert artifact.quantized is not None
    whole = artifact.whole(artifact.quantized)
    quantized = whole if recipe.form == "tensorrt" else portable_form(artifact)
    artifact = with_left_behind(artifact)
    written = tuple(write_model(quantized, recipe.output))
    record = artifact.history[-1]
    return QuantizedFile(
        files=written,
        summary=record.summary,
        target=record.details["target"],
        float_patterns=tuple(record.details["float_patterns"]),
        float_groups=tuple(record.details["float_groups"]),
        layers=artifact.decisions,
        without_range=record.details["without_range"],
        idle_patterns=idle,
    )
