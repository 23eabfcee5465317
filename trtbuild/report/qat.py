"""The result of ``trtbuild qat`` as a report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.manifest import NextStep
from trtbuild.options.command import command_line
from trtbuild.recipes import EngineRecipe
from trtbuild.report.accuracy import accuracy_section
from trtbuild.report.model import Line, Report, Section, Table, Tone, names, numbers
from trtbuild.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trtbuild.jobs.qat import QatOutcome
    from trtbuild.recipes import QatRecipe
    from trtbuild.report.model import Block

__all__ = ["qat_report"]

_NUM_SHOWN = 12

_ON_TRAINING = (
    "training changes what a network computes: SQNR and cosine of the trained one say how far it has "
    "moved, not how good it is"
)


def qat_report(recipe: QatRecipe, result: QatOutcome) -> Report:
    """Return the report: the trained scales, and the figures of the Q/DQ network against float.

    Args:
        recipe: recipe of the training.
        result: its result.
    """
    return Report(
        title=f"{recipe.source.name}, trained with rounding",
        sections=(
            Section("Layers", tuple(_blocks(result))),
            accuracy_section(result.comparisons),
            Section("What the figures say", (Line(_ON_TRAINING),)),
        ),
        next_step=NextStep(
            "build it, and judge it by its task or with --labels", _build(recipe, result)
        ),
        files={
            str(result.network): "Q/DQ with the trained scales; build it with engine --quantized",
            str(
                result.float_model
            ): "the float network that it is judged against, for --float-model",
        },
        data=result.to_json(),
    )


def _build(recipe: QatRecipe, result: QatOutcome) -> str:
    """The command that builds the network."""
    build = EngineRecipe(
        model=result.network, data=recipe.data, quantized=True, float_model=result.float_model
    )
    return command_line("engine", (str(build.model), "--int8"), build, {})


def _blocks(result: QatOutcome) -> Iterator[Block]:
    yield Line(f"{counted(len(result.layers), 'layer')} trained with rounded inputs and weights")
    yield Table(
        (*names("layer"), *numbers("scale of its input", "trained")),
        tuple((path, f"{s.before:.5g}", f"{s.after:.5g}") for path, s in result.scales.items()),
        num_shown=_NUM_SHOWN,
    )
    yield from (Line(f"warning: {text}", Tone.NOTE) for text in result.warnings)
