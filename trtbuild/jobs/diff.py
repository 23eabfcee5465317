"""Compares two engines of one model, each with the files that lie beside it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from trtbuild.diff.compare import Side, compare_sides
from trtbuild.diff.facts import NodeFacts, computing_nodes, facts_of, with_layers
from trtbuild.errors import InputError, MissingError, decoding, in_one_tree
from trtbuild.files import content_of
from trtbuild.jobs.figures import conditions_of, figures_of
from trtbuild.jobs.paths import check_paths, named_inputs
from trtbuild.latency.layer_times import read_layer_times
from trtbuild.manifest import SUFFIX, manifest_at, read_manifest
from trtbuild.model import read_model
from trtbuild.runtime.tensorrt.inspector import EngineLayers, inspect_plan, read_layers
from trtbuild.runtime.tensorrt.versions import product_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import onnx_ir as ir

    from trtbuild.diff.compare import EngineDiff
    from trtbuild.jobs.paths import Besides
    from trtbuild.latency.layer_times import LayerTimes
    from trtbuild.manifest import Manifest
    from trtbuild.options.tensorrt import OpenOptions
    from trtbuild.recipes import DiffRecipe

__all__ = ["diff_engines"]

_NETWORK, _QDQ, _LAYERS = ".onnx", ".int8.onnx", ".json"


@in_one_tree()
def diff_engines(recipe: DiffRecipe, besides: Besides | None = None) -> EngineDiff:
    """Return the differences between two engines or Q/DQ networks of one model, node by node.

    Args:
        recipe: the two engines, and times of their layers.
        besides: other files that the command writes.

    Raises:
        InputError: a file cannot be read, a folder holds no build or several, or the kinds of the two
            files cannot be compared.
        MissingError: a plan has no manifest beside it, and cannot be opened here.
    """
    named = named_inputs(
        the_engine_A=recipe.first,
        the_engine_B=recipe.second,
        the_times_of_A=recipe.first_times,
        the_times_of_B=recipe.second_times,
    )
    builds = [*_build_around("the engine A", recipe.first)]
    builds += _build_around("the engine B", recipe.second)
    check_paths((*named, *builds), [], besides)
    first = _side(recipe.first, recipe.first_times, recipe.tensorrt)
    second = _side(recipe.second, recipe.second_times, recipe.tensorrt)
    return compare_sides(first, second, recipe.tolerance)


def _build_around(what: str, path: Path) -> Iterator[tuple[str, Path]]:
    """The files that are read for a build, if its folder, its manifest or one of its files is given."""
    folder = path if path.is_dir() else path.parent
    for manifest in folder.glob(f"*{SUFFIX}"):
        yield f"the manifest of {what}", manifest
        record = _manifest_or_none(manifest)
        for name in () if record is None else record.files:
            yield f"a file of the build of {what}", folder / name


def _side(path: Path, times: Path | None, options: OpenOptions) -> Side:
    side = _read(path, options)
    return side if times is None else _timed(side, read_layer_times(times))


def _read(path: Path, options: OpenOptions) -> Side:
    if path.is_dir():
        return _of_manifest(manifest_at(path), str(path))
    if path.name.endswith(SUFFIX):
        return _of_manifest(path, str(path))
    if path.suffix == _NETWORK:
        return _of_network(path)
    if path.suffix == _LAYERS:
        return _of_layers(path, _layers_in(path))
    return _of_plan(path, options)


def _of_manifest(path: Path, name: str) -> Side:
    """A build's own record, with its Q/DQ network if that still exists."""
    manifest = read_manifest(path)
    network = next((name for name in manifest.files if name.endswith(_QDQ)), "")
    built = manifest.files.get(manifest.engine.file)
    size = 0 if built is None else built.bytes
    side = _with_manifest(Side(name, manifest.engine.file, size, ()), manifest)
    if network and _is_recorded(path.with_name(network), manifest):
        model = read_model(path.with_name(network))
        facts = _with_reasons(model, manifest)
        nodes = _with_recorded_layers(facts, manifest)
        return replace(side, model=model, nodes=nodes, network=network)
    asked = tuple(
        NodeFacts(one.node, one.op_type, "INT8" if one.int8 else "float", reason=one.reason)
        for one in manifest.layers
    )
    missing = f"no Q/DQ network lies beside '{path.name}', so its manifest alone tells of each node"
    return replace(side, nodes=_with_recorded_layers(asked, manifest), unknown=missing)


def _of_network(path: Path) -> Side:
    model = read_model(path)
    side = Side(str(path), path.name, path.stat().st_size, (), model, network=path.name)
    for beside in sorted(path.parent.glob(f"*{SUFFIX}")):
        manifest = _manifest_or_none(beside)
        if manifest is not None and _is_recorded(path, manifest):
            with_figures = _with_manifest(side, manifest)
            return replace(with_figures, nodes=_with_reasons(model, manifest))
    return replace(side, nodes=tuple(map(facts_of, computing_nodes(model))))


def _of_layers(path: Path, layers: EngineLayers, unknown: str = "") -> Side:
    names = dict.fromkeys(node for layer in layers.layers for node in layer.nodes)
    nodes = tuple(with_layers(NodeFacts(name, ""), layers) for name in names)
    return Side(str(path), path.name, path.stat().st_size, nodes, unknown=unknown)


def _layers_in(path: Path) -> EngineLayers:
    with decoding(InputError, f"'{path}' cannot be read"):
        return read_layers(content_of(path).decode(), f"'{path}'")


def _of_plan(path: Path, options: OpenOptions) -> Side:
    """A plan: from the manifest beside it, and from its own layers if it can be opened."""
    with decoding(InputError, f"the engine '{path}' cannot be read"):
        size = path.stat().st_size
    for beside in sorted(path.parent.glob(f"*{SUFFIX}")):
        manifest = _manifest_or_none(beside)
        if manifest is not None and _is_recorded(path, manifest):
            side = replace(_of_manifest(beside, str(path)), file=path.name, num_bytes=size)
            return side if _recorded_layers(manifest).layers else _opened(side, path, options)
    return _of_layers(path, inspect_plan(path, options, product_of(path)))


def _opened(side: Side, path: Path, options: OpenOptions) -> Side:
    try:
        layers = inspect_plan(path, options, product_of(path))
    except MissingError as error:
        told = f"the plan was built and never opened, so what runs is not known: {error}"
        return replace(side, unknown="; ".join(filter(None, (side.unknown, told))))
    return replace(side, nodes=tuple(with_layers(node, layers) for node in side.nodes))


def _manifest_or_none(path: Path) -> Manifest | None:
    """A manifest beside a given file; None if it is not one of ours, or is damaged."""
    try:
        return read_manifest(path)
    except InputError:
        return None


def _is_recorded(path: Path, manifest: Manifest) -> bool:
    return path.is_file() and manifest.knows(path)


def _with_reasons(model: ir.Model, manifest: Manifest) -> tuple[NodeFacts, ...]:
    reasons = {one.node: one.reason for one in manifest.layers}
    found = map(facts_of, computing_nodes(model))
    return tuple(replace(facts, reason=reasons.get(facts.name, "")) for facts in found)


def _with_recorded_layers(
    nodes: tuple[NodeFacts, ...], manifest: Manifest
) -> tuple[NodeFacts, ...]:
    layers = _recorded_layers(manifest)
    return tuple(with_layers(node, layers) for node in nodes)


def _recorded_layers(manifest: Manifest) -> EngineLayers:
    with decoding(InputError, "the manifest's layers are damaged"):
        return EngineLayers.from_json(list(manifest.engine.details.get("layers", [])))


def _with_manifest(side: Side, manifest: Manifest) -> Side:
    ranges = {} if manifest.calibration is None else manifest.calibration.amax
    return replace(
        side,
        ranges=dict(ranges),
        figures=figures_of(manifest),
        conditions=conditions_of(manifest),
    )


def _timed(side: Side, times: LayerTimes) -> Side:
    """Add times: by a node's layer if that is known, else by the node's name."""
    by_layer: dict[str, str] = {}
    for node in side.nodes:
        if node.layer:
            by_layer.setdefault(node.layer, node.name)
    found = times.by_node([node.name for node in side.nodes])
    for layer, name in by_layer.items():
        if layer in times.layers:
            found[name] = times.layers[layer]
    nodes = tuple(replace(node, ms=found.get(node.name)) for node in side.nodes)
    return replace(side, nodes=nodes, ms=times.total)
