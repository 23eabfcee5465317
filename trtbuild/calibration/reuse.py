"""Calibration files: what they belong to, when they may be used again, how parts are put together."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from calibrators import Calibration, merge_calibrations
from trtbuild.calibration.histograms import collect
from trtbuild.calibration.network import observed_network
from trtbuild.data import DataDigest, first_samples
from trtbuild.errors import DataError, InputError, decoding, in_one_tree
from trtbuild.model import graph_digest, weights_digest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import onnx_ir as ir

    from trtbuild.data import Source

__all__ = [
    "Drift",
    "changes_since",
    "load_calibration",
    "merge_files",
    "provenance_of",
    "spot_check",
]


def provenance_of(source: ir.Model) -> dict[str, str]:
    """What ties a calibration to a network: digests of its graph and of its weights."""
    return {"model_graph": graph_digest(source), "model_weights": weights_digest(source)}


def load_calibration(path: Path, source: ir.Model) -> Calibration:
    """Read the calibration file at `path`, which must have been made from the graph of `source`.

    Weights and preprocessing may have changed since; `changes_since` says so.

    Raises:
        InputError: it cannot be read, or belongs to another graph.
    """
    calibration = _read(path)
    there, here = calibration.provenance.get("model_graph"), graph_digest(source)
    if there != here:
        raise InputError(
            f"the calibration '{path}' belongs to another graph ({_short(there)}, this network is "
            f"{_short(here)}); calibrate again."
        )
    return calibration


def changes_since(calibration: Calibration, source: ir.Model, preprocess: str) -> tuple[str, ...]:
    """What is not as it was when `calibration` was made: ``weights``, ``preprocessing``, or nothing."""
    now = {
        "weights": ("model_weights", weights_digest(source)),
        "preprocessing": ("preprocess", preprocess),
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
    calibration: Calibration, model: ir.Model, samples: Source, count: int = 16
) -> Drift:
    """Run a few samples through `model` and hold what its tensors hold against `calibration`.

    A few samples rarely reach the largest magnitude of all, so ratios somewhat below 1 are no drift.

    Raises:
        DataError: as `trtbuild.calibration.collect`.
    """
    names = [name for name, given in calibration.ranges.items() if given.observed_amax > 0]
    seen = collect(observed_network(model, names), first_samples(samples, count))
    now = {name: seen.together.histograms[name].observed_amax for name in names}
    ratios = {name: now[name] / calibration.ranges[name].observed_amax for name in names}
    furthest = sorted(names, key=lambda name: -abs(math.log(max(ratios[name], 1e-9))))
    return Drift(seen.num_samples, {name: ratios[name] for name in furthest})


def merge_files(paths: Sequence[Path]) -> Calibration:
    """Put the parts of a sharded calibration together; equal to one run over all the data.

    Raises:
        InputError: a part cannot be read or keeps no histograms, or the parts do not belong together.
    """
    parts = [_read(path) for path in paths]
    if not parts:
        raise InputError("there is no part to merge.")
    first = {k: v for k, v in parts[0].provenance.items() if k not in _ADDED}
    for path, part in zip(paths, parts):
        for key in (*first, *part.provenance):
            if key not in _ADDED and part.provenance.get(key) != first.get(key):
                raise InputError(
                    f"'{path}' has another {key} than '{paths[0]}'; calibrate all parts alike."
                )
    data = functools.reduce(DataDigest.merge, map(_data_of, paths, parts))
    provenance = {**first, "data": str(data), "num_samples": str(data.num_samples)}
    with in_one_tree("these parts cannot be merged: "):
        return merge_calibrations(parts, provenance)


_ADDED = ("data", "num_samples")


def _data_of(path: Path, part: Calibration) -> DataDigest:
    with decoding(InputError, f"'{path}' does not say which data it was made on"):
        return DataDigest.from_text(part.provenance["data"], int(part.provenance["num_samples"]))


def _read(path: Path) -> Calibration:
    with decoding(DataError, f"cannot read the calibration '{path}'"):
        content = path.read_bytes()
    with in_one_tree(f"'{path}' is no calibration file: "):
        return Calibration.from_bytes(content)


def _short(digest: str | None) -> str:
    return digest.split(":")[-1][:12] if digest else "unknown"
