"""The results of ``trtbuild cache`` as reports."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from trtbuild.report.model import Line, Report, Section, Table, names, numbers
from trtbuild.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from calibrators.cache import CalibrationCache
    from trtbuild.jobs.cache import CacheDiff, Converted
    from trtbuild.migration import Migration
    from trtbuild.recipes import CacheDiffRecipe
    from trtbuild.report.model import Block

__all__ = ["cache_report", "conversion_report", "diff_report"]


def cache_report(file: Path, cache: CalibrationCache) -> Report:
    """Return every tensor of a cache with its scale and amax."""
    scales = {name: float(scale) for name, scale in cache.scales.items()}
    cells = tuple((name, f"{scale:.9g}", f"{127 * scale:.9g}") for name, scale in scales.items())
    return Report(
        title=f"scales of {file.name}",
        facts={str(file): cache.header},
        sections=(
            Section("Scales", (Table((*names("tensor"), *numbers("scale", "amax")), cells),)),
        ),
        data={
            "header": cache.header,
            "version": cache.version,
            "algorithm": cache.algorithm,
            "tensors": {
                name: {"scale": scale, "amax": 127 * scale} for name, scale in scales.items()
            },
        },
    )


def diff_report(recipe: CacheDiffRecipe, diff: CacheDiff) -> Report:
    """Return what two caches do not share, the scales that are farthest apart first."""
    first, second = str(recipe.first), str(recipe.second)
    a, b = diff.first.scales, diff.second.scales
    farthest = sorted(diff.changed.items(), key=lambda item: -abs(math.log(item[1] or 1e-300)))
    cells = (
        *((name, f"{a[name]:.9g}", f"{b[name]:.9g}", f"{ratio:.4f}") for name, ratio in farthest),
        *((name, "", "absent", "") for name in diff.only_first),
        *((name, "absent", "", "") for name in diff.only_second),
    )
    shared = len(a.keys() & b.keys())
    summary = Line(f"{counted(shared, 'tensor')} in both, {len(diff.changed)} with another scale")
    columns = (*names("tensor"), *numbers(first, second, "ratio"))
    return Report(
        title=f"{recipe.first.name} against {recipe.second.name}",
        sections=(Section("Scales", (summary, Table(columns, cells))),),
        data={
            "equal": diff.equal,
            "headers": {"first": diff.first.header, "second": diff.second.header},
            "changed": diff.changed,
            "only_in": {first: diff.only_first, second: diff.only_second},
        },
    )


def conversion_report(source: Path, done: Converted) -> Report:
    """Return what became of every scale, and what was written."""
    wrote = Line("wrote " + ", ".join(str(file) for file in done.files))
    return Report(
        title=f"{source.name}, converted",
        sections=(Section("Scales", (*_fates(done.migration), wrote)),),
        data=done.to_json(),
    )


def _fates(migration: Migration) -> Iterator[Block]:
    counts = tuple((str(count), fate) for fate, count in migration.counts().items())
    yield Table((*numbers("scales"), *names("what became of them")), counts)
    lost = tuple(
        (entry.name, str(entry.fate).removeprefix("lost: "))
        for entry in migration.entries
        if entry.fate.is_lost
    )
    yield Table(names("lost scale", "why"), lost)
    floats = tuple(
        (one.node, one.reason)
        for one in migration.decisions
        if "the cache has no scale" in one.reason
    )
    yield Table(names("layer that stays float", "why"), floats)
    if migration.without_scale:
        absent = ", ".join(migration.without_scale)
        yield Line(f"without a scale, so float in TensorRT: {absent}")
