"""The result of ``trtbuild export`` as a report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.jobs.export import export_record
from trtbuild.report.model import (
    Check,
    Line,
    Outcome,
    Report,
    Section,
    Table,
    Tone,
    names,
    numbers,
)
from trtbuild.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trtbuild.pytorch.cost import LayerTime
    from trtbuild.pytorch.export import ExportResult

__all__ = ["export_report"]

_NUM_LAYERS = 20


def export_report(
    target: str, result: ExportResult, times: tuple[LayerTime, ...] | None = None
) -> Report:
    """Return the report.

    Args:
        target: the module, as package.module:factory.
        result: its export, which has passed the comparison with the module or raised an error.
        times: times of its layers, slowest first; None if it was not profiled.
    """
    return Report(
        title=f"{target} in ONNX",
        facts={"opset": str(result.opset), "nodes": str(len(result.model.graph))},
        notes=tuple(Line(f"warning: {text}", Tone.NOTE) for text in result.warnings),
        sections=(
            Section("Norms", tuple(_norms(result))),
            Section("Parity", tuple(_parity(result))),
            Section("Layers", () if times is None else (_times(times),)),
        ),
        files={str(file): f"{file.stat().st_size:,} bytes" for file in result.files},
        checks=tuple(_checks(target, result)),
        data=export_record(result, times).to_json(),
    )


def _norms(result: ExportResult) -> Iterator[Line]:
    if result.fold is None:
        return
    folded, left = result.fold.folded, result.fold.left
    yield Line(f"norms: {len(folded)} folded, {len(left)} left")
    yield from (Line(f"  {fate.norm} ({fate.kind}) left: {fate.reason}") for fate in left)
    yield from (Line(f"  {note}") for note in (*result.fold.evaluated, *result.fold.notes))


def _parity(result: ExportResult) -> Iterator[Line]:
    parity = result.parity
    if parity.relative_error is not None:
        yield Line(_parity_text(result))
    if parity.note:
        yield Line(parity.note)


def _parity_text(result: ExportResult) -> str:
    parity = result.parity
    samples = counted(len(parity.samples), "sample")
    return (
        f"compared with the module on {samples}: off by {parity.relative_error:.1e} of the largest output "
        f"(the module's own float32 rounding: {parity.torch_relative_error:.1e})"
    )


def _checks(target: str, result: ExportResult) -> Iterator[Check]:
    """The check of the comparison; a file that fails it is never written."""
    done = result.parity.relative_error is not None
    yield Check(
        suite="parity",
        subject=target,
        what="the file computes what the module does",
        outcome=Outcome.PASSED if done else Outcome.UNKNOWN,
        text=_parity_text(result) if done else result.parity.note,
        is_expected=True,
    )


def _times(times: tuple[LayerTime, ...]) -> Table:
    rows = tuple(
        (
            time.path,
            time.kind,
            str(time.num_calls),
            f"{time.cpu_ms:.3f}",
            f"{time.device_ms:.3f}",
            f"{time.share:.1%}",
        )
        for time in times
    )
    columns = (*names("layer", "kind"), *numbers("calls", "CPU ms", "GPU ms", "share"))
    caption = f"the module in torch, one run on one sample; {counted(len(times), 'layer')} in all"
    return Table(columns, rows, caption, _NUM_LAYERS)
