"""Advice on calibration data: near-duplicates, outliers, and a small subset that is as good.

A sample is described by the largest magnitude and the root mean square of every observed tensor. Two
samples that agree in all of these to 1 % are near-duplicates: the second adds nothing to a range. A sample
is an outlier if it is much larger in some tensor than every other sample: it alone decides that range,
unless the rule clips it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from calibrators import Collector
from calibrators.methods import assess
from trtbuild.calibration.histograms import refuse_non_finite
from trtbuild.calibration.instability import HARMLESS_DB
from trtbuild.calibration.kept_histograms import KeptHistograms

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from calibrators import Calibration
    from trtbuild.calibration.observe import Place

__all__ = [
    "Outlier",
    "SampleRecorder",
    "SampleStatistics",
    "all_as_good",
    "near_duplicates",
    "order_by_use",
    "outliers",
]

NEAR = 0.01
"""Samples whose figures all agree to this share are near-duplicates."""
FAR = 1.5
"""A sample is an outlier in a tensor if its largest magnitude exceeds this many times the next largest."""

# Figures below this share of the tensor's largest count as equal.
_NOTHING = 1e-6


@dataclass(frozen=True)
class Outlier:
    """A sample that alone decides ranges.

    Attributes:
        name: name of the sample.
        num_tensors: number of tensors in which it exceeds `FAR` times every other sample.
        tensor: the tensor in which it exceeds the others most.
        ratio: its largest magnitude in that tensor over the next largest sample's.
    """

    name: str
    num_tensors: int
    tensor: str
    ratio: float


@dataclass(frozen=True)
class SampleStatistics:
    """The figures of each sample, sorted by the samples' keys.

    Attributes:
        names: names of the samples.
        keys: digests of their contents.
        tensors: names of the observed tensors.
        amax: largest magnitudes, float64 ``[samples, tensors]``.
        rms: root mean squares, float64 ``[samples, tensors]``.
        copies: groups of names of samples with equal content, in the order of the data.
    """

    names: tuple[str, ...]
    keys: tuple[bytes, ...]
    tensors: tuple[str, ...]
    amax: NDArray[np.float64]
    rms: NDArray[np.float64]
    copies: tuple[tuple[str, ...], ...]

    @property
    def figures(self) -> NDArray[np.float64]:
        """Logarithms of all figures, ``[samples, 2 * tensors]``; negligible figures are set equal."""
        both = np.hstack([self.amax, self.rms])
        floor = np.maximum(both.max(0, initial=0.0) * _NOTHING, np.finfo(np.float64).tiny)
        found: NDArray[np.float64] = np.log(np.maximum(both, floor))
        return found


@dataclass
class SampleRecorder:
    """Records the figures of every sample; an observer of `trtbuild.calibration.observe`."""

    tensors: tuple[str, ...]
    seen: list[tuple[Place, list[float], list[float]]] = field(default_factory=list)
    kept: KeptHistograms = field(init=False)

    def __post_init__(self) -> None:
        self.kept = KeptHistograms(self.tensors)

    def group(self, key: bytes) -> int:
        """All samples are in one group."""
        del key
        return 0

    def update(self, tensors: Mapping[str, Any], places: Sequence[Place]) -> None:
        """Record the figures and histograms of some samples.

        Raises:
            DataError: a tensor holds NaN or infinity.
        """
        for row, place in enumerate(places):
            counted = Collector(self.tensors)
            counted.observe({name: tensors[name][row] for name in self.tensors}, batch=place.number)
            refuse_non_finite(counted, f"for {place}", in_order=self.tensors)
            self.kept.keep(place.key, counted.histograms)
            arrays = [np.asarray(tensors[name][row], np.float64) for name in self.tensors]
            largest = [float(np.max(np.abs(a), initial=0.0)) for a in arrays]
            means = [float(np.sqrt(np.mean(np.square(a)))) if a.size else 0.0 for a in arrays]
            self.seen.append((place, largest, means))

    @staticmethod
    def together(parts: Sequence[SampleRecorder]) -> SampleStatistics:
        """Return the figures from all threads; samples of equal content appear once, by the first's name."""
        seen = sorted((one for part in parts for one in part.seen), key=lambda one: one[0].number)
        found: dict[bytes, list[tuple[Place, list[float], list[float]]]] = {}
        for one in seen:
            found.setdefault(one[0].key, []).append(one)
        keys = sorted(found)
        rows = [found[key][0] for key in keys]
        return SampleStatistics(
            tuple(place.name for place, _, _ in rows),
            tuple(keys),
            parts[0].tensors,
            np.array([big for _, big, _ in rows]),
            np.array([mean for _, _, mean in rows]),
            tuple(
                tuple(place.name for place, _, _ in same)
                for same in found.values()
                if len(same) > 1
            ),
        )


def near_duplicates(samples: SampleStatistics, share: float = NEAR) -> tuple[tuple[int, ...], ...]:
    """Return groups of samples, as indices, that agree in every figure to `share`.

    All samples of a group agree with its first one, which stands for them, so that chains of small
    differences do not join different samples. Cost: a sort, and for each sample a comparison with those near
    it in one figure.
    """
    figures, reach = samples.figures, float(np.log1p(share))
    widest = int(np.argmax(np.ptp(figures, 0))) if figures.size else 0
    order = np.argsort(figures[:, widest], kind="stable")
    line = figures[order, widest]
    free = np.ones(len(order), bool)
    groups = []
    for start in range(len(order)):
        if not free[start]:
            continue
        end = int(np.searchsorted(line, line[start] + reach, "right"))
        near = np.flatnonzero(free[start + 1 : end]) + start + 1
        apart = np.abs(figures[order[near]] - figures[order[start]]).max(1, initial=0.0)
        same = near[apart <= reach]
        free[same] = False
        if same.size:
            groups.append((int(order[start]), *sorted(int(order[k]) for k in same)))
    return tuple(sorted(groups))


def outliers(samples: SampleStatistics, times: float = FAR) -> tuple[Outlier, ...]:
    """Return samples larger than `times` every other sample in some tensor; those in most tensors first."""
    if len(samples.names) < 2:
        return ()
    top = np.sort(samples.amax, axis=0)[-2:]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(top[0] > 0, top[1] / top[0], np.where(top[1] > 0, np.inf, 1.0))
    who = samples.amax.argmax(0)
    found = []
    for sample in sorted(set(who[ratios > times].tolist())):
        own = np.flatnonzero((who == sample) & (ratios > times))
        furthest = int(own[np.argmax(ratios[own])])
        found.append(
            Outlier(
                samples.names[sample], len(own), samples.tensors[furthest], float(ratios[furthest])
            )
        )
    return tuple(sorted(found, key=lambda one: (-one.num_tensors, -one.ratio, one.name)))


def all_as_good(whole: Calibration, amaxes: Mapping[str, float], share: float) -> bool:
    """Return whether all thresholds are within `share` of those of `whole`, or as good on its histograms.

    Rules such as entropy rate thresholds far apart as equal, and a few more samples move them from one to
    another. A threshold is as good if the tensor loses at most `HARMLESS_DB` of SQNR.
    """
    for name, given in whole.ranges.items():
        amax = amaxes.get(name, 0.0)
        if abs(amax - given.amax) <= share * given.amax:
            continue
        histogram = (whole.histograms or {}).get(name)
        if histogram is None or not 0 < amax < np.inf:
            return False
        sqnr = [assess(histogram, one, given.method).sqnr_db for one in (given.amax, amax)]
        if sqnr[0] - sqnr[1] > HARMLESS_DB:
            return False
    return True


def order_by_use(
    samples: SampleStatistics, share: float = NEAR, *, covers: bool = True
) -> list[int]:
    """Return the indices of all samples, the most representative first.

    With `covers`, for rules that depend on the largest values, a greedy cover comes first: each sample
    reaches the largest magnitude, to `share`, of as many tensors not yet reached as possible. The others are
    ordered so that the mean of all figures so far is nearest to the mean of all samples (Welling, "Herding
    dynamical weights to learn", 2009).
    """
    reaches = samples.amax >= samples.amax.max(0, initial=0.0) * (1 - share)
    order = list(_cover(reaches)) if covers else []
    return [*order, *_herded(samples.figures, order)]


def _cover(reaches: NDArray[np.bool_]) -> Iterator[int]:
    left = np.ones(reaches.shape[1], bool)
    while left.any():
        counts = (reaches & left).sum(1)
        best = int(counts.argmax())
        yield best
        left &= ~reaches[best]


def _herded(figures: NDArray[np.float64], taken: Sequence[int]) -> Iterator[int]:
    spread = figures.std(0)
    points = (figures - figures.mean(0)) / np.where(spread > 0, spread, 1.0)
    lengths = (points**2).sum(1)
    total = points[list(taken)].sum(0)
    free = np.ones(len(points), bool)
    free[list(taken)] = False
    for _ in range(int(free.sum())):
        # |total + x|^2 without the term that does not depend on x
        best = int(np.where(free, lengths + 2 * (points @ total), np.inf).argmin())
        yield best
        free[best] = False
        total = total + points[best]
