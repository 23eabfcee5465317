"""The result of a build."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from trtbuild.latency.limits import SpeedFinding, speed_findings
from trtbuild.latency.regress import LatencyVerdict, taken_together
from trtbuild.manifest import FormGap
from trtbuild.options.compare import REFERENCE_BACKEND
from trtbuild.options.measure import BuildSpeedLimits
from trtbuild.titles import ALSO, ENGINE, FLOAT, FP16, TENSORRT_FORM, TITLES, in_a_sentence
from trtbuild.verification.ruling import Ruling, floors, rule
from trtbuild.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from trtbuild.artifact import Artifact, Record
    from trtbuild.backends.base import Engine
    from trtbuild.latency.measure import Samples
    from trtbuild.manifest import Manifest, OtherRule
    from trtbuild.search.budget import Tuned
    from trtbuild.search.effects import Effects
    from trtbuild.verification.compare import Comparison
    from trtbuild.verification.gate import Verdict
    from trtbuild.verification.layers import LayerReport

__all__ = ["AlsoBuilt", "EngineResult", "has_moved"]

# An engine `GAP_DB` below TensorRT's form, with an SQNR below `GOOD_SQNR_DB`, has lost more than rounding
# explains: 6 dB is one of 8 bits, and INT8 networks usually keep 30 dB (3 % relative error).
GAP_DB = 6.0
# Values twice as large as a reused range are clipped to half.
_FAR_RATIO = 2.0
GOOD_SQNR_DB = 30.0


def has_moved(record: Record) -> str:
    """Return the tensor that exceeds its reused range most, if more than twofold; else an empty string."""
    moved = record.details.get("ratios", {}) if record.stage == "spot check" else {}
    return next((name for name, ratio in moved.items() if ratio > _FAR_RATIO), "")


@dataclass(frozen=True)
class AlsoBuilt:
    """An engine built in addition, and why by that backend."""

    engine: Engine
    why_backend: str


@dataclass(frozen=True)
class EngineResult:
    """The result of an engine build.

    Attributes:
        artifact: the network with its calibration, its Q/DQ form and the reasons.
        engine: the engine that the backend built.
        why_backend: the chosen backend, and why.
        files: file name -> what it is.
        comparisons: figures relative to the float network, of TensorRT's form and of each engine that runs
            here; for an engine that does not, of ONNX Runtime's form.
        verdicts: the gate's verdict on each comparison.
        latency: samples of the float network, of the engines, and of an FP16 engine if the backend builds
            one; empty if not measured.
        controls: a second set of samples of `FLOAT` and `FP16`, taken in the same turns.
        without_fp16: why speed is not judged against FP16; empty if it is, or was not requested.
        speed_limits: the limits for `latency`.
        manifest: path of the manifest.
        kept_apart: whether the images of the comparisons are known not to be in the calibration data.
        layers: errors of the layers, if an output of TensorRT's form is far from the float one.
        effects: effect of each INT8 layer on the outputs; None if not requested.
        tuned: what the search for a budget did; None if there was no budget.
        better_rule: the best threshold rule, if an output is far from the float one, no limit was set and
            another rule is clearly better.
        also: the engine built in addition; None if none was requested.
        record: the content of the manifest; None before it is written.
    """

    artifact: Artifact
    engine: Engine
    why_backend: str
    files: Mapping[str, str]
    comparisons: Mapping[str, Comparison]
    verdicts: Mapping[str, Verdict]
    latency: Mapping[str, Samples]
    manifest: Path
    kept_apart: bool
    layers: LayerReport | None = None
    effects: Effects | None = None
    tuned: Tuned | None = None
    better_rule: OtherRule | None = None
    also: AlsoBuilt | None = None
    controls: Mapping[str, Samples] = field(default_factory=dict)
    without_fp16: str = ""
    speed_limits: BuildSpeedLimits = field(default_factory=BuildSpeedLimits)
    record: Manifest | None = None

    def moved_to(self, folder: Path) -> EngineResult:
        """Return the result with its files in another folder."""

        def moved(engine: Engine) -> Engine:
            return replace(engine, path=folder / engine.path.name)

        also = self.also and replace(self.also, engine=moved(self.also.engine))
        manifest = folder / self.manifest.name
        return replace(self, engine=moved(self.engine), also=also, manifest=manifest)

    @property
    def passed(self) -> bool:
        """Whether every limit holds."""
        holds = all(verdict.passed for verdict in self.verdicts.values())
        return holds and all(one.passed for found in self.speed.values() for one in found)

    @property
    def latency_verdicts(self) -> dict[str, LatencyVerdict]:
        """For each engine: whether it is faster than float, the same or slower, or cannot be told."""
        names = [name for name in self.latency if name not in (FLOAT, FP16)]
        return {name: self._against(FLOAT, name) for name in names}

    @property
    def against_fp16(self) -> LatencyVerdict | None:
        """Whether the engine is faster than the FP16 engine; None without one."""
        return self._against(FP16, ENGINE) if FP16 in self.latency else None

    @property
    def speed(self) -> dict[str, tuple[SpeedFinding, ...]]:
        """For each engine that was timed: findings on its speed limits; empty if none was set."""
        limits = self.speed_limits
        if not limits.flags:
            return {}
        against_float, against_fp16 = self.latency_verdicts, {ENGINE: self.against_fp16}
        found = {
            name: tuple(
                speed_findings(
                    self.latency[name], limits, against_float[name], against_fp16.get(name)
                )
            )
            for name in (ENGINE, ALSO)
            if name in self.latency
        }
        return {name: one for name, one in found.items() if one}

    def _against(self, base: str, name: str) -> LatencyVerdict:
        title = TITLES[base]
        if base == FLOAT and self.engine.backend != REFERENCE_BACKEND:
            title += " in ONNX Runtime on the CPU"
        named = replace(self.latency[base], name=title)
        return taken_together(named, self.latency[name], self.controls.get(base))

    @property
    def below_floor(self) -> tuple[str, ...]:
        """Reasons other than limits not to ship the engine; see `trtbuild.verification.ruling`."""
        return self.below_floor_if(is_evaluated=False)

    def below_floor_if(self, *, is_evaluated: bool) -> tuple[str, ...]:
        """Return `below_floor`; for `is_evaluated` see `trtbuild.verification.ruling.floors`."""
        return (
            *self._poor_figures(is_evaluated=is_evaluated),
            *map(str, self.below_tensorrt_form),
            *self.moved_ranges,
            *self.unused_cache,
            *self.spoilt_data,
        )

    @property
    def poor_figures(self) -> tuple[str, ...]:
        """The part of `below_floor` that is about accuracy; see `trtbuild.verification.ruling.floors`."""
        return self._poor_figures(is_evaluated=False)

    def _poor_figures(self, *, is_evaluated: bool) -> tuple[str, ...]:
        named = {in_a_sentence(name): found for name, found in self.comparisons.items()}
        trained = not self.artifact.came_in_float
        return floors(named, self.verdicts.values(), was_trained=trained, is_evaluated=is_evaluated)

    @property
    def moved_ranges(self) -> tuple[str, ...]:
        """The part of `below_floor` that is about ranges reused for data that exceed them."""
        moved = ((record, far) for record in self.artifact.history if (far := has_moved(record)))
        return tuple(
            f"ranges are reused, and '{far}' has {record.details['ratios'][far]:.1f} times its magnitude"
            for record, far in moved
        )

    @property
    def unused_cache(self) -> tuple[str, ...]:
        """The part of `below_floor` that is about a calibration cache without effect, or with few scales."""
        if "cache" in self.engine.without_effect:
            return (f"the calibration cache had no effect: {self.engine.backend} takes none",)
        caches = (record.details for record in self.artifact.history if record.stage == "cache")
        counts = ((cache["num_found"], cache["num_tensors"]) for cache in caches)
        return tuple(
            f"the calibration cache has scales for {found} of {counted(total, 'tensor')} of INT8"
            for found, total in counts
            if 2 * found < total
        )

    @property
    def spoilt_data(self) -> tuple[str, ...]:
        """The part of `below_floor` that is about the samples: `trtbuild.data.account.DataAccount.spoilt`."""
        records = (record for record in self.artifact.history if record.stage == "data")
        return tuple(text for record in records for text in record.details["spoilt"])

    @property
    def ruling(self) -> Ruling:
        """Whether it may be shipped; an engine that never ran may not, as only its forms were compared."""
        below = (*self.below_floor, *self.not_run, *self._not_timed())
        speed = [one for found in self.speed.values() for one in found]
        names = [in_a_sentence(name) for name in self.verdicts]
        return rule(self.verdicts.values(), below, speed, names, self.comparisons.values())

    @property
    def not_run(self) -> tuple[str, ...]:
        """Why the engine has no figures of its own; empty if it ran."""
        if not self.engine.not_opened:
            return ()
        return (f"the engine was built but not run here, because {self.engine.not_opened}",)

    def _not_timed(self) -> Iterator[str]:
        """Why a limit on speed could not be checked."""
        wanted = self.speed_limits.min_fp16_speedup is not None
        if wanted and self.latency and self.against_fp16 is None:
            yield f"--min-fp16-speedup has nothing to compare with: {self.without_fp16}"

    @property
    def unjudged_collapse(self) -> str:
        """Why the engine is below the floor although no limit was set; empty otherwise."""
        limits = (f.is_limit for v in self.verdicts.values() for f in v.findings)
        return self.ruling.why if self.below_floor and not any(limits) and self.passed else ""

    @property
    def below_tensorrt_form(self) -> tuple[FormGap, ...]:
        """Outputs whose SQNR in the engine is `GAP_DB` below TensorRT's form, and below `GOOD_SQNR_DB`."""
        if not {TENSORRT_FORM, ENGINE} <= set(self.comparisons):
            return ()
        as_written = {output.name: output for output in self.comparisons[TENSORRT_FORM].outputs}
        found = []
        for output in self.comparisons[ENGINE].outputs:
            wanted, own = as_written[output.name].judged_sqnr_db, output.judged_sqnr_db
            if wanted is None or own is None or not own.value < GOOD_SQNR_DB:
                continue
            if wanted.value - own.value >= GAP_DB:
                found.append(FormGap(output.name, wanted.value, own.value))
        return tuple(found)
