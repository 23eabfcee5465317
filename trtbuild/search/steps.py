"""The steps of a search before groups go to float: each proposes candidates, the search keeps the best.

A step is a function of the best candidate so far (a callable, as it may change meanwhile) and of `Material`.
It yields pairs of a description and a candidate, and decides nothing.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from trtbuild.model.traversal import nodes_by_name
from trtbuild.options.calibrate import DEFAULT_RULE
from trtbuild.options.tune import LIMIT_FLOAT_PERCENT
from trtbuild.plan import GroupKind
from trtbuild.quantization import place_by_ranges
from trtbuild.search.bias_correction import measured_shifts
from trtbuild.search.channels.choice import best_choices
from trtbuild.search.channels.samples import channel_samples
from trtbuild.search.channels.scaling import rescaled
from trtbuild.search.channels.sites import find_sites
from trtbuild.search.float_costs import UNTIMED, LayerTiming
from trtbuild.search.ranges.choose import BY_EFFECT
from trtbuild.search.ranges.shared_scales import RULES
from trtbuild.search.rounding import round_weights
from trtbuild.wording import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from calibrators import Calibration, TensorRange
    from trtbuild.artifact import Artifact
    from trtbuild.runtime.session import Feeds
    from trtbuild.search.candidate import Candidate
    from trtbuild.search.channels.choice import Choice

__all__ = [
    "METHODS",
    "Material",
    "correct_biases",
    "other_calibrator",
    "other_range_of_one_tensor",
    "rescale_channels",
    "round_anew",
    "widen_ranges",
]

# (method, options); no percentile higher than a few hundred images can support
METHODS: tuple[tuple[str, dict[str, float]], ...] = (
    ("entropy", {}),
    ("mse", {}),
    ("percentile", {"percentile": 99.99}),
    ("percentile", {"percentile": 99.999}),
    ("minmax", {}),
)

# A tensor is rescaled if the expected error of its readers falls by at least this: if it is free, by more
# than the estimate's uncertainty; if an operator has to be inserted, by a third of a bit.
_WORTH_DB_FREE = 1.0
_WORTH_DB = 2.0

# A second proposal corrects only layers whose mean error is at least this share of their error.
_WORTH_SHARE = 0.1

# Other images exceed the values of the images that chose, by an unknown factor.
_WIDER = (1.1, 1.2)

_SAME_AMAX = 1e-4

# Ranges of one tensor that differ by at most this share are not tried separately.
_SAME_RANGE = 0.03


@dataclass(frozen=True)
class Material:
    """Data and limits for the steps.

    Attributes:
        feeds: calibration images, for means and channel ranges.
        calibrate: finds the ranges of a changed network, with histograms.
        num_tensors: how many tensors at most get a range by another rule.
        max_float_percent: largest share of the multiply-accumulates that may fall back to float, in percent.
        timing: how the backend times layers, to find a group's cost in float.
    """

    feeds: Sequence[Feeds]
    calibrate: Callable[[Artifact], Artifact]
    num_tensors: int = 6
    max_float_percent: float = LIMIT_FLOAT_PERCENT
    timing: LayerTiming = UNTIMED


def other_calibrator(
    best: Callable[[], Candidate], material: Material
) -> Iterator[tuple[str, Candidate]]:
    """Yield another rule for all thresholds."""
    del material
    calibration = best().artifact.calibration
    if calibration is None or calibration.histograms is None:
        return
    for method, options in METHODS:
        if (method, options) != (calibration.method, dict(calibration.options)):
            chosen = calibration.chosen_with(method, **options)
            yield _described(method, options), _with_calibration(best(), chosen)


def correct_biases(
    best: Callable[[], Candidate], material: Material
) -> Iterator[tuple[str, Candidate]]:
    """Yield biases corrected by the mean error of each channel: of all layers, or where it matters most.

    One pass over the images. A few extreme values, as of tokens on which the outputs do not depend, may
    dominate a mean; correcting it then removes only a small share of the layer's error.
    """
    candidate = best()
    plain = replace(candidate, shifts={})
    found = measured_shifts(candidate.artifact.model, plain.network(), material.feeds)
    means = {name: shift.mean for name, shift in found.items()}
    yield f"biases of {counted(len(means), 'layer')}", replace(candidate, shifts=means)
    few = {name: means[name] for name, shift in found.items() if shift.share >= _WORTH_SHARE}
    if 0 < len(few) < len(means):
        layers = counted(len(few), "layer")
        what = f"biases of {layers}, where they are {_WORTH_SHARE:.0%} of the error"
        yield what, replace(candidate, shifts=few)


def widen_ranges(
    best: Callable[[], Candidate], material: Material
) -> Iterator[tuple[str, Candidate]]:
    """Yield all ranges a little wider; biases that were corrected are corrected again.

    The thresholds are the best for a few images. For other images, values clipped beyond them matter much,
    and the slightly coarser rounding of a wider range hardly.
    """
    candidate = best()
    calibration = candidate.artifact.calibration
    assert calibration is not None
    for factor in _WIDER:
        ranges = {
            name: replace(one, amax=float(np.float32(factor * one.amax)))
            for name, one in calibration.ranges.items()
        }
        wider = _with_calibration(candidate, replace(calibration, ranges=ranges))
        if candidate.shifts:
            found = measured_shifts(wider.artifact.model, wider.network(), material.feeds)
            means = {name: one.mean for name, one in found.items() if name in candidate.shifts}
            wider = replace(wider, shifts=means)
        yield f"all by {factor - 1:.0%}", wider


def round_anew(
    best: Callable[[], Candidate], material: Material
) -> Iterator[tuple[str, Candidate]]:
    """Yield weights rounded to keep each layer's output, instead of each weight to the nearest step."""
    candidate = best()
    artifact = candidate.artifact
    assert artifact.calibration is not None
    placement, _ = place_by_ranges(artifact.model, artifact.calibration, artifact.request)
    rounded = round_weights(artifact.model, placement.weights, material.feeds)
    if rounded:
        anew = replace(candidate, rounded=rounded, shifts={})
        what = f"weights of {counted(len(rounded), 'layer')}"
        yield what, anew
        for more, corrected in correct_biases(lambda: anew, material):
            yield f"{what}; {more}", corrected


def rescale_channels(
    best: Callable[[], Candidate], material: Material
) -> Iterator[tuple[str, Candidate]]:
    """Yield tensors with channels scaled to one range, and shifted as well, if their readers gain by it.

    Every tensor is judged by itself on a sample of its values (seconds for a hundred tensors, after one
    run over the images); a proposal costs one calibration of the changed network. A proposal has all tensors
    whose expected error falls clearly; the last one has only those that need no inserted operator. If none
    is kept, each is proposed again with ranges by the rule that most other tensors have.
    """
    candidate = best()
    model = candidate.artifact.model
    sites = find_sites(model, {g.name for g in candidate.groups() if g.kind is GroupKind.LAYER})
    if not sites:
        return
    samples = channel_samples(model, sites, material.feeds)
    nodes = nodes_by_name(model.graph)
    found = [best_choices(s, samples[s.tensor], nodes) for s in sites if s.tensor in samples]
    changed = [one.any_change for one in found if _is_worth(one.any_change, one.plain)]
    scaled = [one.scaled for one in found if _is_worth(one.scaled, one.plain)]
    free = [one for one in scaled if _is_free(one)]
    tried: list[list[int]] = []
    others: list[tuple[str, Candidate]] = []
    for what, chosen in (
        ("scaled or shifted", changed),
        ("scaled", scaled),
        ("scaled where it is free", free),
    ):
        same = [id(one) for one in chosen]
        if not chosen or same in tried:
            continue
        tried.append(same)
        said = f"{counted(len(chosen), 'tensor')} {what}, {_inserted(chosen)}"
        own, by_rule = _with_choices(candidate, chosen, material)
        others.append((f"{said}, their ranges by the rule of the others", by_rule))
        yield said, own
    if best() is candidate:  # if a proposal was kept, its ranges are chosen again later
        yield from others


def _is_free(choice: Choice) -> bool:
    """Whether a choice rescales its tensor without an inserted operator."""
    return choice.rescaling is not None and choice.rescaling.is_free


def _is_worth(choice: Choice, plain: Choice) -> bool:
    """Whether a choice rescales its tensor, and the expected error falls clearly by it."""
    by_db = _WORTH_DB_FREE if _is_free(choice) else _WORTH_DB
    return choice.rescaling is not None and choice.is_better_than(plain, by_db)


def _inserted(choices: Sequence[Choice]) -> str:
    """The operators that these choices insert, in words."""
    count = sum(1 for one in choices if not _is_free(one))
    if not count:
        return "no more operators"
    return f"{counted(count, 'more elementwise operator')} in front of layers"


def _with_choices(
    candidate: Candidate, chosen: Sequence[Choice], material: Material
) -> tuple[Candidate, Candidate]:
    """Two candidates with these tensors rescaled; ranges of unchanged tensors stay.

    In the first, each rescaled tensor has the range with its least expected error; in the second, that of the
    rule that most other tensors have, as the outputs may depend on a few large values.
    """
    before = candidate.artifact
    changes = [choice.rescaling for choice in chosen if choice.rescaling is not None]
    model, read = rescaled(before.model, changes)
    artifact = _by_the_same_rule(material.calibrate(replace(before, model=model)), before)
    found = artifact.calibration
    assert found is not None
    assert before.calibration is not None
    by_rule = _kept_where_same(found.ranges, before.calibration.ranges)
    ranges = dict(by_rule)
    for choice in chosen:
        assert choice.rescaling is not None
        name = read[choice.rescaling.site.tensor]
        if name in ranges:
            ranges[name] = replace(ranges[name], amax=float(np.float32(choice.amax)))
    changed = replace(candidate, artifact=artifact, shifts={}, rounded={})
    own, rule = (
        _with_calibration(changed, replace(found, ranges=one)) for one in (ranges, by_rule)
    )
    return own, rule


def _kept_where_same(
    ranges: Mapping[str, TensorRange], before: Mapping[str, TensorRange]
) -> dict[str, TensorRange]:
    """Ranges of a changed network; tensors whose values did not change keep their chosen range."""
    kept = dict(ranges)
    for name, old in before.items():
        if name in kept and _is_same(kept[name].observed_amax, old.observed_amax):
            kept[name] = replace(kept[name], amax=old.amax, method=old.method)
    return kept


def _is_same(one: float, other: float) -> bool:
    """Whether two magnitudes are equal up to the rounding errors of float32."""
    return abs(one - other) <= _SAME_AMAX * max(one, other)


def other_range_of_one_tensor(
    best: Callable[[], Candidate], material: Material
) -> Iterator[tuple[str, Candidate]]:
    """Yield another rule for a single tensor, for the tensors about which the rules disagree most."""
    calibration = best().artifact.calibration
    if calibration is None or calibration.histograms is None:
        return
    choices = [
        (_described(method, options), calibration.chosen_with(method, **options).ranges)
        for method, options in METHODS
    ]
    disputed = _most_disputed([ranges for _, ranges in choices])[: material.num_tensors]
    for name in disputed:
        tried = [calibration.ranges[name].amax]
        for described, ranges in choices:
            amax = ranges[name].amax
            # a tensor that is always zero has a range of 0 by every rule
            if all(abs(amax - other) > _SAME_RANGE * other for other in tried):
                tried.append(amax)
                yield f"{described} for '{name}'", _with_range(best(), name, ranges[name])


def _most_disputed(choices: Sequence[Mapping[str, TensorRange]]) -> list[str]:
    """The tensors, sorted by the ratio of their widest to their narrowest proposed range."""

    def ratio(name: str) -> float:
        found = [ranges[name].amax for ranges in choices]
        return max(found) / min(found) if min(found) > 0 else 0.0

    return sorted(choices[0], key=lambda name: (-ratio(name), name))


def _described(method: str, options: Mapping[str, float]) -> str:
    return " ".join((method, *(f"{value:g}" for value in options.values())))


def _with_calibration(candidate: Candidate, calibration: Calibration) -> Candidate:
    return replace(
        candidate, artifact=replace(candidate.artifact, calibration=calibration), shifts={}
    )


def _with_range(candidate: Candidate, name: str, given: TensorRange) -> Candidate:
    calibration = candidate.artifact.calibration
    assert calibration is not None
    changed = replace(calibration, ranges={**calibration.ranges, name: given})
    return replace(candidate, artifact=replace(candidate.artifact, calibration=changed))


def _most_chosen(calibration: Calibration) -> tuple[str, Mapping[str, float]]:
    """The most frequent rule among ranges chosen by effect, and its options."""
    rules = Counter(one.method for one in calibration.ranges.values() if one.method in RULES)
    return RULES[rules.most_common(1)[0][0] if rules else DEFAULT_RULE]


def _by_the_same_rule(artifact: Artifact, before: Artifact) -> Artifact:
    """`artifact` with ranges chosen again, by the rule that the search has settled on."""
    chosen, found = before.calibration, artifact.calibration
    if chosen is None or found is None or found.histograms is None:
        return artifact
    if chosen.method == BY_EFFECT:
        method, options = _most_chosen(chosen)
        ranges = _kept_where_same(found.chosen_with(method, **options).ranges, chosen.ranges)
        return replace(artifact, calibration=replace(found, method=BY_EFFECT, ranges=ranges))
    return replace(artifact, calibration=found.chosen_with(chosen.method, **chosen.options))
