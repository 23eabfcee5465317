"""Chooses scale and shift of a tensor, if any, with the least expected error of its readers' outputs.

Let x̂ be x after rounding. The squared error of a reader's output is the sum of

    sum over channels c  of  |W_c|^2 E[(x̂_c - x_c)^2]                     from rounding x
    sum over outputs o   of  step_o^2 / 12  sum over c of E[u_c^2]          from rounding W scale

where W_c is the part of the weight that reads channel c; errors of different channels are assumed to be
uncorrelated. Both are computed from a sample of x, without a run of the network, for a window
``[low, high]`` of each channel at several clipping points. A window gives these shifts and scales:

    shift = (low + high) / 2, or 0        scale = (half of its width / the widest)^strength
    scale = sqrt(half of its width / max |W_c|)        SmoothQuant's balance with the weights

After a Clip that stays (`Site.limit`), a scale is at least the channel's largest magnitude over that limit.

Every tensor is judged by itself, so one whose weights would suffer does not spoil the others. The error of
a reader is taken relative to the variance of its output.

Sources: see `scaling`; the expected error of a uniform rounding is ``step^2 / 12`` (Widrow, 1956).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from trtbuild.model.attributes import attribute, constant_of
from trtbuild.plan import INT8_LIMIT
from trtbuild.search.channels.scaling import Rescaling
from trtbuild.search.channels.sites import is_transposed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from trtbuild.search.channels.samples import ChannelSample
    from trtbuild.search.channels.sites import Site

    Channels = NDArray[np.float64]

__all__ = ["BestChoices", "Choice", "best_choices"]

_TINY = 1e-30
_IN_CACHE = 1 << 16  # values
# Most weights of a layer (a kernel counts once) that are used to judge a scale; of a larger layer, only every
# second output is used, or every third, ...
_MOST_WEIGHTS = 1 << 21
_STRENGTHS = (0.5, 0.75, 1.0)
# Clipping points as shares of the largest magnitude, a third of an octave apart.
_CLIPS = tuple(float(2.0 ** (-step / 3)) for step in range(9))
# Channels smaller than this share of the largest are treated as if they were this large: their values
# are noise, and a larger factor would only amplify it.
_SMALLEST_SHARE = 1e-3
# A shifted window is wider than the values seen by the share `_MARGIN` / number of samples.
_MARGIN = 4.0


@dataclass(frozen=True)
class Choice:
    """One way to rescale and clip a tensor, or to leave it unscaled.

    Attributes:
        rescaling: scale and shift; None if the tensor is not rescaled.
        amax: clipping point of the rescaled tensor.
        error: expected error of the readers' outputs, relative to their variance, summed over readers.
    """

    rescaling: Rescaling | None
    amax: float
    error: float

    def is_better_than(self, other: Choice, by_db: float) -> bool:
        """Return whether the error is at least `by_db` dB below that of `other`."""
        return bool(self.error * 10.0 ** (by_db / 10.0) <= other.error)


@dataclass(frozen=True)
class _Reader:
    """The weights of a layer, summarized to compute its output's error from its input's.

    Attributes:
        energy: float64 ``[channels]``, sum of the squares of the weights that read each channel.
        largest: largest weight that reads each channel, relative to the largest of all, ``[channels]``.
        magnitude: float64 ``[groups, outputs of a group, channels of a group]``, the largest weight of the
            kernel; of a large layer only some outputs.
        per_row: how many outputs each of those represents, times the number of kernel positions.
    """

    energy: Channels
    largest: Channels
    magnitude: Channels
    per_row: float

    def rounding_error(self, scale: Channels, square: Channels) -> float:
        """Return the squared error by rounding ``weight * scale``, summed over the outputs.

        Args:
            scale: float64 ``[channels]``.
            square: mean square of each rescaled input channel, float64 ``[channels]``.
        """
        groups, outputs, inputs = self.magnitude.shape
        largest, scales = np.zeros((groups, outputs)), scale.reshape(groups, 1, inputs)
        portion = max(1, _IN_CACHE // (groups * outputs))
        for start in range(0, inputs, portion):
            some = slice(start, start + portion)
            scaled = self.magnitude[:, :, some] * scales[:, :, some]
            np.maximum(largest, scaled.max(axis=2), out=largest)
        steps = largest / INT8_LIMIT
        read = square.reshape(groups, inputs).sum(axis=1) * self.per_row
        return float((steps**2).sum(axis=1) @ read) / 12.0


class BestChoices(NamedTuple):
    """The best choices for one tensor: not rescaled; scaled; scaled, shifted or both."""

    plain: Choice
    scaled: Choice
    any_change: Choice


def best_choices(site: Site, sample: ChannelSample, nodes: Mapping[str, ir.Node]) -> BestChoices:
    """Return the best choices for a tensor.

    This takes some tens of milliseconds.
    """
    readers = [_reader(nodes[name]) for name in site.readers]
    variance = sample.values.var(axis=0, dtype=np.float64)
    powers = [max(float(reader.energy @ variance), _TINY) for reader in readers]
    judge = _Judge(site, sample, readers, powers)
    zero = np.zeros(site.channels)
    plain = min(judge.choices(_plain(sample, zero)), key=_error)
    least = zero if site.limit is None else sample.amax / site.limit
    scaled = min(judge.choices(_scaled(sample, readers, least, shifted=False)), key=_error)
    if not site.shiftable:
        return BestChoices(plain, scaled, scaled)
    shifted = min(judge.choices(_scaled(sample, readers, least, shifted=True)), key=_error)
    return BestChoices(plain, scaled, min(scaled, shifted, key=_error))


def _error(choice: Choice) -> float:
    return choice.error


def _reader(node: ir.Node) -> _Reader:
    weight = constant_of(node, 1)
    assert weight is not None
    if node.op_type != "Conv":
        if not is_transposed(node):
            weight = weight.T
        return _reader_of((weight**2).sum(axis=0), np.abs(weight)[None], 1)
    groups = int(attribute(node, "group", 1))
    outputs, inputs = weight.shape[:2]
    grouped = weight.reshape(groups, outputs // groups, inputs, -1)
    energy = (grouped**2).sum(axis=(1, 3)).reshape(-1)
    return _reader_of(energy, np.abs(grouped).max(axis=3), grouped.shape[3])


def _reader_of(energy: Channels, magnitude: Channels, kernel: int) -> _Reader:
    largest: Channels = magnitude.max(axis=1).reshape(-1)
    step = -(-magnitude.size // _MOST_WEIGHTS)
    some = magnitude if step == 1 else np.asfortranarray(magnitude[:, ::step])
    per_row = kernel * magnitude.shape[1] / some.shape[1]
    return _Reader(energy, largest / max(float(largest.max()), _TINY), some, per_row)


_Form = tuple["Channels", "Channels", float]
"""Scale, shift and amax."""


def _plain(sample: ChannelSample, zero: Channels) -> Iterator[_Form]:
    largest = float(sample.amax.max())
    for clip in _CLIPS:
        yield np.ones_like(zero), zero, clip * largest


def _scaled(
    sample: ChannelSample, readers: Sequence[_Reader], least: Channels, *, shifted: bool
) -> Iterator[_Form]:
    """Scales and shifts to try; no scale is below `least`, float64 ``[channels]``."""
    weights = np.clip(np.max([r.largest for r in readers], axis=0), _SMALLEST_SHARE, 1.0)
    for clip in _CLIPS:
        half, shift = _windows(sample, clip, shifted=shifted)
        largest = float(half.max())
        if largest <= 0.0:
            continue
        share = np.where(half > 0.0, np.clip(half / largest, _SMALLEST_SHARE, 1.0), 1.0)
        scales = [share**strength for strength in _STRENGTHS]
        if shifted:
            scales.append(np.ones_like(share))
        balanced = np.sqrt(share / weights)
        scales.append(balanced / balanced.max())
        for tried in scales:
            scale = np.maximum(tried, least)
            amax = float((half / scale).max())
            step = scale * amax / INT8_LIMIT
            yield scale, np.rint(shift / step) * step, amax  # zero stays exact


def _windows(sample: ChannelSample, clip: float, *, shifted: bool) -> tuple[Channels, Channels]:
    """Half of the width of each channel's window, and its middle.

    A shifted window always includes zero. It is wider than the values seen, by a share that falls with the
    number of samples: other data may exceed both of its ends, while a symmetric scale has room on one side.
    """
    reach = clip * sample.amax
    if not shifted:
        return reach, np.zeros_like(reach)
    low = np.minimum(np.maximum(sample.low, -reach), 0.0)
    high = np.maximum(np.minimum(sample.high, reach), 0.0)
    wider = 1.0 + _MARGIN / sample.num_samples
    return wider * (high - low) / 2, (low + high) / 2


class _Judge:
    """Computes the expected error of forms of one tensor."""

    def __init__(
        self,
        site: Site,
        sample: ChannelSample,
        readers: Sequence[_Reader],
        powers: Sequence[float],
    ) -> None:
        self._site = site
        self._values = sample.values
        self._mean = sample.values.mean(axis=0, dtype=np.float64)
        self._square = np.einsum("rc,rc->c", sample.values, sample.values, dtype=np.float64) / len(
            sample.values
        )
        self._readers = readers
        self._powers = powers
        self._energy = sum(r.energy / power for r, power in zip(readers, powers, strict=True))

    def choices(self, forms: Iterator[_Form]) -> Iterator[Choice]:
        """Yield a choice with its error for every form."""
        for scale, shift, amax in forms:
            if amax > 0.0:
                plain = not shift.any() and bool((scale == 1.0).all())
                rescaling = None if plain else Rescaling(self._site, scale, shift)
                yield Choice(rescaling, amax, self._error(scale, shift, amax))
            else:
                yield Choice(None, amax, 0.0)

    def _error(self, scale: Channels, shift: Channels, amax: float) -> float:
        step = amax / INT8_LIMIT
        steps = (self._values - shift.astype(np.float32)) * (1.0 / (scale * step)).astype(
            np.float32
        )
        rounded = np.clip(np.rint(steps), -INT8_LIMIT, INT8_LIMIT)
        rounded -= steps
        lost = np.einsum("rc,rc->c", rounded, rounded, dtype=np.float64) / len(rounded)
        error = float(self._energy @ (lost * (scale * step) ** 2))
        square = (self._square - 2 * shift * self._mean + shift**2) / scale**2
        for reader, power in zip(self._readers, self._powers, strict=True):
            error += reader.rounding_error(scale, square) / power
        return error
