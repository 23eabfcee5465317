"""Repeats the build of a manifest, and reports the differences."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from trtbuild.diff.compare import figure_changes
from trtbuild.errors import InputError
from trtbuild.files import file_digest
from trtbuild.jobs.diff import diff_engines
from trtbuild.jobs.engine import build_engine
from trtbuild.jobs.export import with_export
from trtbuild.jobs.figures import figures_of
from trtbuild.jobs.paths import Besides, named_inputs
from trtbuild.json_codec import Document, encode
from trtbuild.manifest import manifest_at, read_manifest
from trtbuild.options.data import FOLDERS
from trtbuild.options.tables import make, merge, read_table
from trtbuild.options.values import IN_MEMORY
from trtbuild.progress import Progress, silent
from trtbuild.recipes import DiffRecipe, EngineRecipe
from trtbuild.runtime.manifest_beside import manifest_of
from trtbuild.runtime.tensorrt.versions import RTX, TENSORRT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from trtbuild.diff.compare import EngineDiff, FigureChange
    from trtbuild.manifest import Manifest

__all__ = ["Difference", "Rebuilt", "rebuild"]

_UNKNOWN = "the manifests record no difference"
_OTHER_PROCESSOR = f"{_UNKNOWN}; another processor or number of cores can be the cause"

# Parts of a manifest that describe inputs and outputs; others hold times, or follow from these.
_COMPARED = ("model", "data", "recipe", "versions", "engine.details.machine", "also.details.machine",
             "machine", "files")  # fmt: skip
_NAMES = {"model": "network", "data": "data", "recipe": "option", "versions": "version",
          "engine.details.machine": "version", "also.details.machine": "version",
          "machine": "machine", "files": "file"}  # fmt: skip
# Paths, and sentences about data, may change; digests show whether the content did.
_PLACES = {
    *("recipe.model", "recipe.output", "recipe.data.data", "recipe.data.verify_data"),
    *("recipe.data.labels", "recipe.calibration", "recipe.tune.directory", "model.file"),
    *("recipe.tensorrt.cache", "recipe.tensorrt.timing_cache", "data.calibration"),
    *("recipe.export.source.weights", "data.verification", "recipe.tensorrt.plugins"),
}


@dataclass(frozen=True)
class Difference:
    """One difference: its name in the manifest, and both values (None for absent)."""

    kind: str
    name: str
    before: Any
    after: Any


@dataclass(frozen=True)
class Rebuilt(Document):
    """The result of repeating a build.

    Attributes:
        manifest: the new manifest.
        differences: the differences, inputs before outputs.
        same_bytes: whether every built file has the same bytes as before.
        networks: file -> differences of its nodes, for networks with other bytes; without networks that
            are no longer beside the first manifest.
        unexplained: a possible cause if files differ but nothing in the manifests explains it; else
            empty.
        verdicts: of both builds; empty in a record of an older trtbuild.
        figures: accuracy and speed of both builds.
    """

    SCHEMA = "trtbuild.rebuild"

    manifest: Path
    differences: tuple[Difference, ...]
    same_bytes: bool
    networks: Mapping[str, EngineDiff] = field(default_factory=dict)
    unexplained: str = ""
    verdicts: tuple[str, str] = ("", "")
    figures: tuple[FigureChange, ...] = ()


def _values(record: Manifest, manifest: Path) -> dict[str, Any]:
    if record.recipe is None:
        raise InputError(
            f"'{manifest}' holds no recipe, so an older trtbuild wrote it; build again with `trtbuild "
            "engine`."
        )
    return read_table(EngineRecipe, record.recipe, str(manifest), manifest.parent)


def rebuild(
    manifest: Path,
    output: Path,
    *,
    model: Path | None = None,
    data: str | None = None,
    verify_data: str | None = None,
    labels: Path | None = None,
    progress: Progress = silent,
) -> Rebuilt:
    """Do the build of `manifest` again, in the folder `output`.

    A network with another name gives files with other names; each is compared with its counterpart.

    Args:
        manifest: manifest of the build, or its folder; it is not changed.
        output: another folder than the manifest's.
        model: the network, if it has moved.
        data: the calibration data, if they have moved.
        verify_data: the data for verification alone, if they have moved.
        labels: the file of labels, if it has moved.
        progress: called in every stage.

    Raises:
        InputError: the manifest, the network or the data cannot be read, or `output` is the manifest's
            folder.
        MissingError: the backend does not work here.
    """
    manifest = manifest_at(manifest)
    before = _read(manifest)
    if output.resolve() == manifest.parent.resolve():
        raise InputError(
            f"'{output}' holds the build to compare with; name another folder with -o."
        )
    elsewhere = {"data": data, "verify_data": verify_data, "labels": labels}
    named = {name: place for name, place in elsewhere.items() if place is not None}
    moved: dict[str, Any] = {"output": output, "data": named}
    recipe = make(EngineRecipe, merge(_values(before, manifest), moved))
    recipe = _with_network(recipe, manifest, model)
    _check_places(recipe)
    besides = Besides(read=(manifest,))
    recipe, _ = with_export(recipe, progress, besides)
    result = build_engine(recipe, progress, besides)
    return _compared(before, read_manifest(result.manifest), manifest.parent, result.manifest)


def _compared(before: Manifest, built: Manifest, folder: Path, manifest: Path) -> Rebuilt:
    """Compare the build in `folder` with the new one, whose manifest is `manifest`."""
    after = _named_as(before, built)
    places = {
        name: (folder / name, manifest.parent / (built.name + name.removeprefix(before.name)))
        for name in before.files
    }
    digests = [{n: f.digest for n, f in m.files.items()} for m in (before, after)]
    found = tuple(_differences(before, after))
    causes = [difference for difference in found if difference.kind != _NAMES["files"]]
    same_bytes = digests[0] == digests[1]
    return Rebuilt(
        manifest,
        found,
        same_bytes,
        networks=dict(_networks(places, *digests)),
        unexplained="" if same_bytes or causes else _why_unexplained(before, after),
        verdicts=(_verdict(before), _verdict(after)),
        figures=figure_changes(figures_of(before), figures_of(after)),
    )


def _read(path: Path) -> Manifest:
    """Read a manifest; for another file of a build, name the command with the build's manifest."""
    try:
        return read_manifest(path)
    except InputError as error:
        beside = manifest_of(path)
        if not beside.is_file():
            raise
        command = shlex.join(("trtbuild", "rebuild", str(beside)))
        raise InputError(
            f"'{path}' is not a manifest; that of its build lies beside it: `{command}`."
        ) from error


def _verdict(manifest: Manifest) -> str:
    return "" if manifest.ruling is None else manifest.ruling.word


def _with_network(recipe: EngineRecipe, manifest: Path, model: Path | None) -> EngineRecipe:
    """The recipe with the present path of its network, or the path that it is exported to."""
    if recipe.export is None:
        return recipe if model is None else replace(recipe, model=model)
    if model is not None:
        raise InputError(
            f"the network of '{manifest}' is exported from '{recipe.export.source.name}', so --model "
            "cannot name another; leave it out, or build with `trtbuild engine`."
        )
    exported = recipe.output / recipe.model.name
    return replace(recipe, model=exported, export=replace(recipe.export, path=exported))


def _check_places(recipe: EngineRecipe) -> None:
    """Check that all inputs exist; name the option that gives a new place."""
    data = recipe.data
    places = {"--data": data.data, "--verify-data": data.verify_data, "--labels": data.labels}
    if recipe.export is None:
        places = {"--model": recipe.model, **places}
    for flag, place in places.items():
        in_no_file = str(place) == FOLDERS or str(place).startswith(IN_MEMORY)
        for _, path in () if in_no_file else named_inputs(it=place):
            if not path.exists():
                raise InputError(f"'{path}' does not exist; name its new place with {flag}.")


def _named_as(before: Manifest, after: Manifest) -> Manifest:
    """The second manifest, with the first build's names for its files."""
    renamed = {
        before.name + name.removeprefix(after.name): file for name, file in after.files.items()
    }
    return replace(after, files=renamed)


def _networks(
    places: Mapping[str, tuple[Path, Path]], before: Mapping[str, str], after: Mapping[str, str]
) -> Iterator[tuple[str, EngineDiff]]:
    """Compare the networks whose bytes differ."""
    for name, digest in before.items():
        first, second = places[name]
        differ = name in after and after[name] != digest
        if name.endswith(".onnx") and differ and first.is_file() and file_digest(first) == digest:
            yield name, diff_engines(DiffRecipe(first=first, second=second))


def _why_unexplained(before: Manifest, after: Manifest) -> str:
    """The possible cause of a difference that no manifest records, by the kind of engine."""
    names = [name for name, file in before.files.items() if name.endswith(".onnx")
             and name in after.files and after.files[name].digest != file.digest]  # fmt: skip
    if names:
        return _why_networks_differ(before, after)
    plans = [one for one in (after.engine, after.also) if one is not None]
    if any(one.backend == TENSORRT.backend for one in plans):
        return "TensorRT times kernels while it builds: a plan stays the same with --timing-cache and --lock"
    if any(one.backend == RTX.backend for one in plans):
        return (
            f"{_UNKNOWN}; NVIDIA's compiler derives numbers in a plan from memory addresses, which vary "
            "with its threads and the environment: plans may differ in these numbers only"
        )
    return _OTHER_PROCESSOR


def _why_networks_differ(before: Manifest, after: Manifest) -> str:
    """Why a search or a choice of ranges may have had another result."""
    details = [stage.details for one in (before, after) for stage in one.stages]
    if any(found.get("time_was_over") for found in details):
        return (
            "a time limit ended the choice of ranges or of moves (time_was_over in the stages): how far "
            "it gets depends on the load of the machine"
        )
    if any(
        found.get("float_layers") and "milliseconds" in found.get("ranked_by", "")
        for found in details
    ):
        return (
            "layers were moved to float by what they gain for their measured time, which varies; name them "
            "with --float-group to keep the same ones"
        )
    return _OTHER_PROCESSOR


def _differences(before: Manifest, after: Manifest) -> Iterator[Difference]:
    for part in _COMPARED:
        old, new = (dict(_flat(encode(_part(one, part)), part)) for one in (before, after))
        for name in sorted({*old, *new} - _PLACES):
            if old.get(name) != new.get(name):
                shown = name.removeprefix(part).lstrip(".") or name
                yield Difference(_NAMES[part], shown, old.get(name), new.get(name))


def _part(manifest: Manifest, path: str) -> Any:
    """The value at a dotted path; None if the path does not exist."""
    found: Any = manifest
    for key in path.split("."):
        found = found.get(key) if isinstance(found, Mapping) else getattr(found, key, None)
    return found


def _flat(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flat(item, f"{name}.{key}")
    else:
        yield name, value
