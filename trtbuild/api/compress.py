"""One call from a PyTorch module and two functions of the user's to a smaller module and its INT8 engine.

It makes the same recipe as ``trtbuild compress``, and runs its job.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from trtbuild.errors import OptionError
from trtbuild.options.keywords import recipe_values
from trtbuild.options.tables import make
from trtbuild.progress import Progress, silent
from trtbuild.recipes import CompressRecipe

if TYPE_CHECKING:
    import os
    from collections.abc import Callable
    from pathlib import Path

    from trtbuild.jobs.compress import CompressOutcome
    from trtbuild.jobs.compress.record import Compression
    from trtbuild.options.data import Data
    from trtbuild.report.model import Report

__all__ = ["Compressed", "compress"]


@dataclass(frozen=True)
class Compressed:
    """The result of `compress`.

    Attributes:
        record: all steps and their figures; the same as in ``compression.json``.
        folder: folder of the run.
    """

    record: Compression
    folder: Path

    @property
    def verdict(self) -> str:
        """``SHIP``, ``DO NOT SHIP`` (the last round was not reached within the limits) or ``NOT JUDGED``."""
        return self.record.verdict

    @property
    def why(self) -> str:
        """The reason for the verdict, in a sentence."""
        return self.record.why

    @property
    def module(self) -> Path | None:
        """The folder of the module that is kept, for ``weights=``; None if nothing meets the limits."""
        return self.folder / self.record.module if self.record.module else None

    @property
    def engine(self) -> Path | None:
        """The engine of that module; None if none was built, or none runs here."""
        return self._path("engine")

    @property
    def int8_model(self) -> Path | None:
        """That module's network with explicit Q/DQ in TensorRT's form; None for a run without INT8."""
        return self._path("form")

    def report(self, path: str | os.PathLike[str]) -> Path:
        """Write one HTML page with every step and the figure over work and latency, and return its path.

        Raises:
            OutputError: the file cannot be written.
        """
        from trtbuild.report.html import write_page

        return write_page(self._as_report, path)

    @cached_property
    def _as_report(self) -> Report:
        from trtbuild.report.compress import compress_report

        return compress_report(self._outcome)

    @property
    def _outcome(self) -> CompressOutcome:
        from trtbuild.jobs.compress import CompressOutcome

        return CompressOutcome(self.record, self.folder, 0)

    def _path(self, stage: str) -> Path | None:
        for point in self.record.points:
            if point.round == self.record.chosen and point.stage == stage and point.path:
                return self.folder / point.path
        return None

    def __repr__(self) -> str:
        return f"<{self.verdict}: {self.why}; in '{self.folder}'>"


def compress(
    module: Any,
    train: Callable[..., Any] | str,
    evaluate: Callable[..., Any] | str,
    data: Data | None = None,
    *,
    progress: Progress = silent,
    **options: Any,
) -> Compressed:
    """Make a PyTorch module smaller in rounds within limits, and build it in INT8.

    The same as ``trtbuild compress``: channels are removed (``prune_macs=0.5, prune_steps=3``), `train`
    trains the rest, `evaluate` judges it, and so on; then come 2:4 zeros if asked for (``sparsity="2:4"``),
    and the engine. A round that loses more than ``max_drop`` ends the pruning, and the rounds before it are
    kept. The same call continues an interrupted run.

    Args:
        module: ``package.module:factory``, or a `torch.nn.Module`, which is not changed.
        train: trains the given module in place, or returns it; with ``epochs=20`` each call is one
            epoch. Its parameters named ``epoch``, ``epochs`` and, with ``teacher=True``, ``teacher`` are
            filled in.
        evaluate: returns how good a module is: a number, higher is better. It also gets engines, which behave
            like the module when called, and must use nothing else of it.
        data: the calibration data; see `trtbuild.build`. Without ``input`` a module's inputs are derived from
            it.
        progress: called in every step.
        **options: every option of ``trtbuild compress`` under its name (``max_drop=1``, ``output="small"``).

    Raises:
        InputError: the module, the data, an option or a function is wrong; finished steps stay.
        MissingError: torch, or a required package or backend, does not work here.
    """
    from trtbuild.jobs.compress import compress as job

    given = {"train": train, "evaluate": evaluate, **options}
    if data is not None:
        given["data"] = data
    for taken in ("source", "training"):
        if taken in options:
            raise OptionError(
                f"'{taken}' is not an option; give the module and the functions first."
            )
    values = recipe_values(CompressRecipe, given, "compress")
    values["source"] = {**values.get("source", {}), "target": module}
    if not isinstance(module, str) and "inputs" not in values:
        from trtbuild.pytorch.from_data import inputs_of

        values["inputs"], values["data"]["data"] = inputs_of(
            module, values.get("data", {}).get("data")
        )
        values.setdefault("dynamic", ("batch",))
    outcome = job(make(CompressRecipe, values), progress)
    return Compressed(outcome.record, outcome.folder)
