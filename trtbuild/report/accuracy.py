"""Accuracy as parts of a report: checks, figures, layers at fault."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from trtbuild.plots.data import Bars
from trtbuild.report.model import (
    Check,
    Column,
    Gallery,
    Line,
    Outcome,
    Plots,
    Section,
    Table,
    Tone,
    details,
    names,
    numbers,
)
from trtbuild.verification.metrics import SQNR_BINS_FROM_DB
from trtbuild.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from trtbuild.report.model import Block
    from trtbuild.verification.compare import Comparison
    from trtbuild.verification.gate import Finding, Verdict
    from trtbuild.verification.intervals import Estimate
    from trtbuild.verification.layers import Effect, LayerError, LayerReport
    from trtbuild.verification.metrics import OutputComparison

__all__ = [
    "ON_CLASSES",
    "accuracy_checks",
    "accuracy_section",
    "gallery",
    "holds_classes",
    "interval",
    "layer_blocks",
    "outcome_of",
]

_NUM_ACTIVATIONS = 4
_NUM_PLOTTED_OUTPUTS = 4
_NUM_PICTURES = 8
_EFFECT = ("alone INT8, dB", "gained in float")

ON_CLASSES = frozenset({"max_top1_drop", "min_top1_agreement", "min_topk_agreement"})
"""Limits that say that outputs hold class scores; embeddings and coordinates look like them, too."""

_FORMS = {"%": ".1f", "points": "+.1f", "dB": ".1f", "": ".4g"}


def accuracy_checks(verdicts: Mapping[str, Verdict]) -> tuple[Check, ...]:
    """Return a check for each figure of each network that has a limit."""
    return tuple(
        Check(
            suite=f"accuracy of {name}",
            subject=name,
            what=finding.what,
            outcome=outcome_of(finding),
            text=str(finding),
            is_expected=not finding.is_limit,
        )
        for name, verdict in verdicts.items()
        for finding in verdict.findings
    )


def outcome_of(finding: Finding) -> Outcome:
    """Return what a report says of a figure with a limit."""
    if not finding.passed:
        return Outcome.FAILED
    return Outcome.PASSED if finding.settled or not finding.is_limit else Outcome.UNKNOWN


def accuracy_section(
    comparisons: Mapping[str, Comparison], num_worst: int = 0, limits: Iterable[str] = ()
) -> Section:
    """Return the figures of each network.

    Args:
        comparisons: name of a network -> its figures.
        num_worst: number of worst images in a terminal.
        limits: names of the limits on the figures.
    """
    return Section(
        "Accuracy",
        (
            _outputs(comparisons, frozenset(limits)),
            *task_blocks(comparisons),
            _parts(comparisons),
            _scores(comparisons),
            Plots(tuple(_plots(comparisons))),
            _worst(comparisons, num_worst),
        ),
    )


def _outputs(comparisons: Mapping[str, Comparison], limits: frozenset[str]) -> Table:
    rows = [
        (
            name,
            output.name,
            *_figures(output, has_classes=holds_classes(comparison, output, limits)),
        )
        for name, comparison in comparisons.items()
        for output in comparison.outputs
    ]
    images = next(iter(comparisons.values())).num_images
    return Table(
        (
            *names("network", "output"),
            *numbers("SQNR, dB", "cosine", "same top-1"),
            *details("rel. L2", "max error", "same top-k"),
        ),
        tuple(rows),
        f"against the float network, on {counted(images, 'sample')}{_doubt(comparisons.values(), limits)}",
    )


def holds_classes(comparison: Comparison, output: OutputComparison, limits: Iterable[str]) -> bool:
    """Return whether something says that an output holds class scores.

    The user says it (``--scores``, labels, a limit on classes), or the task. The shape does not:
    embeddings and coordinates have the same.
    """
    task = comparison.task
    is_said = output.is_said_to_be_scores or comparison.accuracy is not None
    is_said |= not ON_CLASSES.isdisjoint(limits)
    return is_said or (task is not None and task.task == "classify")


def _doubt(comparisons: Iterable[Comparison], limits: frozenset[str]) -> str:
    """The caption's note on outputs that may be class scores, if nothing says what the network does."""
    found = {
        f"'{output.name}'": None
        for comparison in comparisons
        for output in comparison.outputs
        if comparison.task is None
        and output.top1_agreement_percent is not None
        and not holds_classes(comparison, output, limits)
    }
    if not found:
        return ""
    return f"; if {' or '.join(found)} holds class scores, --task classify compares the classes"


def _figures(output: OutputComparison, *, has_classes: bool) -> tuple[str, ...]:
    if output.kind == "integers":
        return (f"{output.equal_percent:.2f} % equal", "", "", "", f"{output.max_error:g}", "")
    top_k = _value(output.topk_agreement_percent, ".1f", f" % (k = {output.top_k})")
    return (
        interval(output.sqnr_db, ".1f"),
        _value(output.cosine, ".5f"),
        interval(output.top1_agreement_percent, ".1f", " %") if has_classes else "",
        _value(output.relative_l2, ".4f"),
        f"{output.max_error:.3g}",
        top_k if has_classes else "",
    )


def _parts(comparisons: Mapping[str, Comparison]) -> Table:
    rows = [
        (
            name,
            f"{output.name}, {part.name}",
            part.tensor,
            interval(part.sqnr_db, ".1f"),
            f"{part.rms:.3g}",
            f"{part.noise_rms:.3g}",
            "worst" if part.name == output.worst_part else "",
        )
        for name, comparison in comparisons.items()
        for output in comparison.outputs
        for part in output.parts
    ]
    return Table(
        (
            *names("network", "part"),
            Column("tensor", is_name=True, is_detail=True),
            *numbers("SQNR, dB", "size", "error"),
            *names("judged"),
        ),
        tuple(rows),
        "outputs whose parts differ in kind, each about the mean of its channels; the worst is judged",
    )


def task_blocks(comparisons: Mapping[str, Comparison]) -> tuple[Table, Table]:
    """Return the figures of the network's task, a row for each network, and its worst samples."""
    figures: dict[str, dict[str, str]] = {}
    worst: list[tuple[str, ...]] = []
    captions: list[tuple[str, str]] = []
    for name, comparison in comparisons.items():
        task = comparison.task
        if task is None:
            continue
        # figures of classification are shown with the outputs, and top-1 against labels in its own table
        if task.task != "classify":
            figures[name] = {
                one.name: interval(one.estimate, _FORMS[one.unit], one.unit and f" {one.unit}")
                for one in (task.main, *task.others)
                if one is not None
            }
            captions.append(
                (name, f"{task.task} of {counted(task.num_samples, 'sample')}, {task.settings}")
            )
        worst += [(one.name, name, f"{one.value:.3g}") for one in task.worst]
    titles = list(dict.fromkeys(title for row in figures.values() for title in row))
    return (
        Table(
            (*names("network"), *numbers(*titles)),
            tuple(
                (name, *(row.get(title, "") for title in titles)) for name, row in figures.items()
            ),
            _of_all(captions),
        ),
        Table(
            (*names("worst samples of the task", "network"), *numbers("figure")),
            tuple(worst),
            fold=f"the {counted(len(worst), 'worst sample')} of the task",
        ),
    )


def _of_all(captions: Sequence[tuple[str, str]]) -> str:
    """The text for each network, after its name; only once if it is the same for all."""
    if len({text for _, text in captions}) == 1:
        return captions[0][1]
    return "; ".join(f"{name}: {text}" for name, text in captions)


def gallery(name: str, comparison: Comparison) -> Iterator[Block]:
    """Yield the worst samples with pictures: of the task, or without a task those furthest from float.

    Args:
        name: name of the network.
        comparison: its figures.
    """
    task = comparison.task
    if task is None:
        yield Gallery(comparison.furthest[:_NUM_PICTURES], "SQNR in dB:", name)
        return
    if task.main is None:
        return
    if task.worst:
        figure = _OF_SAMPLE.get(task.task, task.main.name)
        yield Gallery(task.worst[:_NUM_PICTURES], figure, name)
    else:
        samples = counted(task.num_samples, "sample")
        yield Line(f"{name}: the same answers as float on {samples}", Tone.GOOD)


# Name of a sample's value; empty for classes, whose answers show the difference themselves.
_OF_SAMPLE = {"classify": "", "embed": "cosine", "ctc": "percent of characters right:"}


def _value(estimate: Estimate | None, form: str, unit: str = "") -> str:
    return "" if estimate is None else f"{estimate.value:{form}}{unit}"


def interval(estimate: Estimate | None, form: str, unit: str = "") -> str:
    """Return an estimate with its interval if that is finite; empty for None."""
    if estimate is None or math.isinf(estimate.low) or math.isinf(estimate.high):
        return _value(estimate, form, unit)
    return f"{estimate.value:{form}}{unit} ({estimate.low:{form}} to {estimate.high:{form}})"


def _scores(comparisons: Mapping[str, Comparison]) -> Table:
    rows = []
    for name, comparison in comparisons.items():
        accuracy = comparison.accuracy
        if accuracy is not None:
            rows.append(
                (
                    f"{name}, top-1",
                    str(accuracy.num_images),
                    f"{accuracy.reference_percent.value:.2f} %",
                    f"{accuracy.candidate_percent.value:.2f} %",
                    interval(accuracy.drop_points, "+.2f", " points"),
                )
            )
        rows += [
            (
                f"{name}, {metric.name}",
                str(metric.num_images),
                f"{metric.reference:.4g}",
                f"{metric.candidate:.4g}",
                interval(metric.drop, "+.4g"),
            )
            for metric in comparison.metrics
        ]
    return Table((*names("score"), *numbers("samples", "float", "network", "lost")), tuple(rows))


def _plots(comparisons: Mapping[str, Comparison]) -> Iterator[Bars]:
    for name, comparison in comparisons.items():
        for output in comparison.outputs[:_NUM_PLOTTED_OUTPUTS]:
            counts = output.sqnr_histogram
            if output.kind == "integers" or sum(counts) < 2:
                continue
            used = [i for i, count in enumerate(counts) if count]
            first, last = max(used[0] - 2, 0), min(used[-1] + 3, len(counts))
            edges = [float(SQNR_BINS_FROM_DB + i) for i in range(first, last + 1)]
            caption = f"{name}, {output.name}: samples by SQNR"
            yield Bars(caption, edges, [float(count) for count in counts[first:last]], "dB")


def _worst(comparisons: Mapping[str, Comparison], num_worst: int) -> Table:
    found = [
        (image.sqnr_db, (image.name, name, output.name, f"{image.sqnr_db:.1f}",
                         f"{image.cosine:.5f}", f"{image.max_error:.3g}"))
        for name, comparison in comparisons.items()
        for output in comparison.outputs
        for image in output.worst
    ]  # fmt: skip
    rows = tuple(row for _, row in sorted(found, key=lambda one: one[0]))
    columns = (*names("worst samples", "network", "output"),
               *numbers("SQNR, dB", "cosine", "max error"))  # fmt: skip
    return Table(
        columns, rows, num_shown=num_worst, fold=f"the {counted(len(rows), 'worst sample')}"
    )


def layer_blocks(found: LayerReport, num_shown: int) -> tuple[Block, ...]:
    """Return tables of layers and activations, the most costly for the outputs first."""
    rows = tuple(_layer(layer) for layer in found.layers)
    layers = Table(
        (
            *names("layer"),
            Column("op", is_name=True, is_detail=True),
            *numbers(*_EFFECT, "own, dB", "weight", "worst channel"),
        ),
        rows,
        f"SQNR on {counted(found.num_images, 'sample')}, of the outputs first; ~ to first order, by "
        "gradients",
        num_shown,
    )
    activations = tuple(
        (
            one.tensor,
            *_effect(one.effect),
            f"{one.sqnr_db:.1f}",
            f"{one.scale:.4g}",
            f"{one.clipped_percent:.4f} %",
            f"{one.clipping_noise_percent:.0f} %",
        )
        for one in found.activations
    )
    columns = (
        *names("activation"),
        *numbers(*_EFFECT, "own, dB", "scale", "clipped", "noise from clipping"),
    )
    return layers, Table(columns, activations, num_shown=_NUM_ACTIVATIONS)


def _effect(found: Effect | None) -> tuple[str, str]:
    if found is None:
        return "", ""
    mark = "" if found.measured else "~"
    return f"{mark}{_rounded(found.alone_sqnr_db):.1f}", f"{mark}{_rounded(found.gained_db):+.1f}"


def _rounded(value: float) -> float:
    """A value to one decimal, with zero never negative."""
    return round(value, 1) + 0.0


def _layer(layer: LayerError) -> tuple[str, ...]:
    weight = layer.weight
    return (
        f"{layer.module} ({layer.node})" if layer.module else layer.node,
        layer.op_type,
        *_effect(layer.effect),
        f"{layer.own_sqnr_db:.1f}",
        "" if weight is None else f"{weight.sqnr_db:.1f}",
        "" if weight is None else f"{weight.worst_channel} ({weight.worst_channel_sqnr_db:.1f} dB)",
    )
