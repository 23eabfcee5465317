"""Advice on calibration data: near-duplicates, outliers, and the few samples that give the same ranges."""

from __future__ import annotations

import io
import itertools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from calibrators import Calibration
from trtbuild.calibration import check_method
from trtbuild.calibration.advice import (
    Outlier,
    SampleRecorder,
    all_as_good,
    near_duplicates,
    order_by_use,
    outliers,
)
from trtbuild.calibration.kept_histograms import KeptHistograms
from trtbuild.calibration.network import observed_network
from trtbuild.calibration.observe import observe
from trtbuild.data import calibration_source, load_feeds
from trtbuild.data.split import samples_of
from trtbuild.errors import DataError, ModelError, OptionError, in_one_tree
from trtbuild.files import write_bytes, write_text
from trtbuild.jobs.loading import load, prepare
from trtbuild.jobs.paths import check_paths, data_inputs, named_inputs
from trtbuild.json_codec import Document
from trtbuild.machine import usable_cpus
from trtbuild.model import input_specs
from trtbuild.options.calibrate import AS_TENSORRT, DEFAULT_RULE, CalibrateOptions
from trtbuild.progress import Progress, silent, with_progress
from trtbuild.quantization import watched_tensors
from trtbuild.runtime.blocked_layout import open_blocked
from trtbuild.search.bisect import shortest_prefix
from trtbuild.visible import as_written, visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from trtbuild.artifact import Artifact
    from trtbuild.calibration.advice import SampleStatistics
    from trtbuild.data import Sample, Source
    from trtbuild.jobs.paths import Besides
    from trtbuild.recipes import AdviseRecipe

__all__ = ["DataAdvice", "advise"]


@dataclass(frozen=True)
class DataAdvice(Document):
    """Advice on calibration data.

    Attributes:
        data: where the data comes from.
        num_samples: number of distinct samples.
        num_tensors: number of observed tensors.
        repeated: number of samples that are equal, to the bit, to an earlier one.
        copies: groups of samples that are equal to the bit, by name, in the order of the data.
        duplicates: groups of near-duplicate samples; the first of each group suffices.
        outliers: samples that alone decide ranges.
        rule: threshold rule for the subset.
        within: by how much the subset's thresholds may differ, as a share.
        subset: names of the smallest set found that gives all thresholds; all samples if none is smaller.
        file: file with the subset; empty if it was not asked for.
    """

    SCHEMA = "trtbuild.advice"

    data: str
    num_samples: int
    num_tensors: int
    repeated: int
    copies: tuple[tuple[str, ...], ...]
    duplicates: tuple[tuple[str, ...], ...]
    outliers: tuple[Outlier, ...]
    rule: str
    within: float
    subset: tuple[str, ...]
    file: str = ""


@in_one_tree()
def advise(
    recipe: AdviseRecipe, progress: Progress = silent, besides: Besides | None = None
) -> DataAdvice:
    """Analyse a network's calibration data, and write the subset if asked for.

    Args:
        recipe: the network, its data, and the rule.
        progress: called after every sample.
        besides: other files that the command reads and writes.

    Raises:
        ModelError: the network cannot be read, or nothing of it would run in INT8.
        DataError: there is no data, or a sample cannot be loaded.
        OptionError: the rule is unknown or depends on the order of samples, or the subset's file has no known
            suffix.
        OutputError: the file cannot be written.
    """
    rule = recipe.method or DEFAULT_RULE
    options = CalibrateOptions(method=rule)
    if rule == AS_TENSORRT:
        raise OptionError(f"{AS_TENSORRT} depends on the order of all samples; name another rule.")
    check_method(options)
    if recipe.subset is not None and recipe.subset.suffix not in (".npz", ".txt"):
        raise OptionError(f"'{recipe.subset}': a subset is written as .npz or, its names, as .txt.")
    reads = (*named_inputs(the_network=recipe.model), *data_inputs(recipe.data))
    check_paths(reads, [recipe.subset], besides)
    artifact = prepare(load(recipe.model, recipe.data.batch_axes))
    source = calibration_source(recipe.data, input_specs(artifact.source))
    tensors = tuple(sorted(watched_tensors(artifact.model)))
    if not tensors:
        raise ModelError(
            f"no layer of '{recipe.model}' would run in INT8, so its data decide nothing."
        )
    samples, kept = _look(artifact, source, tensors, progress)
    few = _fewest(samples, kept, options, recipe.within, progress)
    if recipe.subset is not None:
        chosen = samples_of(source, [samples.keys[k] for k in few])
        _write(_once(chosen), recipe.subset, recipe.data.data)
    groups = near_duplicates(samples)
    return DataAdvice(
        data=source.description,
        num_samples=len(samples.names),
        num_tensors=len(tensors),
        repeated=len(source.index) - len(samples.names),
        copies=samples.copies,
        duplicates=tuple(tuple(samples.names[k] for k in group) for group in groups),
        outliers=outliers(samples),
        rule=rule,
        within=recipe.within,
        subset=tuple(samples.names[k] for k in few),
        file="" if recipe.subset is None else str(recipe.subset),
    )


def _look(
    artifact: Artifact, source: Source, tensors: tuple[str, ...], progress: Progress
) -> tuple[SampleStatistics, list[KeptHistograms]]:
    """Run every sample once."""
    network = observed_network(artifact.model, tensors)
    parts = [SampleRecorder(tensors) for _ in range(usable_cpus())]
    observe(
        open_blocked(network.model, threads=1),
        with_progress(source, "calibrate", len(source.index), progress),
        parts,
        static_batch=network.static_batch,
    )
    return SampleRecorder.together(parts), [part.kept for part in parts]


def _fewest(
    samples: SampleStatistics,
    kept: Sequence[KeptHistograms],
    options: CalibrateOptions,
    share: float,
    progress: Progress,
) -> list[int]:
    """The shortest head of the samples, in three orders, that gives the thresholds of all samples."""
    tried = itertools.count(1)

    def calibrated(places: Sequence[int]) -> Calibration:
        found = KeptHistograms.together(kept, [samples.keys[k] for k in places])
        seen = {name: one for name, one in found.items() if one.num_values}
        progress("subsets", next(tried), None)
        return Calibration.from_histograms(seen, options.rule, options=options.method_options)

    orders = [order_by_use(samples, share, covers=covers) for covers in (True, False)]
    orders.append(list(range(len(samples.keys))))  # sorted by digest, that is, at random
    whole = calibrated(orders[0])

    def suffices(head: Sequence[int]) -> bool:
        return all_as_good(whole, calibrated(head).amaxes, share)

    return min((order[: shortest_prefix(order, suffices)] for order in orders), key=len)


def _once(samples: Iterable[Sample]) -> Iterator[Sample]:
    """The samples without those whose content came before."""
    seen: set[bytes] = set()
    for sample in samples:
        if sample.key not in seen:
            seen.add(sample.key)
            yield sample


def _write(chosen: Iterable[Sample], path: Path, data: object) -> None:
    """Write the samples as the network takes them, one array per input, or write their names."""
    if path.suffix == ".txt":
        lines = (_line(sample.name, path, data) for sample in chosen)
        write_text(path, "".join(f"{line}\n" for line in lines))
        return
    found: dict[str, list[np.ndarray]] = {}
    axes: Mapping[str, int | None] = {}
    for sample in chosen:
        axes = sample.axes
        for name, array in load_feeds(sample).items():
            found.setdefault(name, []).append(array)
    shapes = {name: {a.shape for a in arrays} for name, arrays in found.items()}
    unlike = next((name for name, kinds in shapes.items() if len(kinds) > 1), None)
    if unlike is not None:
        raise DataError(
            f"samples of '{unlike}' differ in shape, so they fit no array; write their names instead: "
            f"'{path.with_suffix('.txt')}'."
        )
    whole = {}
    for name, arrays in found.items():
        axis = axes.get(name, 0)
        whole[name] = arrays[0] if axis is None else np.concatenate(arrays, axis)
    write_bytes(path, _npz(whole))


def _line(name: str, listed: Path, data: object) -> str:
    """The path of an image, relative to the list's folder; else the sample's name."""
    place = Path(data) if isinstance(data, str | Path) else None
    if place is None or not place.exists():
        return name
    folders = (place,) if place.is_dir() else (place.parent, Path())
    files = (folder / one for folder in folders for one in (name, as_written(name)))
    file = next((one for one in files if one.is_file()), None)
    if file is None:
        return name
    seen = visible(os.path.relpath(file.absolute(), listed.parent.absolute()))
    # a comment, or a space that is taken for one around the name
    return f"./{seen}" if seen.startswith(("#", " ")) else seen


def _npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type]
    return content.getvalue()
