"""``trtbuild cache``: shows, compares and converts TensorRT calibration caches."""

from __future__ import annotations

from pathlib import Path

import click

from trtbuild.cli.help import ListingGroup, SectionedCommand
from trtbuild.cli.option_fields import Given, recipe_options
from trtbuild.cli.output import Output, output_options
from trtbuild.recipes import CacheDiffRecipe, ConvertRecipe

__all__ = ["command"]

_PATH = click.Path(path_type=Path, dir_okay=False)


_SHOW = ("cache show model.cache", "every scale of a cache")
_SHOW_JSON = ("cache show model.cache --json", "the same for programs")
_SHOW_FILE = ("cache show model.cache > scales.txt", "the same in a file, to be compared by eye")
_DIFF = ("cache diff old.cache new.cache", "exit 1 when a scale differs")
_DIFF_ROUGHLY = (
    "cache diff old.cache new.cache --tolerance 0.01",
    "exit 1 when one differs by more than 1 %",
)
_DIFF_QUIETLY = ("cache diff old.cache new.cache --quiet", "only the exit code, for a script")
_CONVERT = ("cache convert model.cache model.onnx -o model.int8.onnx", "Q/DQ for TensorRT 11")
_CONVERT_MIXED = (
    "cache convert model.cache model.onnx --fp16 --float '*head*' -o model.int8.onnx",
    "the head in float, and float layers in FP16",
)
_CONVERT_BACK = ("cache convert model.int8.onnx -o plain.onnx", "and the way back, for TensorRT 10")


@click.group("cache", cls=ListingGroup, examples=(_SHOW, _DIFF, _CONVERT))
def command() -> None:
    """Show, compare and convert TensorRT calibration caches."""


@command.command("show", cls=SectionedCommand, examples=(_SHOW, _SHOW_JSON, _SHOW_FILE))
@click.argument("file", type=_PATH)
@output_options
def show(*, file: Path, out: Output) -> None:
    """Print every tensor of a cache with its scale and amax."""
    from trtbuild.jobs.cache import cache_content
    from trtbuild.report.cache import cache_report

    out.show(cache_report(cache_content(file)))


@command.command("diff", cls=SectionedCommand, examples=(_DIFF, _DIFF_ROUGHLY, _DIFF_QUIETLY))
@click.argument("first", type=_PATH)
@click.argument("second", type=_PATH)
@recipe_options(CacheDiffRecipe)
@output_options
def diff(*, first: Path, second: Path, given: Given[CacheDiffRecipe], out: Output) -> int:
    """Compare two caches tensor by tensor; exit code 1 when they differ."""
    recipe = given.make(first=first, second=second)
    from trtbuild.jobs.cache import compare_caches
    from trtbuild.report.cache import diff_report

    found = compare_caches(recipe)
    out.show(diff_report(found))
    return 0 if found.equal else 1


@command.command(
    "convert", cls=SectionedCommand, examples=(_CONVERT, _CONVERT_MIXED, _CONVERT_BACK)
)
@click.argument("source", type=_PATH)
@click.argument("model", type=_PATH, required=False)
@recipe_options(ConvertRecipe)
@output_options
def convert(*, source: Path, model: Path | None, given: Given[ConvertRecipe], out: Output) -> None:
    """Turn a cache and its network into a Q/DQ network, or a Q/DQ network into both.

    With SOURCE a cache and MODEL the float network that it was made for, the Q/DQ network for TensorRT
    11 is written. With SOURCE a Q/DQ network alone, the plain network is written and its calibration
    cache beside it, for DLA and TensorRT 10.
    """
    recipe = given.make(source=source, model=model)
    from trtbuild.jobs import cache as job
    from trtbuild.report.cache import conversion_report

    out.show(conversion_report(source, job.convert(recipe)))
