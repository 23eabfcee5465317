"""What ``trtbuild export`` shows at the end, as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trtbuild.pytorch.export import ExportResult
    from trtbuild.pytorch.profile import LayerTime

__all__ = ["export_summary", "layer_time_table"]


def export_summary(result: ExportResult) -> list[str]:
    """The summary as lines, the file last."""
    lines = [f"[yellow]warning: {_plain(text)}[/yellow]" for text in result.warnings]
    if result.fold is not None:
        lines += _fold_lines(result)
    parity = result.parity
    if parity.error is not None:
        lines.append(
            f"compared with the module on {len(parity.samples)} samples: off by {parity.error:.1e} of "
            f"the largest output (the module's own float32 rounding: {parity.torch_error:.1e})"
        )
    if parity.note:
        lines.append(parity.note)
    sizes = ", ".join(f"{file} ({file.stat().st_size:,} bytes)" for file in result.files)
    lines.append(f"opset {result.opset}, {len(result.model.graph)} nodes: {sizes}")
    return lines


def layer_time_table(times: Sequence[LayerTime], count: int = 20) -> Table:
    """The slowest layers of the module, slowest first."""
    table = Table("layer", "kind", "calls", "CPU ms", "GPU ms", "share")
    for time in times[:count]:
        table.add_row(
            _plain(time.path),
            time.kind,
            str(time.num_calls),
            f"{time.cpu_ms:.3f}",
            f"{time.device_ms:.3f}",
            f"{time.share:.1%}",
        )
    table.caption = f"the module in torch, one run on one sample; {len(times)} layers in all"
    return table


def _fold_lines(result: ExportResult) -> list[str]:
    assert result.fold is not None
    folded, left = result.fold.folded, result.fold.left
    lines = [f"norms: {len(folded)} folded, {len(left)} left"]
    lines += [f"  {fate.norm} ({fate.kind}) left: {fate.reason}" for fate in left]
    lines += [f"  {note}" for note in (*result.fold.evaluated, *result.fold.notes)]
    return [_plain(line) for line in lines]


def _plain(text: str) -> str:
    """Square brackets are rich's markup; here they are text."""
    return text.replace("[", "\\[")
