"""One call from a network and data to a judged result, for scripts and notebooks.

Both calls make the same recipe as the command line, run the job of ``trtbuild engine``, and give its
result short names. They do nothing that a command does not do.
"""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtbuild.errors import ModelError, OptionError, decoding
from trtbuild.latency.stats import summarize
from trtbuild.options.keywords import recipe_values
from trtbuild.options.tables import make, merge
from trtbuild.progress import Progress, silent
from trtbuild.recipes import EngineRecipe
from trtbuild.titles import FLOAT

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    import onnx
    import onnx_ir as ir
    from typing_extensions import Unpack

    from trtbuild.api.build_options import BuildOptions
    from trtbuild.manifest import NextStep
    from trtbuild.options.data import Data, DataRecipe
    from trtbuild.report.model import Report
    from trtbuild.result import EngineResult

__all__ = ["Built", "build", "quantize"]


@dataclass(frozen=True)
class Built:
    """The result of `build` or `quantize`; printed, it shows what the command line shows.

    Attributes:
        result: full result of the job.
        recipe: the options, as a recipe.
    """

    result: EngineResult
    recipe: EngineRecipe

    @property
    def verdict(self) -> str:
        """``SHIP``, ``DO NOT SHIP``, ``NOT JUDGED`` or ``CANNOT TELL``."""
        return self.result.ruling.word

    @property
    def why(self) -> str:
        """The reason for the verdict, in a sentence."""
        return self.result.ruling.why

    @cached_property
    def next_step(self) -> NextStep | None:
        """The step that most probably helps with the verdict; None for an engine that can be shipped."""
        from trtbuild.jobs.next_step import after_engine

        return after_engine(self.result, self.recipe)

    @property
    def engine(self) -> Path:
        """The engine's file: a plan, or the network in ONNX Runtime's form."""
        return self.result.engine.path

    @property
    def int8_model(self) -> Path | None:
        """The network with explicit Q/DQ in TensorRT's form; None for a build without INT8."""
        return self._beside(".int8.onnx")

    @property
    def calibration(self) -> Path | None:
        """The ranges of all tensors, for ``calibration=``; None if there are none."""
        return self._beside(".calibration.json")

    @property
    def manifest(self) -> Path:
        """The record of the build."""
        return self.result.manifest

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """Figures by network: ``float``, ``engine``, ``tensorrt_form`` (with Q/DQ), ``also``, ``portable``.

        All except ``float`` have ``sqnr_db OUTPUT`` and ``cosine OUTPUT`` for each float output, and the
        task's figures under their own names. If measured, each has ``top1_percent`` against labels and
        ``latency_ms``, the median; ``fp16`` has only the latter.
        """
        found: dict[str, dict[str, float]] = {}
        for network, name, value in _figures(self.result):
            found.setdefault(network, {})[name] = value
        return found

    def report(self, path: str | os.PathLike[str]) -> Path:
        """Write one HTML page with all results, which opens offline, and return its path.

        Raises:
            OutputError: the file cannot be written.
        """
        from trtbuild.report.html import write_page

        return write_page(self._as_report, path)

    @cached_property
    def _as_report(self) -> Report:
        from trtbuild.report.engine import engine_report

        return engine_report(self.result)

    def __str__(self) -> str:
        from rich.console import Console

        from trtbuild.report.text import print_report

        shown = io.StringIO()
        print_report(self._as_report, Console(file=shown, width=1_000, color_system=None))
        return shown.getvalue().rstrip()

    def __repr__(self) -> str:
        return f"<{self.result.ruling}; engine '{self.engine}'>"

    def _beside(self, suffix: str) -> Path | None:
        path = self.manifest.with_name(f"{self.result.artifact.name}{suffix}")
        return path if path.name in self.result.files else None


def _figures(result: EngineResult) -> Iterator[tuple[str, str, float]]:
    """Network, name of a figure, and its value."""
    for network, comparison in result.comparisons.items():
        for output in comparison.outputs:
            for what in ("sqnr_db", "cosine"):
                estimate = getattr(output, what)
                if estimate is not None:
                    yield network, f"{what} {output.name}", estimate.value
        if comparison.task is not None:
            for figure in filter(None, (comparison.task.main, *comparison.task.others)):
                yield network, figure.name, figure.estimate.value
        if comparison.accuracy is not None:
            yield FLOAT, "top1_percent", comparison.accuracy.reference_percent.value
            yield network, "top1_percent", comparison.accuracy.candidate_percent.value
    for network, samples in result.latency.items():
        yield network, "latency_ms", summarize(samples).median_ms


def build(
    model: str | os.PathLike[str] | onnx.ModelProto | ir.Model | Any,
    data: Data | DataRecipe | None = None,
    *,
    progress: Progress = silent,
    **options: Unpack[BuildOptions],
) -> Built:
    """Build an engine in INT8 and judge it against the float network, as ``trtbuild engine --int8`` does.

    Args:
        model: path of an ONNX file; ``package.module:factory`` of a PyTorch module; or in memory an
            `onnx.ModelProto`, an `onnx_ir.Model`, a `torch.nn.Module` or a program of `torch.export`, which
            is written or exported into the output folder first. A module's inputs are derived from the
            data, or given as ``input="1x3x224x224"``; a program keeps its own.
        data: the calibration data: a path, ``module:function``, arrays (one, or name -> array), a list, a
            function that gives batches, a ``DataLoader``, a dataset, or a calibration data reader;
            a `DataRecipe` for all of the data's options in one.
        progress: called in every stage.
        **options: every option of ``trtbuild engine`` under its name (``min_sqnr=25``, ``latency=False``,
            ``task="detect"``, ``output="out"``); see `trtbuild.options.keywords`.

    Raises:
        InputError: the model, the data or an option is wrong; no incomplete file is left.
        MissingError: a required package or backend does not work here.
    """
    from trtbuild.jobs.engine import build_engine
    from trtbuild.jobs.export import with_export

    recipe = _recipe(model, data, dict(options))
    recipe, _ = with_export(recipe, progress)
    return Built(build_engine(recipe, progress, explains=True), recipe)


def quantize(
    model: str | os.PathLike[str] | onnx.ModelProto | ir.Model | Any,
    data: Data | DataRecipe | None = None,
    *,
    progress: Progress = silent,
    **options: Unpack[BuildOptions],
) -> Built:
    """Quantize a network and judge it on this machine, wherever it will run in the end.

    The same as `build` with ``backend="onnxruntime"`` and ``latency=False``: `Built.int8_model` is the
    network with Q/DQ for TensorRT, and `Built.engine` the form that ONNX Runtime runs in INT8 kernels. Q/DQ
    are placed for ``target``, or without one so that they suit every compiler.

    Args:
        model: as for `build`.
        data: as for `build`.
        progress: called in every stage.
        **options: as for `build`.

    Raises:
        InputError: the model, the data or an option is wrong; no incomplete file is left.
    """
    for name in ("backend", "also", "latency", "fp16"):
        if name in options:
            raise OptionError(
                f"'{name}' is for trtbuild.build; trtbuild.quantize builds for ONNX Runtime."
            )
    options["backend"], options["latency"] = "onnxruntime", False
    return build(model, data, progress=progress, **options)


def _recipe(model: Any, data: Any, options: dict[str, Any]) -> EngineRecipe:
    """The recipe that the command line would make."""
    for taken in ("model", "export"):
        if taken in options:
            raise OptionError(f"'{taken}' is not an option; the network is the first argument.")
    given = options
    if data is not None:
        if "data" in given:
            raise OptionError("the data are given twice.")
        given["data"] = data
    values = recipe_values(EngineRecipe, given)
    return make(EngineRecipe, merge(values, _network(model, values)))


def _network(model: Any, values: dict[str, Any]) -> dict[str, Any]:
    """The recipe's values for the network; a network in memory is written to a file."""
    from trtbuild.jobs.export import module_values
    from trtbuild.options.values import names_function

    output = values.get("output", EngineRecipe.output)
    if isinstance(model, str) and names_function(model):
        return module_values(model, output)
    if _is_module(model):
        return _module(model, output, values)
    if "export" in values:
        name = next(iter(values["export"]))
        raise OptionError(
            f"'{name}' is for a PyTorch module, and the network is not one; leave it out."
        )
    if isinstance(model, str | Path) or hasattr(model, "__fspath__"):
        return {"model": Path(model)}
    if _is_program(model):
        from trtbuild.pytorch.programs import write_program

        return {"model": write_program(model, output)}
    return {"model": _written(model, output)}


def _is_module(model: Any) -> bool:
    torch = sys.modules.get("torch")  # loaded already if there is a module
    return torch is not None and isinstance(model, torch.nn.Module)


def _is_program(model: Any) -> bool:
    """Whether `model` is a program of ``torch.export``."""
    loaded = sys.modules.get("torch.export")
    return loaded is not None and isinstance(model, loaded.ExportedProgram)


def _module(model: Any, output: Path, values: dict[str, Any]) -> dict[str, Any]:
    """A PyTorch module in memory; without inputs in the options, they are derived from the data."""
    from trtbuild.jobs.export import module_values

    found = module_values(model, output)
    if "inputs" in values.get("export", {}):
        return found
    from trtbuild.pytorch.from_data import inputs_of

    named = values.get("data", {})
    if named.get("preprocess") is not None:
        raise OptionError(
            "a PyTorch module with a preprocessing needs its input: input='1x3x224x224'."
        )
    inputs, data = inputs_of(model, named.get("data"))
    dynamic = values.get("export", {}).get("dynamic", ("batch",))
    return merge(found, {"export": {"inputs": inputs, "dynamic": dynamic}, "data": {"data": data}})


def _written(model: Any, output: Path) -> Path:
    """Write a network in memory into the output folder, under the name of its graph."""
    from trtbuild.files import make_directory
    from trtbuild.model import write_model
    from trtbuild.model.graph_library import ir

    if not isinstance(model, ir.Model):
        if not (hasattr(model, "graph") and hasattr(model, "SerializeToString")):
            raise OptionError(
                "the network is a path, 'package.module:factory', an onnx.ModelProto, an onnx_ir.Model, a "
                f"torch.nn.Module or a torch.export.ExportedProgram, not a {type(model).__name__}."
            )
        with decoding(ModelError, "cannot read the network in memory"):
            model = ir.from_proto(model)
    name = "".join(c if c.isalnum() or c in "-_" else "_" for c in model.graph.name or "")
    path: Path = make_directory(output) / f"{name or 'model'}.onnx"
    write_model(model, path)
    return path
