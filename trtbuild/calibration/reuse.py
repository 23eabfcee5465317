"""Calibration files: what they belong to, when they may be used again, how parts are put together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calibrators import Calibration, CalibratorError, merge_calibrations
from trtbuild.data import added_digests
from trtbuild.errors import DataError, InputError
from trtbuild.model import graph_digest, weights_digest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import onnx_ir as ir

__all__ = ["load_calibration", "merge_files", "provenance_of"]


def provenance_of(source: ir.Model) -> dict[str, str]:
    """What ties a calibration to a network: digests of its graph and of its weights."""
    return {"model_graph": graph_digest(source), "model_weights": weights_digest(source)}


def load_calibration(path: Path, source: ir.Model) -> Calibration:
    """Read the calibration file at `path`, which must have been made from the network `source`.

    Raises:
        InputError: it cannot be read, or belongs to another network; the message says what differs.
    """
    calibration = _read(path)
    for key, here in provenance_of(source).items():
        there = calibration.provenance.get(key)
        if there != here:
            what = {"model_graph": "another graph", "model_weights": "other weights"}[key]
            raise InputError(
                f"the calibration '{path}' belongs to {what} ({key} {_short(there)}, this network has "
                f"{_short(here)}); calibrate again."
            )
    return calibration


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
        for key, value in first.items():
            if part.provenance.get(key) != value:
                raise InputError(
                    f"'{path}' has another {key} than '{paths[0]}'; calibrate all parts alike."
                )
    provenance = {
        **first,
        "data": added_digests(part.provenance["data"] for part in parts),
        "num_samples": str(sum(int(part.provenance["num_samples"]) for part in parts)),
    }
    try:
        return merge_calibrations(parts, provenance)
    except CalibratorError as error:
        raise InputError(f"these parts cannot be merged: {error}") from error


_ADDED = ("data", "num_samples")


def _read(path: Path) -> Calibration:
    try:
        return Calibration.from_bytes(path.read_bytes())
    except OSError as error:
        raise DataError(f"cannot read the calibration '{path}': {error.strerror}.") from error
    except CalibratorError as error:
        raise InputError(f"'{path}' is no calibration file: {error}") from error


def _short(digest: str | None) -> str:
    return digest.split(":")[-1][:12] if digest else "unknown"
