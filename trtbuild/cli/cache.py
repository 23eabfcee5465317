"""``trtbuild cache``: look at TensorRT calibration caches, compare them, carry them to 11 and back."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape
from rich.table import Table

from trtbuild.cli.output import Output, output_options
from trtbuild.errors import InputError, OptionError, in_one_tree
from trtbuild.files import write_bytes

if TYPE_CHECKING:
    from calibrators.cache import CalibrationCache
    from trtbuild.migration import Migration

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
    table = Table("tensor", "scale", "amax", title=f"{file}: {cache.header}", title_justify="left")
    for name, scale in cache.scales.items():
        table.add_row(escape(name), f"{scale:.9g}", f"{127 * float(scale):.9g}")
    out.say(table)
    out.result(
        {
            "header": cache.header,
            "version": cache.version,
            "algorithm": cache.algorithm,
            "tensors": {name: _numbers(scale) for name, scale in cache.scales.items()},
        }
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
    table = Table("tensor", str(first), str(second), "ratio")
    for name, ratio in sorted(changed.items(), key=lambda item: -abs(math.log(item[1] or 1e-300))):
        table.add_row(
            escape(name), f"{a.scales[name]:.9g}", f"{b.scales[name]:.9g}", f"{ratio:.4f}"
        )
    for place, names in enumerate(alone.values()):
        for name in names:
            table.add_row(escape(name), *(["", "absent"] if place == 0 else ["absent", ""]), "")
    equal = not changed and not any(alone.values())
    shared = len(a.scales.keys() & b.scales.keys())
    out.say(f"{shared} tensors in both, {len(changed)} of them differ", *([] if equal else [table]))
    headers = {"first": a.header, "second": b.header}
    out.result({"equal": equal, "headers": headers, "changed": changed, "only_in": alone})
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
    out.say(*_report(migration), "wrote " + ", ".join(str(file) for file in files))
    out.result({"files": [str(file) for file in files], **details})


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


def _numbers(scale: Any) -> dict[str, float | None]:
    """Scale and amax; JSON has no infinity."""
    value = float(scale)
    finite = math.isfinite(value)
    return {"scale": value if finite else None, "amax": 127 * value if finite else None}


def _equal(first: float, second: float, tolerance: float) -> bool:
    return first == second or abs(first - second) <= tolerance * max(abs(first), abs(second))


def _report(migration: Migration) -> list[Any]:
    counts = Table("scales", "what became of them")
    for fate, count in migration.counts().items():
        counts.add_row(str(count), fate)
    parts: list[Any] = [counts]
    lost = [entry for entry in migration.entries if entry.fate.is_lost]
    if lost:
        table = Table("lost scale", "why")
        for entry in lost:
            table.add_row(escape(entry.name), str(entry.fate).removeprefix("lost: "))
        parts.append(table)
    floats = [d for d in migration.decisions if "the cache has no scale" in d.reason]
    if floats:
        table = Table("layer that stays float", "why")
        for decision in floats:
            table.add_row(escape(decision.node), escape(decision.reason))
        parts.append(table)
    if migration.without_scale:
        parts.append(
            f"without a scale, so float in TensorRT: {escape(', '.join(migration.without_scale))}"
        )
    return parts
