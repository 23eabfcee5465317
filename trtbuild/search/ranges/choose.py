"""The stage that chooses ranges by their effect on the outputs, on calibration images.

1. Each rule, used for all tensors, is run on a few images, the check images. The best one is the baseline. If
   ranges are chosen again and the network is far from float, the best few rules are checked again on more
   images, and more images are used in step 2.
2. On other images, each scale's thresholds (of all rules, and a grid between) are scored by the first-order
   error of the outputs (`trtbuild.search.ranges.first_order`); each scale takes the best.
3. These thresholds are run on the check images: for all scales, and for those alone with the most expected
   gain. They are kept only if they are better than the best rule, and not just by chance on some images.

All decisions depend on content and fixed seeds. So the same network and images give the same ranges on
machines of any speed, unless the time limit stops the search.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from calibrators import assess
from trtbuild.artifact import Record
from trtbuild.errors import ModelError
from trtbuild.options.calibrate import DEFAULT_RULE
from trtbuild.progress import Progress, silent
from trtbuild.quantization import place_by_ranges
from trtbuild.search.deadline import NEVER, Deadline
from trtbuild.search.measured import Measure, is_less, parts_of
from trtbuild.search.ranges.first_order import Draw, FirstOrder
from trtbuild.search.ranges.scale_inputs import OpenScales
from trtbuild.search.ranges.shared_scales import (
    RULES,
    SharedScale,
    nearest,
    rule_amaxes,
    shared_scales,
    thresholds_of,
)
from trtbuild.search.ranges.work import FAR, values_of_a_sample
from trtbuild.wording import counted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir

    from calibrators import Calibration, TensorRange
    from trtbuild.artifact import Artifact
    from trtbuild.plan import Placement
    from trtbuild.runtime.session import Feeds
    from trtbuild.search.ranges.check_images import CalibrationImages, Images

__all__ = ["BY_EFFECT", "choose_ranges", "error_when_chosen"]

_log = logging.getLogger(__name__)

BY_EFFECT = "effect"
"""The method of a calibration whose ranges were chosen here."""

# Shares of the scales, those with the most expected gain; the others keep the best rule's range.
_SHARES = (1.0, 0.5, 0.25, 0.1)
_NUM_SHOWN = 12
# If ranges are chosen again, the present ranges count as one more rule.
_AS_BEFORE = "as before"
_NUM_RULES_CHECKED_AGAIN = 3

_STAGE = "choose ranges"


def choose_ranges(
    artifact: Artifact,
    images: CalibrationImages,
    *,
    deadline: Deadline = NEVER,
    progress: Progress = silent,
) -> Artifact:
    """Return the artifact with the ranges that give the least error of its outputs, of method `BY_EFFECT`.

    If nothing can be measured (a single image, no floating-point output, no histograms), the artifact is
    returned unchanged, with a record that says why.

    Args:
        artifact: calibrated, with histograms; if its method is `BY_EFFECT`, ranges are chosen again.
        images: calibration images.
        deadline: no step begins later.
        progress: told of every run.

    Raises:
        DataError: a sample does not load.
        ModelError: the network cannot be run.
    """
    calibration = artifact.calibration
    assert calibration is not None
    drawn = images.draw(artifact)
    measured = images.measured(artifact.model)
    if not drawn.checking or not measured or calibration.histograms is None:
        why = "there is no second sample" if measured else "no output is of floating point"
        return artifact.having(Record(_STAGE, f"{calibration.method} as it is: {why}", {}))
    images.run_ahead(artifact, drawn)
    choice = _Choice(artifact, images, drawn.checking, deadline, progress)
    choice.try_rules()
    is_anew = calibration.method == BY_EFFECT
    if is_anew and choice.best.error > FAR and not deadline.is_over:
        drawn = images.draw(artifact, for_moves=True)
        choice.check_again_on(drawn.checking)
    if drawn.choosing and not deadline.is_over:
        choice.try_first_order(drawn)
    return choice.result()


def error_when_chosen(artifact: Artifact) -> float | None:
    """Return the error of an artifact's ranges on the check images; None if the last stage was another."""
    details = artifact.history[-1].details if artifact.history else {}
    if not details or artifact.history[-1].stage != _STAGE:
        return None
    return float(details["errors"][details["chosen"]])


@dataclass(frozen=True)
class _Tried:
    """One choice of all ranges: its name, root -> range, and its errors ``[check images]``."""

    name: str
    amaxes: Mapping[str, float]
    errors: np.ndarray

    @property
    def error(self) -> float:
        """The error on all images; relative to their whole signal, so it does not grow with their number."""
        return float(self.errors.sum())


def _rules(calibration: Calibration) -> dict[str, dict[str, float]]:
    """Rule -> tensor -> its threshold; if ranges are chosen again, the present ones are one more rule."""
    seen = {name: one for name, one in (calibration.histograms or {}).items() if one.num_values}
    rules = rule_amaxes(seen)
    if calibration.method != BY_EFFECT:
        return rules
    return {_AS_BEFORE: {name: calibration.ranges[name].amax for name in seen}, **rules}


def _scales(
    model: ir.Model, placement: Placement, rules: Mapping[str, Mapping[str, float]]
) -> dict[SharedScale, np.ndarray]:
    """The scales to choose, each with its possible thresholds."""
    found = {
        scale: thresholds_of(scale, rules)
        for scale in shared_scales(model, placement)
        if scale.roots <= rules["minmax"].keys() and not scale.roots & placement.unclipped
    }
    return {scale: thresholds for scale, thresholds in found.items() if thresholds is not None}


class _Choice:
    """Compares choices of all ranges on the check images, which were drawn from `images`."""

    def __init__(
        self,
        artifact: Artifact,
        images: CalibrationImages,
        checking: Sequence[Feeds],
        deadline: Deadline,
        progress: Progress,
    ) -> None:
        assert artifact.calibration is not None
        self._artifact, self._calibration, self._images = artifact, artifact.calibration, images
        self._deadline, self._progress, self._num_done = deadline, progress, 0
        model, self._measured = artifact.model, images.measured(artifact.model)
        self._placement, _ = place_by_ranges(model, artifact.calibration, artifact.request)
        self._rules = _rules(artifact.calibration)
        self._scales = _scales(model, self._placement, self._rules)
        self._open = OpenScales(model, self._placement, artifact.calibration, self._measured)
        self._checking, self._measure = checking, self._measure_of(checking)
        self._tried: list[_Tried] = []
        self._left: list[_Tried] = []

    def _measure_of(self, images: Sequence[Feeds]) -> Measure:
        outputs = self._images.outputs(self._artifact.model, self._measured, images)
        return Measure.of(outputs, parts_of(self._artifact.model, self._measured))

    def try_rules(self) -> None:
        """Check every rule for all tensors."""
        self._try(self._rules, self._deadline)

    def check_again_on(self, images: Sequence[Feeds]) -> None:
        """Check the best rules again on more images, and drop the others."""
        if len(images) <= len(self._checking):
            return
        few = sorted(self._tried, key=lambda one: one.error)
        self._tried, self._left = [], few[_NUM_RULES_CHECKED_AGAIN:]
        self._checking, self._measure = images, self._measure_of(images)
        self._try({rule.name: rule.amaxes for rule in few[:_NUM_RULES_CHECKED_AGAIN]}, NEVER)

    def _try(self, choices: Mapping[str, Mapping[str, float]], deadline: Deadline) -> None:
        """Check choices of ranges, by name, until `deadline`; at least one is checked in all."""
        waiting = list(choices.items())
        at_a_time = self._open.choices_at_a_time(self._checking)
        while waiting and not (self._tried and deadline.is_over):
            some, waiting = waiting[:at_a_time], waiting[at_a_time:]
            known = [{**self._calibration.amaxes, **amaxes} for _, amaxes in some]
            found = self._open.outputs(self._checking, known)
            for (name, amaxes), outputs in zip(some, found, strict=True):
                errors = self._measure.errors(outputs).sum(axis=1)
                self._tried.append(_Tried(name, amaxes, errors))
            self._step(len(some))

    def _step(self, count: int) -> None:
        self._num_done += count
        self._progress("choose ranges", self._num_done, None)

    @property
    def best(self) -> _Tried:
        """The best choice that is better than the best rule; that rule if none is."""
        rules = [one for one in self._tried if one.name in self._rules]
        rule = min(rules, key=lambda one: one.error)
        better = [one for one in self._tried if is_less(one.errors, rule.errors)]
        return min((rule, *better), key=lambda one: one.error)

    def try_first_order(self, drawn: Images) -> None:
        """Score thresholds on the images that choose, and check the best ones."""
        model, num_values = self._artifact.model, values_of_a_sample(self._artifact)
        try:
            scores = FirstOrder(model, self._placement, self._scales, self._measured, num_values)
        except ModelError as error:
            _log.info("ranges are chosen without gradients: %s", error)
            return
        measure = self._measure_of(drawn.choosing)
        draws = [
            Draw(feeds, image, direction)
            for image, feeds in enumerate(drawn.choosing)
            for direction in range(drawn.num_directions)
        ]
        for start in range(0, len(draws), scores.draws_at_a_time):
            # stop between images only, so that every image used has all its draws
            if start and draws[start].seed == 0 and self._deadline.is_over:
                break
            some = draws[start : start + scores.draws_at_a_time]
            scores.add(some, measure)
            self._step(len(some))
        scores.close()
        base = self.best
        places = {
            scale: nearest(thresholds, max(base.amaxes[root] for root in scale.roots))
            for scale, thresholds in self._scales.items()
        }
        self._try(self._by_effect(base, places, scores.errors(places)), self._deadline)

    def _by_effect(
        self,
        base: _Tried,
        places: Mapping[SharedScale, int],
        errors: Mapping[SharedScale, np.ndarray],
    ) -> dict[str, dict[str, float]]:
        """Choices by name: `base`, with the best thresholds for the scales with the most expected gain.

        `errors` are those of each threshold of a scale; `places` are the indices of those nearest to `base`.
        """
        gains = {scale: float(own[places[scale]] - own.min()) for scale, own in errors.items()}
        ranked = sorted((s for s in gains if gains[s] > 0), key=lambda s: -gains[s])
        widest, choices = self._rules["minmax"], {}
        for share in _SHARES:
            few, amaxes = ranked[: round(share * len(ranked))], dict(base.amaxes)
            for scale in few:
                amax = float(self._scales[scale][np.argmin(errors[scale])])
                for root in scale.roots:
                    amaxes[root] = float(np.float32(min(amax, widest[root])))
            if few:
                name = f"by effect, {len(few)} of {counted(len(self._scales), 'scale')}"
                choices[f"{name}; {base.name}"] = amaxes
        return choices

    def result(self) -> Artifact:
        """The artifact with the best choice and a record of all."""
        self._open.close()
        best, ranges = self.best, dict(self._calibration.ranges)
        histograms = self._calibration.histograms or {}
        for name, amax in best.amaxes.items():
            rule = next((r for r in RULES if self._rules[r][name] == amax), "between the rules")
            if histograms[name].observed_amax > 0:
                ranges[name] = assess(histograms[name], amax, rule, ranges[name].note)
        calibration = replace(self._calibration, method=BY_EFFECT, options={}, ranges=ranges)
        details = {
            "chosen": best.name,
            "images_checked": len(self._checking),
            "time_was_over": self._deadline.is_over,
            "errors": {tried.name: tried.error for tried in (*self._tried, *self._left)},
            "furthest": self._furthest(best.amaxes, ranges),
        }
        record = Record(_STAGE, best.name, details)
        return self._artifact.having(record, calibration=calibration)

    def _furthest(
        self, amaxes: Mapping[str, float], ranges: Mapping[str, TensorRange]
    ) -> list[dict[str, object]]:
        """The tensors whose ranges are furthest from those of the entropy rule."""
        entropy = self._rules[DEFAULT_RULE]
        moved = sorted(
            {root for scale in self._scales for root in scale.roots},
            key=lambda name: (-abs(np.log(amaxes[name] / entropy[name])), name),
        )
        return [
            {"tensor": n, "amax": amaxes[n], "entropy": entropy[n], "rule": ranges[n].method}
            for n in moved[:_NUM_SHOWN]
        ]
