"""``trtbuild cache``: look at TensorRT calibration caches, compare them, carry them to 11 and back."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trtbuild.cli.output import Output, output_options
from trtbuild.errors import InputError, OptionError, in_one_tree
from trtbuild.files import write_bytes
from trtbuild.report.model import Line, Report, Section, Table, names, numbers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from calibrators.cache import CalibrationCache
    from trtbuild.migration import Migration
    from trtbuild.report.model import Block

__all__ = ["command"]

_PATH = click.Path(path_type=Path, dir_okay=False)


@click.group("cache")
def command() -> None:
    """Show, compare and convert TensorRT calibration caches."""


@command.command("show")
@click.argument("file", type=_PATH)
@output_options
def show(*, file: Path, out: Output) -> None:
    """Print every tensor of a cache with its scale and amax."""
    cache = _read(file)
    scales = {name: float(scale) for name, scale in cache.scales.items()}
    rows = tuple((name, f"{scale:.9g}", f"{127 * scale:.9g}") for name, scale in scales.items())
    out.show(
        Report(
            title=f"scales of {file.name}",
            facts={str(file): cache.header},
            sections=(
                Section("Scales", (Table((*names("tensor"), *numbers("scale", "amax")), rows),)),
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
    )


@command.command("diff")
@click.argument("first", type=_PATH)
@click.argument("second", type=_PATH)
@click.option("--tolerance", type=float, default=0.0, show_default=True,
              help="Relative difference up to which scales are equal.")  # fmt: skip
@output_options
def diff(*, first: Path, second: Path, tolerance: float, out: Output) -> int:
    """Compare two caches tensor by tensor; exit code 1 when they differ."""
    a, b = _read(first), _read(second)
    changed = {
        name: float(b.scales[name]) / float(a.scales[name]) if a.scales[name] else math.inf
        for name in a.scales
        if name in b.scales and not _equal(float(a.scales[name]), float(b.scales[name]), tolerance)
    }
    alone = {
        str(first): [name for name in a.scales if name not in b.scales],
        str(second): [name for name in b.scales if name not in a.scales],
    }
    rows = [
        (name, f"{a.scales[name]:.9g}", f"{b.scales[name]:.9g}", f"{ratio:.4f}")
        for name, ratio in sorted(
            changed.items(), key=lambda item: -abs(math.log(item[1] or 1e-300))
        )
    ]
    rows += [(name, "", "absent", "") for name in alone[str(first)]]
    rows += [(name, "absent", "", "") for name in alone[str(second)]]
    equal = not changed and not any(alone.values())
    shared = len(a.scales.keys() & b.scales.keys())
    summary = Line(f"{shared} tensors in both, {len(changed)} of them differ")
    columns = (*names("tensor"), *numbers(str(first), str(second), "ratio"))
    headers = {"first": a.header, "second": b.header}
    out.show(
        Report(
            title=f"{first.name} against {second.name}",
            sections=(Section("Scales", (summary, Table(columns, tuple(rows)))),),
            data={"equal": equal, "headers": headers, "changed": changed, "only_in": alone},
        )
    )
    return 0 if equal else 1


@command.command("convert")
@click.argument("source", type=_PATH)
@click.argument("model", type=_PATH, required=False)
@click.option("-o", "--output", type=_PATH, required=True, help="ONNX file to write.")
@click.option("--fp16", is_flag=True, help="Towards Q/DQ: what is not INT8 computes in FP16.")
@click.option("--float", "float_patterns", multiple=True, metavar="PATTERN",
              help="Towards Q/DQ: keep layers in float. Repeatable.")  # fmt: skip
@click.option("--tensorrt", "version", default="10.16.1", show_default=True,
              help="Towards a cache: the version that will read it.")  # fmt: skip
@output_options
def convert(
    *,
    source: Path,
    model: Path | None,
    output: Path,
    fp16: bool,
    float_patterns: tuple[str, ...],
    version: str,
    out: Output,
) -> None:
    """Turn a cache and its network into a Q/DQ network, or a Q/DQ network into both.

    With SOURCE a cache and MODEL the float network that it was made for, the Q/DQ network for TensorRT
    11 is written. With SOURCE a Q/DQ network alone, the plain network is written and its calibration
    cache beside it, for DLA and TensorRT 10.
    """
    from trtbuild.migration import to_cache, to_qdq
    from trtbuild.model import read_model, write_model
    from trtbuild.quantization.half import to_half

    if model is None:
        migration = to_cache(read_model(source), version)
        files = write_model(migration.model, output)
        assert migration.cache is not None
        cache = output.with_suffix(".cache")
        write_bytes(cache, migration.cache.to_bytes())
        files.append(cache)
        details = migration.to_json()
    else:
        given = _read(source)
        migration = to_qdq(read_model(model), given, float_patterns)
        details = migration.to_json()
        written = migration.model
        if fp16:
            written, kept = to_half(written, given.amaxes)
            details["kept_fp32"] = [{"node": k.node, "reason": k.reason} for k in kept]
        files = write_model(written, output)
    wrote = Line("wrote " + ", ".join(str(file) for file in files))
    out.show(
        Report(
            title=f"{source.name}, converted",
            sections=(Section("Scales", (*_parts(migration), wrote)),),
            data={"files": files, **details},
        )
    )


def _read(path: Path) -> CalibrationCache:
    from calibrators.cache import CalibrationCache

    if path.suffix == ".onnx":
        raise OptionError(f"'{path}' is a network; give the cache first, then the network.")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"the cache '{path}' cannot be read: {error.strerror}.") from error
    with in_one_tree(f"'{path}': "):
        return CalibrationCache.from_bytes(content)


def _equal(first: float, second: float, tolerance: float) -> bool:
    return first == second or abs(first - second) <= tolerance * max(abs(first), abs(second))


def _parts(migration: Migration) -> Iterator[Block]:
    counts = tuple((str(count), str(fate)) for fate, count in migration.counts().items())
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
