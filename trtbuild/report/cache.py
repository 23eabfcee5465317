"""The results of ``trtbuild cache`` as reports."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from trtbuild.report.model import Line, Report, Section, Table, names, numbers
from trtbuild.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from trtbuild.jobs.cache import CacheContent, CacheDiff, Converted
    from trtbuild.report.model import Block

__all__ = ["cache_report", "conversion_report", "diff_report"]


def cache_report(cache: CacheContent) -> Report:
    """Return every tensor of a cache with its scale and amax."""
    cells = tuple(
        (name, f"{one.scale:.9g}", f"{one.amax:.9g}") for name, one in cache.tensors.items()
    )
    return Report(
        title=f"scales of {cache.file.name}",
        facts={str(cache.file): cache.header},
        sections=(
            Section("Scales", (Table((*names("tensor"), *numbers("scale", "amax")), cells),)),
        ),
        data=cache.to_json(),
    )


def diff_report(diff: CacheDiff) -> Report:
    """Return what two caches do not share, the scales that are farthest apart first."""
    first, second = diff.first.file, diff.second.file
    farthest = sorted(diff.changed, key=lambda one: -abs(math.log(one.ratio or 1e-300)))
    cells = (
        *(
            (one.tensor, f"{one.first_scale:.9g}", f"{one.second_scale:.9g}", f"{one.ratio:.4f}")
            for one in farthest
        ),
        *((name, "", "absent", "") for name in diff.only_first),
        *((name, "absent", "", "") for name in diff.only_second),
    )
    shared = counted(diff.num_shared, "tensor")
    summary = Line(f"{shared} in both, {len(diff.changed)} with another scale")
    columns = (*names("tensor"), *numbers(str(first), str(second), "ratio"))
    return Report(
        title=f"{first.name} against {second.name}",
        sections=(Section("Scales", (summary, Table(columns, cells))),),
        data=diff.to_json(),
    )


def conversion_report(source: Path, done: Converted) -> Report:
    """Return what became of every scale, and what was written."""
    wrote = Line("wrote " + ", ".join(str(file) for file in done.files))
    return Report(
        title=f"{source.name}, converted",
        sections=(Section("Scales", (*_fates(done), wrote)),),
        data=done.to_json(),
    )


def _fates(done: Converted) -> Iterator[Block]:
    counts = tuple((str(count), fate) for fate, count in done.counts.items())
    yield Table((*numbers("scales"), *names("what became of them")), counts)
    lost = tuple(
        (one.tensor, str(one.fate).removeprefix("lost: "))
        for one in done.scales
        if one.fate.is_lost
    )
    yield Table(names("lost scale", "why"), lost)
    floats = tuple(
        (one.node, one.reason) for one in done.layers if "the cache has no scale" in one.reason
    )
    yield Table(names("layer that stays float", "why"), floats)
    if done.without_scale:
        absent = ", ".join(done.without_scale)
        yield Line(f"without a scale, so float in TensorRT: {absent}")
