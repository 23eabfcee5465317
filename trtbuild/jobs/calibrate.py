"""Calibrates a network on data, or merges the parts of a calibration; writes the ranges."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from calibrators.cache import CalibrationCache, version_digits
from trtbuild.calibration import calibrate, float_tensors, load_ahead, merge_files, opener
from trtbuild.calibration.reuse import part_of
from trtbuild.data import account_for, calibration_source, shard_of
from trtbuild.errors import in_one_tree
from trtbuild.files import write_bytes
from trtbuild.jobs.loading import load, prepare
from trtbuild.jobs.paths import check_paths, data_inputs, named_inputs
from trtbuild.json_codec import Document
from trtbuild.model import input_specs
from trtbuild.model.collecting import all_made_stays
from trtbuild.progress import Progress, silent
from trtbuild.quantization import watched_by_all_targets
from trtbuild.quantization.masks import reaches_minus_infinity
from trtbuild.runtime.onnxruntime import opening_beside

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from calibrators import Calibration
    from trtbuild.artifact import Artifact, EarlyStop
    from trtbuild.data import DataAccount
    from trtbuild.jobs.paths import Besides, Inputs
    from trtbuild.recipes import CalibrateRecipe, CalibrationFiles

__all__ = ["CalibrateResult", "Ranges", "ThresholdFigures", "calibrate_file", "merge_parts"]


@dataclass(frozen=True)
class ThresholdFigures:
    """The threshold of one tensor, and what it costs.

    Attributes:
        amax: the threshold.
        clipped_share: share of the values beyond it.
        sqnr_db: expected SQNR of the tensor.
    """

    amax: float
    clipped_share: float
    sqnr_db: float


@dataclass(frozen=True)
class Ranges(Document):
    """The ranges of a calibration, without their histograms.

    Attributes:
        files: the written files: the calibration file, then the cache and the plots if asked for.
        method: the threshold rule.
        num_samples: number of samples.
        amax: tensor -> its threshold.
        data: account of the data; None if none was read.
        spread: tensor -> by how much the thresholds of two halves of the data differ, as a share.
        until_stable: how a calibration that may stop early has ended; None if it may not.
        methods: method -> tensor -> the threshold that it would choose; None if not asked for.
    """

    SCHEMA = "trtbuild.ranges"

    files: tuple[Path, ...]
    method: str
    num_samples: int
    amax: Mapping[str, float]
    data: DataAccount | None
    spread: Mapping[str, float]
    until_stable: EarlyStop | None
    methods: Mapping[str, Mapping[str, ThresholdFigures]] | None


@dataclass(frozen=True)
class CalibrateResult:
    """The ranges, and what is known about them.

    Attributes:
        calibration: the ranges with their histograms.
        files: the written files: the calibration file, then the cache and the plots if asked for.
        halves_apart: tensor -> by how much the thresholds of two halves of the data differ, as a share.
        early_stop: how a calibration that may stop early has ended; None if it may not.
        data: account of the data; None if none was read.
    """

    calibration: Calibration
    files: tuple[Path, ...]
    halves_apart: Mapping[str, float] = field(default_factory=dict)
    early_stop: EarlyStop | None = None
    data: DataAccount | None = None

    def record(self, choices: Mapping[str, Calibration] | None = None) -> Ranges:
        """Return the part that programs read; `choices` are the ranges by every method, if asked for."""
        calibration = self.calibration
        return Ranges(
            files=self.files,
            method=calibration.method,
            num_samples=int(calibration.provenance["num_samples"]),
            amax={name: given.amax for name, given in calibration.ranges.items()},
            data=self.data,
            spread=self.halves_apart,
            until_stable=self.early_stop,
            methods=None if choices is None else {m: _figures(one) for m, one in choices.items()},
        )


def _figures(calibration: Calibration) -> dict[str, ThresholdFigures]:
    return {
        name: ThresholdFigures(given.amax, given.clipped_share, given.sqnr_db)
        for name, given in calibration.ranges.items()
    }


@in_one_tree()
def calibrate_file(
    recipe: CalibrateRecipe, progress: Progress = silent, besides: Besides | None = None
) -> CalibrateResult:
    """Calibrate the recipe's network on all of its data, and write the files.

    Args:
        recipe: the network, the data, and where the ranges go.
        progress: called after every batch.
        besides: other files that the command reads and writes.

    Raises:
        ModelError: the network cannot be read.
        DataError: there is no data, too little, or a sample cannot be loaded.
        InputError: the method or its options are unknown.
        OutputError: a file cannot be written.
    """
    # report wrong paths before hours of work
    _check(
        recipe.files, (*named_inputs(the_network=recipe.model), *data_inputs(recipe.data)), besides
    )
    options = replace(
        recipe.calibrate, batch_size=recipe.batch_size, preprocess=recipe.data.preprocess_text
    )
    with opening_beside() as beside:
        with all_made_stays():
            artifact, tensors = _observed(load(recipe.model, recipe.data.batch_axes), recipe)
        load_ahead()
        # ONNX Runtime opens a network without holding the interpreter's lock; this thread does the rest
        # meanwhile
        opened = beside.submit(opener(artifact.model, tensors, options))
        # in this thread, on which a user's functions may depend, and outside `all_made_stays`
        whole = calibration_source(recipe.data, input_specs(artifact.source))
        source = whole if recipe.shard is None else shard_of(whole, recipe.shard)
        account = account_for(recipe.data, calibrate=source)
        account = replace(account, may_stop_early=options.until_stable is not None)
        session = opened.result()
    artifact = calibrate(artifact, source, tensors, options, progress, session=session)
    calibration = artifact.calibration
    assert calibration is not None
    if recipe.shard is not None:
        which = part_of(recipe.shard, whole.index.digest)
        calibration = replace(calibration, provenance={**calibration.provenance, **which})
    return CalibrateResult(
        calibration,
        _write(calibration, recipe.files),
        artifact.halves_apart,
        artifact.early_stop,
        account,
    )


def _observed(artifact: Artifact, recipe: CalibrateRecipe) -> tuple[Artifact, tuple[str, ...]]:
    """The network to calibrate, and the tensors to observe."""
    if recipe.all_tensors:
        hidden = reaches_minus_infinity(artifact.model)
        return artifact, tuple(name for name in float_tensors(artifact.model) if name not in hidden)
    artifact = prepare(artifact)
    return artifact, watched_by_all_targets(artifact.model)  # the file serves every target


@in_one_tree()
def merge_parts(
    parts: Sequence[Path],
    files: CalibrationFiles,
    besides: Besides | None = None,
    *,
    partial: bool = False,
) -> CalibrateResult:
    """Merge the parts of a sharded calibration; the result equals that of one run, byte for byte.

    Args:
        parts: files of `calibrate_file` with a shard.
        files: where the whole goes.
        besides: other files that the command reads and writes.
        partial: whether parts may be missing; the result is then a part itself.

    Raises:
        InputError: a part cannot be read, is missing or given twice, or they do not belong together.
        OutputError: a file cannot be written.
    """
    _check(files, tuple(("a part", part) for part in parts), besides)
    calibration = merge_files(parts, partial=partial)
    return CalibrateResult(calibration, _write(calibration, files))


def _check(files: CalibrationFiles, reads: Inputs, besides: Besides | None) -> None:
    if files.cache is not None:
        version_digits(files.tensorrt_version)
    check_paths(reads, [files.output, files.cache], besides)
    if files.plot is not None:
        from trtbuild.plots.calibration import plot_folder

        plot_folder(files.plot)


def _write(calibration: Calibration, files: CalibrationFiles) -> tuple[Path, ...]:
    write_bytes(files.output, calibration.to_bytes(histograms=True))
    written = [files.output]
    if files.cache is not None:
        cache = CalibrationCache.from_calibration(
            calibration, version_digits(files.tensorrt_version)
        )
        write_bytes(files.cache, cache.to_bytes())
        written.append(files.cache)
    if files.plot is not None:
        from trtbuild.plots.calibration import calibration_plots, write_plots

        written.extend(write_plots(calibration_plots(calibration), files.plot))
    return tuple(written)
