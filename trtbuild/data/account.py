"""How many samples are used, what was skipped and why, and which inputs look wrong."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from trtbuild.data.image_files import LIST_SUFFIXES
from trtbuild.data.json_labels import JSON_SUFFIXES
from trtbuild.data.skipped import HIDDEN, grouped
from trtbuild.json_codec import NOT_IN_JSON, encode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from trtbuild.data.samples import Source
    from trtbuild.data.skipped import Skipped
    from trtbuild.data.survey import InputSurvey
    from trtbuild.options.data import DataRecipe

__all__ = ["DataAccount", "account_for", "warn_of_lost"]

_log = logging.getLogger(__name__)

# Preprocessed images vary by more than this in every convention: 0 to 1, -1 to 1, 0 to 255.
_LEAST_DEVIATION = 0.01
# Without preprocessing the unit is not known: a deviation below this share of the largest value is none.
_LEAST_SHARE = 1e-3
_LARGEST_VALUE = 256.0
_SATURATED = 0.98
# Warn if at most this share of the samples is distinct.
_MOST_REPEATED = 0.5
_VERIFIES = " that verify: "

RANDOM = "the samples are random numbers, which say nothing about real data"
"""Beginning of the entry for random data in `DataAccount.spoilt`."""
REPEATED = "distinct samples among"
"""Beginning of the entry for copies there."""
WRONG_INPUT = "the input"
"""Beginning of the entry for an input that looks wrong there."""

# Files that often lie beside images: not worth a warning.
_SIDECARS = frozenset(
    {".csv", ".db", ".ini", ".md", ".npy", ".npz", ".toml", ".xml", ".yaml", ".yml"}
    | JSON_SUFFIXES
    | LIST_SUFFIXES
)


_OF_ONE = {"calibrate": "calibrates", "verify": "verifies"}


@dataclass(frozen=True)
class DataAccount:
    """What the data contains, and how it is used.

    Attributes:
        used: use of samples (``calibrate``, ``verify``) -> number of samples.
        inputs: input -> the range and the variation of its first values.
        passed_over: files that were not read.
        warnings: sentences about inputs that look wrong.
        repeated: sentences about samples that occur many times.
        random: whether the samples are random numbers.
        may_stop_early: whether calibration may end before its last sample.
        spoilt: why figures on these samples cannot be trusted, without the questions to the user: the only
            input looks wrong (one of several may be a mask), the samples that verify are copies, or random.
    """

    used: Mapping[str, int]
    inputs: Mapping[str, InputSurvey]
    passed_over: tuple[Skipped, ...]
    warnings: tuple[str, ...]
    repeated: tuple[str, ...] = ()
    random: bool = field(default=False, metadata=NOT_IN_JSON)
    may_stop_early: bool = field(default=False, metadata=NOT_IN_JSON)
    spoilt: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "spoilt", self._why_spoilt())

    def __str__(self) -> str:
        used = ", ".join(
            f"1 sample {_OF_ONE[what]}" if count == 1 else f"{count} samples {what}"
            for what, count in self.used.items()
        )
        if self.may_stop_early and "calibrate" in self.used:
            used = f"up to {used}"
        ranges = (f"'{n}' from {s.low:.4g} to {s.high:.4g}" for n, s in self.inputs.items())
        passed = ", ".join(map(str, self.passed_over))
        parts = (used, *ranges, f"passed over: {passed}" if passed else "")
        return "; ".join(part for part in parts if part)

    @property
    def details(self) -> dict[str, Any]:
        """The account as JSON types, for the manifest."""
        found: dict[str, Any] = encode(self)
        return found

    def _why_spoilt(self) -> tuple[str, ...]:
        wrong = [*self.warnings] if len(self.inputs) == 1 else []
        wrong += [text for text in self.repeated if _VERIFIES in text]
        spoilt = tuple(text.rpartition(". ")[0] for text in wrong)
        return (RANDOM, *spoilt) if self.random else spoilt


def account_for(recipe: DataRecipe, **sources: Source | None) -> DataAccount:
    """Return the account of the samples that are used, and warn of what looks wrong.

    Args:
        recipe: the user's data options.
        **sources: use of the samples -> the samples; None if there are none for that use.
    """
    given = {what: source for what, source in sources.items() if source is not None}
    inputs: dict[str, InputSurvey] = {}
    skipped: dict[Skipped, None] = {}
    for source in given.values():
        inputs = {**source.index.inputs, **inputs}
        partly = grouped(source.index.unused.items())
        skipped.update(dict.fromkeys((*source.skipped, *partly)))
    account = DataAccount(
        {what: len(source.index) for what, source in given.items()},
        inputs,
        tuple(skipped),
        () if recipe.random_data else (*_warnings(recipe, inputs), *_depths(given.values())),
        () if recipe.random_data else tuple(_repeated(given)),
        recipe.random_data,
    )
    warn_of_lost(account.passed_over)
    for sentence in (*account.warnings, *account.repeated):
        _log.warning("%s", sentence)
    return account


def warn_of_lost(skipped: Iterable[Skipped]) -> None:
    """Warn of skipped files, except hidden ones and those that usually lie beside images."""
    lost = [str(found) for found in skipped if not _is_expected(found)]
    if lost:
        _log.warning("skipped in the data: %s", ", ".join(lost))


def _is_expected(found: Skipped) -> bool:
    return found.reason == HIDDEN or any(f" {suffix} " in found.reason for suffix in _SIDECARS)


def _repeated(given: Mapping[str, Source]) -> Iterator[str]:
    """Warn of samples that occur again and again, as from a reader that refills and returns one array."""
    for what, source in given.items():
        count, different = len(source.index), len(source.index.counts)
        if count > 1 and different <= count * _MOST_REPEATED:
            yield (
                f"{REPEATED} the {count} that {what}: {different}. Is one array refilled and returned "
                "each time, or is the same file there many times?"
            )


def _depths(sources: Iterable[Source]) -> Iterator[str]:
    """Warn of images with different bit depths: all values are kept, so one scale does not fit them all."""
    found: dict[str, str] = {}
    for source in sources:
        found = {**source.index.depths, **found}
    if len(found) > 1:
        each = ", ".join(f"{depth} ('{name}')" for depth, name in found.items())
        yield f"images differ in bit depth, {each}, and keep their values; one 'scale' does not fit all."


def _warnings(recipe: DataRecipe, inputs: Mapping[str, InputSurvey]) -> Iterator[str]:
    preprocess = recipe.preprocess
    for name, found in inputs.items():
        is_image = preprocess is not None and preprocess.input in (None, name)
        what = f"{WRONG_INPUT} '{name}'{' after preprocessing' if is_image else ''}"
        span = f"from {found.low:.4g} to {found.high:.4g}"
        least = _LEAST_SHARE * max(abs(found.low), abs(found.high))
        if found.deviation <= (_LEAST_DEVIATION if is_image else least):
            yield (
                f"{what} hardly varies: its first samples hold values {span}, with a standard deviation of "
                f"{found.deviation:.2g}. Are the pixels scaled already, or scaled twice?"
            )
        elif max(found.at_low, found.at_high) >= _SATURATED:
            value = found.low if found.at_low > found.at_high else found.high
            yield (
                f"{what} is saturated: {max(found.at_low, found.at_high):.1%} of its first values are "
                f"{value:.4g}, at the end of their range {span}. Were the pixels clipped?"
            )
        elif is_image and max(abs(found.low), abs(found.high)) > _LARGEST_VALUE:
            yield (
                f"{what} holds values {span}, more than 8-bit pixels have. Is 'scale' missing, or is it "
                "meant for 8-bit pixels?"
            )
