"""Every layer as a bar: the effect of its INT8 alone on the outputs, its precision and why, and its range."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtbuild.model.stats import node_macs
from trtbuild.model.traversal import all_nodes, label
from trtbuild.plots.canvas import clipped
from trtbuild.plots.data import Level, Slat, Strip
from trtbuild.report.model import Meter, Plots, Table, Tone, names, numbers
from trtbuild.verification.ruling import FAR_SQNR_DB
from trtbuild.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import onnx_ir as ir

    from calibrators import Calibration, TensorRange
    from trtbuild.artifact import Artifact
    from trtbuild.plan import Decision
    from trtbuild.report.model import Block
    from trtbuild.search.effects import Effects
    from trtbuild.verification.layers import Effect

__all__ = ["layer_bars"]

# Ends of a bar's height, in dB: an SQNR of the outputs at which nothing is lost, and one at which all is.
_NOTHING_DB, _ALL_DB = 60.0, 0.0
_CLEAN_DB = 40.0

# More bars would be thinner than a pixel, and the page must stay small.
_MOST_BARS = 1_200
_NUM_SHOWN, _MOST_ROWS = 10, 300

_LEVELS = {
    Level.HIGH: f"below {FAR_SQNR_DB:g} dB",
    Level.MIDDLE: f"{FAR_SQNR_DB:g} to {_CLEAN_DB:g} dB",
    Level.LOW: f"above {_CLEAN_DB:g} dB",
    Level.OFF: "float or not known",
}


@dataclass(frozen=True)
class _Layer:
    """One node: its precision and why, its effect if known, its share of the work, its range."""

    decision: Decision
    effect: Effect | None
    noise_share: float
    work_share: float
    range: TensorRange | None

    @property
    def level(self) -> Level:
        """How much it spoils the outputs when it alone is in INT8, as a colour."""
        if self.effect is None:
            return Level.OFF
        alone = self.effect.alone_sqnr_db
        if alone < FAR_SQNR_DB:
            return Level.HIGH
        return Level.MIDDLE if alone < _CLEAN_DB else Level.LOW

    @property
    def height(self) -> float:
        """Height of its bar, from 0 (nothing is lost) to 1."""
        if self.effect is None:
            return 0.0
        share = (_NOTHING_DB - self.effect.alone_sqnr_db) / (_NOTHING_DB - _ALL_DB)
        return min(max(share, 0.0), 1.0)

    def __str__(self) -> str:
        one = self.decision
        where = "INT8" if one.int8 else "float"
        parts = [f"{clipped(one.node, 120)} ({one.op_type}), {where}"]
        if self.effect is not None:
            parts.append(f"alone in INT8 the outputs keep {self.effect.alone_sqnr_db:.1f} dB")
        if self.work_share:
            parts.append(f"{100 * self.work_share:.1f} % of the work")
        if self.range is not None:
            amax, largest = self.range.amax, self.range.observed_amax
            parts.append(f"its input is clipped at {amax:.4g}; the largest seen was {largest:.4g}")
        return "; ".join([*parts, clipped(one.reason, 160)])


def layer_bars(artifact: Artifact, effects: Effects) -> tuple[Block, ...]:
    """Return the bars in the order of the network, and a table of the most costly layers."""
    layers = [one for one in _layers(artifact, effects.layers) if _is_told(one)]
    if not any(layer.effect for layer in layers):
        return ()
    caption = (
        "SQNR of the outputs with one layer alone in INT8 (the taller, the worse), in their order"
    )
    kept = _thinned(layers)
    ends = ("input", f"{counted(len(layers), 'layer')}, output")
    slats = [Slat(one.height, one.level, str(one)) for one in kept]
    used = {level: text for level, text in _LEVELS.items() if any(s.level is level for s in slats)}
    return (Plots((Strip(caption, slats, used, ends),), is_wide=True), _ranking(layers))


def _is_told(layer: _Layer) -> bool:
    """Whether a layer is shown: it does some work, or has an effect."""
    return layer.effect is not None or layer.work_share > 0


def _layers(artifact: Artifact, effects: Mapping[str, Effect]) -> Iterator[_Layer]:
    nodes = {label(node): node for node in all_nodes(artifact.model.graph)}
    work = {name: node_macs(node) for name, node in nodes.items()}
    total = max(sum(work.values()), 1)
    powers = {name: 10.0 ** (-one.alone_sqnr_db / 10.0) for name, one in effects.items()}
    noise = sum(powers.values()) or 1.0
    for decision in artifact.decisions:
        name = decision.node
        yield _Layer(
            decision,
            effects.get(name) if decision.int8 else None,
            powers.get(name, 0.0) / noise,
            work.get(name, 0) / total,
            _range_of(nodes.get(name), artifact.calibration),
        )


def _range_of(node: ir.Node | None, calibration: Calibration | None) -> TensorRange | None:
    """The range of a layer's input."""
    name = node.inputs[0].name if node is not None and node.inputs and node.inputs[0] else None
    if calibration is None or name is None or name not in calibration.ranges:
        return None
    return calibration.ranges[name]


def _thinned(layers: Sequence[_Layer]) -> Sequence[_Layer]:
    """Reduce too many layers to the worst of each few neighbours."""
    step = -(-len(layers) // _MOST_BARS)
    few = (layers[start : start + step] for start in range(0, len(layers), step))
    return [max(some, key=lambda one: one.height) for some in few]


def _ranking(layers: Sequence[_Layer]) -> Table:
    known = [layer for layer in layers if layer.effect is not None]
    ranked = sorted(known, key=lambda one: one.effect.alone_sqnr_db if one.effect else 0.0)
    rows = tuple(
        (
            one.decision.node,
            one.decision.op_type,
            Meter(one.noise_share, f"{100 * one.noise_share:.1f} %", _TONES[one.level]),
            f"{one.effect.alone_sqnr_db:.1f}" if one.effect else "",
            f"{100 * one.work_share:.1f} %",
            "" if one.range is None else f"{one.range.amax:.4g}",
            "" if one.range is None else f"{one.range.observed_amax:.4g}",
        )
        for one in ranked[:_MOST_ROWS]
    )
    left = len(ranked) - len(rows)
    return Table(
        (
            *names("layer", "op"),
            *numbers(
                "share of the noise",
                "alone in INT8, dB",
                "work",
                "amax of its input",
                "largest seen",
            ),
        ),
        rows,
        "noise of the outputs by each layer's INT8, to first order"
        + (f"; {left} more" if left else ""),
        num_shown=_NUM_SHOWN,
        on_page=True,
    )


_TONES = {
    Level.HIGH: Tone.BAD,
    Level.MIDDLE: Tone.NOTE,
    Level.LOW: Tone.PLAIN,
    Level.OFF: Tone.PLAIN,
}
