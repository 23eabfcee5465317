"""On which constants of the search does the accuracy in INT8 depend? Each is halved and doubled.

    python benchmarks/accuracy_constants.py FOLDER [NAME...] [--samples N]

FOLDER is that of `accuracy.py`. Each network is calibrated once. Then ranges are chosen and moves are tried
with each constant at half and at twice its value and all others unchanged, and the Q/DQ network in TensorRT's
form is judged on the first N samples that calibration has not seen. A setting that leaves the network
unchanged is not judged again. No time limit ends a search, so every machine finds the same figures.

Leaving one network out shows a choice that depends on this network alone: of half, default and double, the
value that is best on all other networks is judged on the one left out. Results are added to
benchmarks/results/accuracy-constants.json, one constant at a time, and the table in
docs/accuracy-benchmark.md is made of that file.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import logging
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
from accuracy import PAGE, RESULTS, files, names_in, replace_between

from trtbuild.calibration import CalibrateOptions, calibrate
from trtbuild.data import Batch, open_data
from trtbuild.jobs.compare import task_of, verification_batches
from trtbuild.jobs.loading import load, prepare
from trtbuild.model import graph_digest, input_specs, weights_digest
from trtbuild.model.parts import output_parts
from trtbuild.options.compare import ComparisonOptions, TaskOptions
from trtbuild.options.data import DataRecipe
from trtbuild.plan import PlacementRequest
from trtbuild.quantization import watched_tensors
from trtbuild.runtime.onnxruntime import open_session
from trtbuild.search.candidate import Candidate
from trtbuild.search.evaluate import Evaluator
from trtbuild.search.improve import improve
from trtbuild.search.ranges.check_images import CalibrationImages
from trtbuild.search.ranges.choose import choose_ranges
from trtbuild.search.recalibration import Recalibration
from trtbuild.search.score import figure, worst_sqnr_db
from trtbuild.target import COMMON

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from trtbuild.artifact import Artifact
    from trtbuild.data import Source
    from trtbuild.search.ranges.work import Work

PATH = RESULTS / "accuracy-constants.json"
START = "<!-- made by benchmarks/accuracy_constants.py -->\n"
FACTORS = {"half": 0.5, "double": 2.0}
# Between settings with the same figure, the SQNR of the worst part decides, as in a search.
POINTS_PER_DB = 0.1

Figures = dict[str, Any]


@dataclass(frozen=True)
class Constant:
    """One constant of the search.

    Attributes:
        what: its description in the table.
        places: its ``module.NAME``, and those of modules that import it by name.
        scaled: function that returns the value times a factor.
        moves: whether only the moves read it, so that the ranges before them stay the same.
    """

    what: str
    places: tuple[str, ...]
    scaled: Callable[[Any, float], Any] = lambda value, factor: value * factor
    moves: bool = False

    @contextlib.contextmanager
    def at(self, factor: float) -> Iterator[object]:
        """Set the constant to `factor` times its value during the block; yield the new value."""
        found: object = None
        with contextlib.ExitStack() as stack:
            for place in self.places:
                module, _, name = place.rpartition(".")
                owner = importlib.import_module(f"trtbuild.{module}")
                found = self.scaled(getattr(owner, name), factor)
                stack.enter_context(mock.patch.object(owner, name, found))
            yield found


def _count(value: int, factor: float) -> int:
    return max(1, round(value * factor))


def _of_work(field: str) -> Callable[[Any, float], Any]:
    """Return a function that scales one field in every level of work."""

    def scaled(levels: dict[Any, tuple[Work, ...]], factor: float) -> dict[Any, tuple[Work, ...]]:
        return {
            effort: tuple(replace(w, **{field: _count(getattr(w, field), factor)}) for w in own)
            for effort, own in levels.items()
        }

    return scaled


def _from_one(value: float, factor: float) -> float:
    """Scale a ratio's distance from one."""
    return float(value**factor)


def _thinned(values: tuple[float, ...], factor: float) -> tuple[float, ...]:
    """Candidates between the same ends, `factor` times as dense."""
    ordered = sorted(values)
    places = np.linspace(0, len(ordered) - 1, max(2, round(len(ordered) * factor)))
    return tuple(np.exp(np.interp(places, range(len(ordered)), np.log(ordered))).tolist())


_LEVELS = ("search.ranges.work._LEVELS", "search.ranges.work._FAR_LEVELS")
CONSTANTS = (
    Constant("images that choose", _LEVELS, _of_work("num_choosing")),
    Constant("images that check", _LEVELS, _of_work("num_checking")),
    Constant("random vectors an image", _LEVELS, _of_work("num_directions")),
    Constant("thresholds a scale, at most", ("search.ranges.shared_scales._MOST",), _count),
    Constant("thresholds below every rule", ("search.ranges.shared_scales._BELOW",), _thinned),
    Constant("ratio of thresholds that are the same", ("search.ranges.shared_scales._SAME",), _from_one),
    Constant("shares of the scales that are tried", ("search.ranges.choose._SHARES",), _thinned),
    Constant(
        "rules that are checked again", ("search.ranges.choose._NUM_RULES_CHECKED_AGAIN",), _count
    ),
    Constant(
        "noise over signal of a network that is far",
        ("search.improve.FAR", "search.ranges.choose.FAR"),
        moves=True,
    ),
    Constant("least gain of a move", ("search.improve._LEAST_GAIN",), moves=True),
    Constant("loss that a part may have", ("search.improve._MOST_LOSS",), moves=True),
    Constant("dB that a free change must gain", ("search.steps._WORTH_DB_FREE",), moves=True),
    Constant("dB that an inserted one must gain", ("search.steps._WORTH_DB",), moves=True),
    Constant("mean's share of an error", ("search.steps._WORTH_SHARE",), moves=True),
    Constant("strengths of a scaling", ("search.channels.choice._STRENGTHS",), _thinned, moves=True),
    Constant("clipping points of a scaling", ("search.channels.choice._CLIPS",), _thinned, moves=True),
    Constant("room of a shifted window", ("search.channels.choice._MARGIN",), moves=True),
    Constant("smallest share of a channel", ("search.channels.choice._SMALLEST_SHARE",), moves=True),
    Constant("values sampled of a tensor", ("search.channels.samples._MOST_VALUES",), _count, moves=True),
)  # fmt: skip


class Network:
    """One calibrated network and its judge."""

    def __init__(self, folder: Path, name: str, num_samples: int) -> None:
        path, calibration, evaluation = files(folder, name)
        artifact = replace(prepare(load(path)), request=PlacementRequest(target=COMMON))
        self._options = CalibrateOptions()
        inputs = input_specs(artifact.source)
        plan = open_data(DataRecipe(data=str(calibration)), inputs, calibrates=True)
        assert plan.calibration is not None
        self._source: Source = plan.calibration
        self._calibrated = calibrate(
            artifact, self._source, watched_tensors(artifact.model, artifact.request), self._options
        )
        unseen = open_data(DataRecipe(data=str(evaluation)), inputs, calibrates=False).verification
        self._judge = Evaluator(
            open_session(artifact.source),
            list(_first(verification_batches(inputs, unseen, 8), num_samples)),
            ComparisonOptions(
                num_worst=0, make_task=task_of(artifact.source, unseen, TaskOptions())
            ),
            parts=output_parts(artifact.source),
        )
        self._known: dict[tuple[str, ...], Any] = {}
        self._chosen = self._choose()

    def _choose(self) -> Artifact:
        return choose_ranges(self._calibrated, CalibrationImages(self._source))

    def figures(self, constant: Constant | None = None, factor: float = 1.0) -> Figures:
        """Return the figures with `constant` scaled by `factor`, and a digest of the network."""
        with contextlib.ExitStack() as stack:
            if constant is not None:
                stack.enter_context(constant.at(factor))
            stack.enter_context(self._remembered("calibrate"))
            chosen = self._chosen if constant is None or constant.moves else self._choose()
            again = Recalibration(self._source, self._options)
            images = CalibrationImages(self._source)
            found = improve(Candidate(chosen), again, images).network()
        comparison = self._judge(found)
        return {
            "figure": figure(comparison),
            "sqnr_db": worst_sqnr_db(comparison),
            "network": f"{graph_digest(found)} {weights_digest(found)}",
        }

    def _remembered(self, name: str) -> Any:
        """Patch a function of `trtbuild.search.recalibration` so that it runs once per network."""
        recalibration = importlib.import_module("trtbuild.search.recalibration")
        function = getattr(recalibration, name)

        def called(artifact: Artifact, *others: Any) -> Any:
            key = (name, graph_digest(artifact.model), weights_digest(artifact.model))
            if key not in self._known:
                self._known[key] = function(artifact, *others).calibration
            return replace(artifact, calibration=self._known[key])

        return mock.patch.object(recalibration, name, called)


def _first(batches: Iterator[Batch], num_samples: int) -> Iterator[Batch]:
    count = 0
    for batch in batches:
        if count >= num_samples:
            break
        count += len(batch.names)
        yield batch


def main() -> None:
    """Measure, and write results and the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--samples", type=int, default=64, metavar="N", help="that judge")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    for name in given.names or names_in(given.folder):
        network = Network(given.folder, name, given.samples)
        found: dict[str, dict[str, Figures]] = {"default": {"default": network.figures()}}
        for constant in CONSTANTS:
            found[constant.what] = {
                which: network.figures(constant, factor) for which, factor in FACTORS.items()
            }
            print(name, constant.what, found[constant.what], file=sys.stderr, flush=True)
            stored = json.loads(PATH.read_text()) if PATH.exists() else {}
            PATH.write_text(json.dumps({**stored, name: found}, indent=1) + "\n")
    if PATH.exists():
        replace_between(PAGE, table(json.loads(PATH.read_text())), START)


def table(networks: dict[str, dict[str, dict[str, Figures]]]) -> str:
    """All constants, as Markdown."""
    lines = [
        f"{len(networks)} networks: {', '.join(networks)}.\n",
        "| constant | half | the most | double | the most | left out, mean loss | the most |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *(row(constant.what, networks) for constant in CONSTANTS),
    ]
    return "\n".join(lines) + "\n"


def row(what: str, networks: dict[str, dict[str, dict[str, Figures]]]) -> str:
    """One constant: mean and largest change by half and double, and what leaving one network out finds."""
    scores = {
        name: {
            "default": score(found["default"]["default"]),
            **{which: score(figures) for which, figures in found[what].items()},
        }
        for name, found in networks.items()
        if what in found
    }
    cells = [what]
    for which in FACTORS:
        changes = {name: own[which] - own["default"] for name, own in scores.items()}
        most = max(changes, key=lambda name: abs(changes[name]))
        same = sum(
            networks[name][what][which]["network"]
            == networks[name]["default"]["default"]["network"]
            for name in changes
        )
        cells += [
            f"{np.mean(list(changes.values())):+.2f} ({same} the same)",
            f"{changes[most]:+.1f} ({most})" if changes[most] else "0",
        ]
    losses = {
        name: own["default"] - own[best_without(name, scores)] for name, own in scores.items()
    }
    most = max(losses, key=lambda name: abs(losses[name]))
    cells += [
        f"{np.mean(list(losses.values())):+.2f}",
        f"{losses[most]:+.1f} ({most})" if losses[most] else "0",
    ]
    return f"| {' | '.join(cells)} |"


def best_without(left_out: str, scores: dict[str, dict[str, float]]) -> str:
    """The setting that is best on all networks but one; the default where it is as good."""
    others = [own for name, own in scores.items() if name != left_out]
    return max(
        ("default", *FACTORS), key=lambda which: float(np.mean([own[which] for own in others]))
    )


def score(found: Figures) -> float:
    """Points of the task's figure, and a little for the worst part."""
    sqnr = found["sqnr_db"] or 0.0
    return (found["figure"] or 0.0) + POINTS_PER_DB * sqnr


if __name__ == "__main__":
    main()
