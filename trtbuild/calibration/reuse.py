"""Calibration files: which network they belong to, when they can be reused, how parts are merged."""

from __future__ import annotations

import functools
import logging
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from calibrators import Calibration, merge_calibrations
from trtbuild.calibration.histograms import collect
from trtbuild.calibration.network import observed_network
from trtbuild.calibration.user_rules import know_rule
from trtbuild.data import DataDigest, first_samples
from trtbuild.errors import DataError, InputError, decoding, in_one_tree
from trtbuild.files import content_of
from trtbuild.model import graph_digest, weights_digest
from trtbuild.wording import counted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import onnx_ir as ir

    from trtbuild.data import Source

_log = logging.getLogger(__name__)

__all__ = [
    "Drift",
    "changes_since",
    "load_calibration",
    "merge_files",
    "part_of",
    "provenance_of",
    "spot_check",
]


_GRAPH, _WEIGHTS = "model_graph", "model_weights"


def provenance_of(source: ir.Model, earlier: Calibration | None = None) -> dict[str, str]:
    """Return the digests of the network's graph and weights, which tie a calibration to it.

    Args:
        source: the network.
        earlier: a calibration of the same network, whose digests are taken: computing them reads all weights.
    """
    known = {} if earlier is None else earlier.provenance
    if _GRAPH in known and _WEIGHTS in known:
        return {_GRAPH: known[_GRAPH], _WEIGHTS: known[_WEIGHTS]}
    return {_GRAPH: graph_digest(source), _WEIGHTS: weights_digest(source)}


def load_calibration(path: Path, source: ir.Model) -> Calibration:
    """Read the calibration file at `path`, which must belong to the graph of `source`.

    Weights and preprocessing may have changed since; `changes_since` tells.

    Raises:
        InputError: it cannot be read, or belongs to another graph.
    """
    calibration = _read(path)
    there, here = calibration.provenance.get(_GRAPH), graph_digest(source)
    if there != here:
        raise InputError(
            f"the calibration '{path}' belongs to another graph ({_short(there)}, this network is "
            f"{_short(here)}); calibrate again."
        )
    if _SHARD in calibration.provenance:
        _log.warning(
            "'%s' is part %s of a calibration, so its ranges are those of a part of the data; "
            "merge all parts first.",
            path,
            calibration.provenance[_SHARD],
        )
    return calibration


def changes_since(
    calibration: Calibration, source: ir.Model, preprocess: str, data: DataDigest
) -> tuple[str, ...]:
    """Return what has changed since `calibration` was made: ``weights``, ``preprocessing``, ``data``."""
    now = {
        "weights": (_WEIGHTS, weights_digest(source)),
        "preprocessing": ("preprocess", preprocess),
        "data": ("data", str(data)),
    }
    return tuple(
        what for what, (key, here) in now.items() if calibration.provenance.get(key) != here
    )


@dataclass(frozen=True)
class Drift:
    """How far ranges have moved, from a spot check of a few samples.

    Attributes:
        num_samples: samples that were run.
        ratios: tensor -> largest magnitude now over the largest magnitude then, furthest from 1 first.
    """

    num_samples: int
    ratios: Mapping[str, float]

    def __str__(self) -> str:
        name, ratio = next(iter(self.ratios.items()))
        return (
            f"{self.num_samples} samples were run again: the largest magnitude of '{name}' is {ratio:.2f} "
            f"times what it was, and the other {len(self.ratios) - 1} tensors are nearer"
        )


def spot_check(
    calibration: Calibration, model: ir.Model, samples: Source, count: int = 64
) -> Drift:
    """Run a few samples through `model` and compare the magnitudes of its tensors with `calibration`.

    A few samples rarely reach the largest magnitude of all data, so ratios somewhat below 1 are no drift.

    Raises:
        DataError: as `trtbuild.calibration.collect`.
    """
    names = [name for name, given in calibration.ranges.items() if given.observed_amax > 0]
    seen = collect(observed_network(model, names), first_samples(samples, count))
    now = {name: seen.together.histograms[name].observed_amax for name in names}
    ratios = {name: now[name] / calibration.ranges[name].observed_amax for name in names}
    furthest = sorted(names, key=lambda name: -abs(math.log(max(ratios[name], 1e-9))))
    return Drift(seen.num_samples, {name: ratios[name] for name in furthest})


def merge_files(paths: Sequence[Path], *, partial: bool = False) -> Calibration:
    """Merge the parts of a sharded calibration; equal to one run over all the data.

    Args:
        paths: files of the parts.
        partial: allow missing parts; the result is then a part itself.

    Raises:
        InputError: a part cannot be read or has no histograms, a part is missing or given twice, or the
            parts do not belong together.
    """
    parts = [_read(path) for path in paths]
    if not parts:
        raise InputError("there are no parts to merge.")
    _check_alike(paths, parts)
    first = {k: v for k, v in parts[0].provenance.items() if k not in (*_ADDED, *_OF_SHARDS)}
    data = functools.reduce(DataDigest.merge, map(_data_of, paths, parts))
    provenance = {**first, "data": str(data), "num_samples": str(data.num_samples)}
    know_rule(parts[0].method)
    with in_one_tree("these parts cannot be merged: "):
        merged = merge_calibrations(parts, provenance)
    numbers, count = _numbers_together(paths, parts)
    whole = parts[0].provenance[_OF_DATA]
    missing = sorted({*range(1, count + 1)} - numbers)
    if missing and partial:
        given = {_SHARD: f"{_listed(sorted(numbers))}/{count}", _OF_DATA: whole}
        return replace(merged, provenance={**provenance, **given})
    if missing:
        raise InputError(
            f"part {_listed(missing)} of {count} is missing; calibrate it (--shard {missing[0]}/{count}) and "
            "merge all parts, or merge these alone into a larger part with --partial."
        )
    return merged


def _check_alike(paths: Sequence[Path], parts: Sequence[Calibration]) -> None:
    for path, part in zip(paths, parts):
        if part.histograms is not None and not {_SHARD, _OF_DATA} <= part.provenance.keys():
            raise InputError(
                f"'{path}' does not say which part of which data it is: it was made without --shard, or by "
                "an earlier version. Merge files of 'calibrate --shard I/N'."
            )
        first = parts[0].provenance
        for key in (*first, *part.provenance):
            if key not in (*_ADDED, _SHARD) and part.provenance.get(key) != first.get(key):
                what = "data than" if key == _OF_DATA else f"{key} than"
                raise InputError(
                    f"'{path}' has {'other' if key == _OF_DATA else 'another'} {what} '{paths[0]}'; "
                    "calibrate all parts alike."
                )


def _numbers_together(paths: Sequence[Path], parts: Sequence[Calibration]) -> tuple[set[int], int]:
    """The numbers of all parts given, and the number of parts that make up the whole."""
    found: dict[int, Path] = {}
    _, count = _numbers_of(paths[0], parts[0])
    for path, part in zip(paths, parts):
        numbers, of = _numbers_of(path, part)
        if of != count:
            raise InputError(
                f"'{path}' is one of {counted(of, 'part')}, and '{paths[0]}' one of {count}; "
                "merge parts of the same division."
            )
        for number in numbers:
            if number in found:
                raise InputError(
                    f"part {number} of {count} is given twice, in '{found[number]}' and '{path}'; "
                    "its samples would count twice."
                )
            found[number] = path
    return set(found), count


def _numbers_of(path: Path, part: Calibration) -> tuple[list[int], int]:
    text = str(part.provenance[_SHARD])
    try:
        numbers, _, count = text.partition("/")
        found, of = [int(number) for number in numbers.split(",")], int(count)
    except ValueError:
        found, of = [], 0
    if not found or of > _MOST_PARTS or not all(1 <= number <= of for number in found):
        raise InputError(f"'{path}' is damaged: it says that it is part '{text}'.")
    return found, of


def _listed(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))


def part_of(shard: str, whole: DataDigest) -> dict[str, str]:
    """Return the provenance of a part: its number ``I/N``, and the digest of the whole data."""
    number, _, count = shard.partition("/")
    return {_SHARD: f"{int(number)}/{int(count)}", _OF_DATA: str(whole)}


_ADDED = ("data", "num_samples")
_SHARD, _OF_DATA = "shard", "shard_of"
_OF_SHARDS = (_SHARD, _OF_DATA)
_MOST_PARTS = 1_000_000


def _data_of(path: Path, part: Calibration) -> DataDigest:
    with decoding(InputError, f"'{path}' does not say which data it was made on"):
        return DataDigest.from_text(part.provenance["data"], int(part.provenance["num_samples"]))


def _read(path: Path) -> Calibration:
    with decoding(DataError, f"cannot read the calibration '{path}'"):
        content = content_of(path)
    with in_one_tree(f"'{path}' is not a calibration file: "):
        return Calibration.from_bytes(content)


def _short(digest: str | None) -> str:
    return digest.split(":")[-1][:12] if digest else "unknown"
