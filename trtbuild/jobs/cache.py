"""TensorRT's calibration caches: read, compared, converted to Q/DQ for TensorRT 11 and back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from calibrators.quantization_error import LEVELS
from trtbuild.calibration.thresholds import cache_from
from trtbuild.errors import InputError, OptionError, decoding, in_one_tree
from trtbuild.files import content_of, write_bytes
from trtbuild.jobs.paths import check_paths, named_inputs
from trtbuild.json_codec import Document
from trtbuild.migration import to_cache, to_qdq
from trtbuild.model import read_model, write_model
from trtbuild.quantization.half import to_half

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from calibrators.cache import CalibrationCache
    from trtbuild.migration import Entry, Migration
    from trtbuild.plan import Decision
    from trtbuild.quantization.half import KeptFloat
    from trtbuild.recipes import CacheDiffRecipe, ConvertRecipe

__all__ = [
    "CacheContent",
    "CacheDiff",
    "CacheName",
    "CacheScale",
    "Converted",
    "ScaleChange",
    "cache_content",
    "compare_caches",
    "convert",
    "read_cache",
]

# The first line is TRT-<version>-<algorithm>.
_CACHE_BEGINS = b"TRT-"


@dataclass(frozen=True)
class CacheScale:
    """The scale of one tensor, and the amax that it stands for."""

    scale: float
    amax: float


@dataclass(frozen=True)
class CacheContent(Document):
    """The content of a calibration cache.

    Attributes:
        file: the cache.
        header: its first line.
        tensorrt_version: digits of the TensorRT version that wrote it, 100300 for 10.3.0; empty for the
            legacy calibrator.
        algorithm: the calibrator, such as ``EntropyCalibration2``.
        tensors: tensor -> its scale and amax, in the order of the file.
    """

    SCHEMA = "trtbuild.cache"

    file: Path
    header: str
    tensorrt_version: str
    algorithm: str
    tensors: Mapping[str, CacheScale]


@dataclass(frozen=True)
class CacheName:
    """One of two caches: its file and its first line."""

    file: Path
    header: str


@dataclass(frozen=True)
class ScaleChange:
    """A tensor with another scale in the second cache.

    Attributes:
        tensor: its name.
        first_scale, second_scale: its scale in both.
        ratio: second scale / first scale; infinite if the first is 0.
    """

    tensor: str
    first_scale: float
    second_scale: float
    ratio: float


@dataclass(frozen=True)
class CacheDiff(Document):
    """The differences of two caches.

    Attributes:
        equal: whether both have the same tensors with the same scales.
        first, second: the caches.
        num_shared: number of tensors that both have.
        changed: tensors whose scales differ, in the order of the first cache.
        only_first, only_second: tensors that only this cache has.
    """

    SCHEMA = "trtbuild.cache_diff"

    equal: bool
    first: CacheName
    second: CacheName
    num_shared: int
    changed: tuple[ScaleChange, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]


@dataclass(frozen=True)
class Converted(Document):
    """A network in its new form.

    Attributes:
        files: the written files.
        counts: what happened -> to how many scales.
        scales: what happened to every scale.
        layers: for every node, whether it is INT8 in the Q/DQ network, and why; empty for a cache.
        without_scale: tensors of the plain network without a scale; their layers run in float.
        kept_fp32: nodes that FP16 would spoil, and why; None if FP16 was not asked for.
    """

    SCHEMA = "trtbuild.cache_conversion"

    files: tuple[Path, ...]
    counts: Mapping[str, int]
    scales: tuple[Entry, ...]
    layers: tuple[Decision, ...]
    without_scale: tuple[str, ...]
    kept_fp32: tuple[KeptFloat, ...] | None


def read_cache(path: Path) -> CalibrationCache:
    """Read a TensorRT calibration cache.

    Raises:
        InputError: it cannot be read, or is not a cache.
        OptionError: it is a network.
    """
    if path.suffix == ".onnx":
        raise OptionError(
            f"'{path}' is a network, but a calibration cache is expected; "
            "`cache convert` takes the cache first, then the network."
        )
    with decoding(InputError, f"the cache '{path}' cannot be read"):
        content = content_of(path)
    with in_one_tree(f"'{path}': "):
        return cache_from(content, path)


def cache_content(path: Path) -> CacheContent:
    """Read every scale of a TensorRT calibration cache.

    Raises:
        InputError: it cannot be read, or is not a cache.
        OptionError: it is a network.
    """
    cache = read_cache(path)
    scales = {name: float(scale) for name, scale in cache.scales.items()}
    tensors = {name: CacheScale(scale, LEVELS * scale) for name, scale in scales.items()}
    return CacheContent(path, cache.header, cache.version, cache.algorithm, tensors)


def compare_caches(recipe: CacheDiffRecipe) -> CacheDiff:
    """Compare two caches tensor by tensor.

    Raises:
        InputError: a cache cannot be read, or is not a cache.
    """
    first, second = read_cache(recipe.first), read_cache(recipe.second)
    shared = [name for name in first.scales if name in second.scales]
    changed = []
    for name in shared:
        one, other = float(first.scales[name]), float(second.scales[name])
        if one != other and not abs(one - other) <= recipe.tolerance * max(abs(one), abs(other)):
            changed.append(ScaleChange(name, one, other, other / one if one else math.inf))
    only_first = tuple(name for name in first.scales if name not in second.scales)
    only_second = tuple(name for name in second.scales if name not in first.scales)
    return CacheDiff(
        equal=not (changed or only_first or only_second),
        first=CacheName(recipe.first, first.header),
        second=CacheName(recipe.second, second.header),
        num_shared=len(shared),
        changed=tuple(changed),
        only_first=only_first,
        only_second=only_second,
    )


@in_one_tree()
def convert(recipe: ConvertRecipe) -> Converted:
    """Convert a cache and its network into a Q/DQ network, or a Q/DQ network into a plain one and a cache.

    Raises:
        ModelError: a network cannot be read.
        InputError: the cache cannot be read.
        OptionError: a cache was given without its network, a pattern does not fit the network, or the
            version is not a version.
        OutputError: a file cannot be written.
    """
    beside = recipe.output.with_suffix(".cache") if recipe.model is None else None
    reads = named_inputs(the_source=recipe.source, the_network=recipe.model)
    check_paths(reads, [recipe.output, beside])
    if recipe.model is None:
        _check_is_network(recipe.source)
        migration = to_cache(read_model(recipe.source), recipe.tensorrt_version)
        assert migration.cache is not None
        files = write_model(migration.model, recipe.output)
        path = recipe.output.with_suffix(".cache")
        write_bytes(path, migration.cache.to_bytes())
        return _converted(migration, (*files, path))
    cache = read_cache(recipe.source)
    migration = to_qdq(read_model(recipe.model), cache, recipe.float_patterns)
    if not recipe.fp16:
        return _converted(migration, tuple(write_model(migration.model, recipe.output)))
    half, kept = to_half(migration.model, cache.amaxes)
    return _converted(migration, tuple(write_model(half, recipe.output)), tuple(kept))


def _converted(
    migration: Migration, files: tuple[Path, ...], kept_fp32: tuple[KeptFloat, ...] | None = None
) -> Converted:
    return Converted(
        files=files,
        counts=migration.counts(),
        scales=migration.entries,
        layers=migration.decisions,
        without_scale=migration.without_scale,
        kept_fp32=kept_fp32,
    )


def _check_is_network(path: Path) -> None:
    """Refuse a cache where a network is needed: its scales need the network that they belong to."""
    if not path.is_file():
        return  # an error when the network is read
    with path.open("rb") as file:
        begins_as_cache = file.read(len(_CACHE_BEGINS)) == _CACHE_BEGINS
    if begins_as_cache:
        raise OptionError(
            f"'{path}' is a calibration cache: name the float network that it was made for after it."
        )
