"""Writes an engine into a Triton model repository: the model file and its ``config.pbtxt``."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from trtbuild.data import DataRecipe
from trtbuild.errors import GateError, InputError, OptionError, OutputError, decoding
from trtbuild.files import atomic_path, file_digest, make_directory, write_text
from trtbuild.jobs.triton_config import ONNX_RUNTIME, TENSORRT, ModelConfig, described
from trtbuild.json_codec import Document
from trtbuild.manifest import manifest_at, manifest_beside, read_manifest
from trtbuild.model import (
    input_specs,
    output_specs,
    read_unchanged,
    weight_files,
    with_batch_axes,
)
from trtbuild.model.signature import Signature, TensorSpec
from trtbuild.options.tables import make, read_table
from trtbuild.options.tensorrt import HardwareCompatibility, TensorRTOptions
from trtbuild.runtime.manifest_beside import PORTABLE_SUFFIX, manifest_of
from trtbuild.runtime.tensorrt.versions import RTX, product_of
from trtbuild.verification.ruling import DO_NOT_SHIP
from trtbuild.visible import visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import onnx_ir as ir

    from trtbuild.manifest import Manifest
    from trtbuild.recipes import TritonRecipe
    from trtbuild.runtime.manifest_beside import EngineRecord

__all__ = ["TritonEntry", "TritonModel", "export_triton"]

_FORM = ".int8.onnx"
_CONFIG = "config.pbtxt"
_T = TypeVar("_T")
# ONNX Runtime takes any batch; this many samples are joined unless something else is asked for.
_LARGEST_BATCH = 8
# Longest name of a file or folder, in bytes, on the systems that Triton runs on.
_LONGEST_NAME = 255
_NAME = re.compile(r"[^/\\\0]+")


@dataclass(frozen=True)
class TritonModel(Document):
    """A model in a Triton model repository.

    Attributes:
        folder: its folder in the repository.
        name: its name.
        backend: Triton's backend for it.
        max_batch_size: the largest batch that Triton makes of requests; 0 if requests bring the whole batch.
        files: the written files.
        notes: what the server needs, and options to start it with.
    """

    SCHEMA = "trtbuild.triton_model"

    folder: Path
    name: str
    backend: str
    max_batch_size: int
    files: tuple[Path, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class TritonEntry:
    """The result of an export.

    Attributes:
        folder: the model's folder in the repository.
        config: content of its ``config.pbtxt``.
        files: path -> description.
        notes: what the server needs, and options to start it with.
    """

    folder: Path
    config: ModelConfig
    files: Mapping[Path, str]
    notes: tuple[str, ...]

    @property
    def model(self) -> TritonModel:
        """The part that programs read."""
        config = self.config
        return TritonModel(
            folder=self.folder,
            name=config.name,
            backend=config.backend.name,
            max_batch_size=config.max_batch_size,
            files=tuple(self.files),
            notes=self.notes,
        )


@dataclass(frozen=True)
class _Source:
    """An engine, and the manifest of its build; None if there is none."""

    file: Path
    manifest: Manifest | None

    @property
    def record(self) -> EngineRecord | None:
        """Its record there; None also for ONNX Runtime's form that was written in addition to an engine."""
        return None if self.manifest is None else self.manifest.engine_in(self.file.name)

    @property
    def is_plan(self) -> bool:
        """Whether it is a plan, not a network for ONNX Runtime."""
        return self.file.suffix != ".onnx"

    @property
    def details(self) -> Mapping[str, Any]:
        """The backend's record of the build."""
        return {} if self.record is None else self.record.details

    @property
    def profiles(self) -> list[Mapping[str, Any]]:
        """Its optimization profiles, as recorded."""
        return list(self.details.get("profiles") or [])

    @property
    def options(self) -> TensorRTOptions:
        """TensorRT's options of the build, as recorded."""
        return self._asked("tensorrt", TensorRTOptions)

    @property
    def batch_axes(self) -> Mapping[str, object]:
        """The batch axes that the user gave."""
        return self._asked("data", DataRecipe).batch_axes

    def _asked(self, name: str, kind: type[_T]) -> _T:
        recipe = {} if self.manifest is None else self.manifest.recipe or {}
        table = recipe.get(name) or {}
        return make(kind, read_table(kind, table, str(manifest_of(self.file)), prefix=f"{name}."))

    @property
    def name(self) -> str:
        """Name of the network that it was built from."""
        name = self.file.name
        return name.removesuffix(
            PORTABLE_SUFFIX if name.endswith(PORTABLE_SUFFIX) else self.file.suffix
        )


def export_triton(recipe: TritonRecipe) -> TritonEntry:
    """Write an engine and its ``config.pbtxt`` into a Triton model repository.

    Raises:
        InputError: there is no engine, or its inputs are not known.
        OptionError: Triton cannot serve it: a plan for RTX, a stripped plan, an unsupported type or shape.
        GateError: the verdict on it is DO NOT SHIP.
        OutputError: the repository has another model with this name, or cannot be written.
    """
    source = _find(recipe.engine)
    _check_servable(source, force=recipe.force)
    with decoding(InputError, f"the manifest of '{source.file}' is damaged"):
        config, notes = _configured(source, recipe)
    folder = recipe.output / config.name
    version = folder / str(recipe.model_version)
    files = {version / config.backend.file: f"the engine '{source.file.name}'"}
    _check_free(files, source.file, folder / _CONFIG, config.text(), force=recipe.force)
    make_directory(version)
    _copy(source.file, version / config.backend.file)
    for weights in weight_files(source.file) if not source.is_plan else ():
        _copy(weights, version / weights.name)
        files[version / weights.name] = "its weights"
    write_text(folder / _CONFIG, config.text())
    files[folder / _CONFIG] = "inputs, outputs, batching, instances"
    return TritonEntry(folder, config, files, (*notes, *_needs(source)))


def _find(place: Path) -> _Source:
    """Return the engine `place`, or the engine of the build in the folder `place`."""
    if place.is_dir():
        place = place / read_manifest(manifest_at(place)).engine.file
    if not place.is_file():
        raise InputError(
            f"the engine '{place}' does not exist; give a file, or the folder of a build."
        )
    if place.suffix == ".json":
        raise InputError(
            f"'{place}' is a record, not an engine; give the engine's file, or the folder of the build."
        )
    return _Source(place, manifest_beside(place))


def _check_servable(source: _Source, *, force: bool) -> None:
    if product_of(source.file) is RTX or (
        source.record is not None and source.record.backend == RTX.backend
    ):
        raise OptionError(
            f"'{source.file}' is a plan for TensorRT for RTX, for which Triton has no backend; build the "
            "plan with TensorRT (--backend tensorrt), or export the portable engine."
        )
    if source.is_plan and source.manifest is None:
        raise InputError(
            f"the inputs of '{source.file}' are in the manifest of its build, but "
            f"'{manifest_of(source.file)}' is missing or belongs to another file; keep both in one folder."
        )
    if source.is_plan and source.options.strip_plan:
        raise OptionError(
            f"'{source.file}' holds no weights, and Triton does not refit plans; build without --strip-plan."
        )
    stages = () if source.manifest is None else source.manifest.stages
    if not source.is_plan and any(one.stage == "cut" for one in stages):
        raise OptionError(
            f"'{source.file}' is only the part of the network that ONNX Runtime can run; export the plan."
        )
    ruling = None if source.manifest is None else source.manifest.ruling
    if ruling is not None and ruling.word == DO_NOT_SHIP and not force:
        raise GateError(
            f"the verdict on '{source.file}' is {ruling}. Build one that holds "
            "its limits, or export it all the same with --force."
        )


def _configured(source: _Source, recipe: TritonRecipe) -> tuple[ModelConfig, tuple[str, ...]]:
    signature = _signature(source)
    backend = TENSORRT if source.is_plan else ONNX_RUNTIME
    shapes = {name for one in source.details.get("profile_values") or [] for name in one}
    size, notes = _batch(signature, shapes, source, recipe.max_batch_size)
    inputs, outputs = (
        tuple(described(spec, backend, batches=size > 0, shapes=shapes) for spec in specs)
        for specs in (signature.inputs, signature.outputs)
    )
    config = ModelConfig(
        _model_name(recipe.name or source.name),
        backend,
        inputs,
        outputs,
        size,
        recipe.instances,
        num_profiles=max(1, len(source.profiles)),
        dla_core=source.options.dla if source.is_plan else None,
    )
    return config, notes


def _model_name(name: str) -> str:
    too_long = len(os.fsencode(name)) > _LONGEST_NAME
    if not _NAME.fullmatch(name) or name.startswith(".") or not name.isprintable() or too_long:
        raise OptionError(
            f"'{visible(name)}' cannot be the name of a folder; give another with --name."
        )
    return name


def _signature(source: _Source) -> Signature:
    """Return the inputs and outputs of an engine, from its ONNX form or else from the manifest."""
    form = source.file.with_name(f"{source.name}{_FORM}") if source.is_plan else source.file
    manifest = source.manifest
    if form.is_file() and (not source.is_plan or (manifest and form.name in manifest.files)):
        return _of_network(read_unchanged(form), form)
    assert manifest is not None  # plans without a manifest are refused before
    inputs, outputs = (
        [TensorSpec(one.name, np.dtype(one.dtype), one.dims) for one in side]
        for side in (manifest.model.inputs, manifest.model.outputs)
    )
    return with_batch_axes(inputs, outputs, source.batch_axes)


def _of_network(network: ir.Model, file: Path) -> Signature:
    for value in (*network.graph.inputs, *network.graph.outputs):
        if value.shape is None:
            raise InputError(
                f"the rank of '{value.name}' is not known in '{file}', and Triton has to know it; write the "
                "shape into the network (onnx.shape_inference) and build again."
            )
    return Signature(input_specs(network), output_specs(network))


def _batch(
    signature: Signature, shapes: set[str], source: _Source, asked: int | None
) -> tuple[int, tuple[str, ...]]:
    """Return Triton's ``max_batch_size``; if it is 0 without being asked for, also the reason."""
    largest = _largest_batch(source, signature)
    why = _why_not_batched(signature, shapes, is_sure=asked is not None)
    if asked == 0:
        return 0, ()
    if why and asked is not None:
        raise OptionError(f"Triton cannot join requests to batches: {why}; use --max-batch-size 0.")
    if why:
        return 0, (f"requests bring the whole batch (max_batch_size 0): {why}",)
    if source.is_plan and asked is not None and asked > largest:
        raise OptionError(
            f"the plan takes batches of {largest} at most; give --max-batch-size {largest} or less, or build "
            "with a larger --shape."
        )
    return asked or largest, ()


def _why_not_batched(signature: Signature, shapes: set[str], *, is_sure: bool) -> str:
    """Return why the first axis of some tensor is not a batch that Triton may join; empty if it is one.

    Args:
        signature: signature of the engine.
        shapes: names of inputs that hold a shape.
        is_sure: whether the user says that the first axis is the batch, so that names of dims do not matter.
    """
    if shapes:
        return f"the input '{sorted(shapes)[0]}' holds a shape"
    batch = {spec.batch for spec in signature.inputs if spec.dims and spec.batch_axis == 0}
    for spec in (*signature.inputs, *signature.outputs):
        if not spec.dims or spec.batch_axis is None:
            return f"'{spec.name}' has no batch axis"
        if spec.batch_axis != 0:
            return f"the batch axis of '{spec.name}' is {spec.batch_axis}, and Triton's is 0"
        if isinstance(spec.batch, int):
            return f"the batch of '{spec.name}' is fixed to {spec.batch}"
        if not is_sure and (len(batch) > 1 or spec.batch not in batch):
            return (
                f"the first axis of '{spec.name}' is '{spec.batch}', which may be something else than the "
                "batch (if it is the batch: --max-batch-size N)"
            )
    return ""


def _largest_batch(source: _Source, signature: Signature) -> int:
    names = {spec.name for spec in signature.inputs}
    sizes = [
        min(
            (shape["max"][0] for name, shape in profile.items() if name in names and shape["max"]),
            default=0,
        )
        for profile in source.profiles
    ]
    return max(sizes, default=_LARGEST_BATCH)


def _needs(source: _Source) -> Iterator[str]:
    """Yield what the server needs for the engine."""
    if not source.is_plan:
        yield "the portable engine is for CPUs: its instances run there (KIND_CPU)"
        return
    built = source.details.get("machine", {})
    version, gpu = built.get("tensorrt"), built.get("gpu")
    if source.options.version_compatible:
        yield "start the server with --backend-config=tensorrt,version-compatible=true"
    elif version:
        yield f"the server's TensorRT must be {version}; NVIDIA's table of containers says which image has it"
    if gpu and source.options.hardware_compatibility is HardwareCompatibility.NONE:
        yield f"the plan is for {gpu}"
    plugins = [Path(one).name for one in source.options.plugins]
    if plugins:
        yield f'start the server with --backend-config=tensorrt,plugins="{";".join(plugins)}"'


def _check_free(
    files: Mapping[Path, str], engine: Path, config: Path, text: str, *, force: bool
) -> None:
    """Refuse to overwrite another model, unless the user asked for that."""
    if force:
        return
    for path in files:
        if path.exists() and file_digest(path) != file_digest(engine):
            raise OutputError(
                f"'{path}' is another engine; give it another --model-version, or --force to replace it."
            )
    if config.exists() and config.read_bytes() != text.encode():
        raise OutputError(
            f"'{config}' differs from what this engine needs; use another --name, or --force to "
            "replace it."
        )


def _copy(source: Path, target: Path) -> None:
    with atomic_path(target) as path:
        shutil.copyfile(source, path)
