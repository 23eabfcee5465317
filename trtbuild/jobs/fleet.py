"""A fleet: one network for several targets, with one calibration and one table of results."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from trtbuild.diff.compare import FigureValue  # noqa: TC001 - the schema resolves it
from trtbuild.enums import StrEnum
from trtbuild.errors import DataError, MissingError, OptionError, TrtbuildError, in_one_tree
from trtbuild.files import make_directory, write_text
from trtbuild.jobs.calibrate import calibrate_file
from trtbuild.jobs.engine import build_engine
from trtbuild.jobs.figures import accuracy_of
from trtbuild.jobs.paths import Besides, check_paths, data_inputs, named_inputs
from trtbuild.json_codec import Document, dumps
from trtbuild.latency.stats import summarize
from trtbuild.options.calibrate import AS_TENSORRT, DEFAULT_RULE
from trtbuild.options.tables import make, merge, read_table, to_table
from trtbuild.progress import Progress, silent
from trtbuild.recipes import CalibrateRecipe, CalibrationFiles, EngineRecipe
from trtbuild.runtime.ray_cluster import joined, staying_joined
from trtbuild.titles import ENGINE, TITLES
from trtbuild.toml_files import read_toml
from trtbuild.visible import visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from trtbuild.result import EngineResult

__all__ = ["Fleet", "FleetOutcome", "FleetTarget", "build_fleet", "read_fleet"]

_BUILD, _TARGET = "build", "target"
_RESULT = "fleet.json"


class FleetOutcome(StrEnum):
    """The result of the build for a target."""

    SHIP = "SHIP"
    DO_NOT_SHIP = "DO NOT SHIP"
    NOT_JUDGED = "NOT JUDGED"
    CANNOT_TELL = "CANNOT TELL"
    REFUSED = "refused"
    """The build is wrong for this target: an option, the network, or its compiler refuses."""
    NOT_HERE = "not here"
    """The builder for it is not installed here, or needs its GPU."""


@dataclass(frozen=True)
class FleetTarget:
    """The result for one target.

    Attributes:
        name: name of the target.
        outcome: how the build ended.
        reason: the verdict in a sentence, or why nothing was built.
        backend: backend that built it; empty if nothing was built.
        folder: folder of the build.
        engine: the engine's file name there.
        num_bytes: size of that file.
        judged: the network that the accuracy is of, in words: the engine, or what stands for one that does
            not run here; empty if nothing was judged.
        figures: its accuracy by name, with intervals.
        sqnr_db: SQNR of the worst output that was judged; None if nothing was.
        latency_ms: median on this machine; None if it does not run here, or was not timed.
        int8_layers, num_layers: number of nodes in INT8, and of all nodes with a decision.
        seconds: duration of the build.
    """

    name: str
    outcome: FleetOutcome
    reason: str
    backend: str = ""
    folder: str = ""
    engine: str = ""
    num_bytes: int = 0
    judged: str = ""
    figures: dict[str, FigureValue] = field(default_factory=dict)
    sqnr_db: float | None = None
    latency_ms: float | None = None
    int8_layers: int = 0
    num_layers: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Fleet(Document):
    """The results for all targets.

    Attributes:
        model: file of the network.
        calibration: the calibration file that all were built with; empty if all are float.
        targets: in the order of the fleet file.
    """

    SCHEMA = "trtbuild.fleet"

    model: str
    calibration: str
    targets: tuple[FleetTarget, ...]

    @property
    def failed(self) -> tuple[FleetTarget, ...]:
        """The targets for which nothing was built."""
        unbuilt = (FleetOutcome.REFUSED, FleetOutcome.NOT_HERE)
        return tuple(target for target in self.targets if target.outcome in unbuilt)

    @property
    def exit_code(self) -> int:
        """1 if a limit does not hold, 2 if a target was refused, 3 if one cannot be built here, else 0."""
        outcomes = {target.outcome for target in self.targets}
        codes = {FleetOutcome.DO_NOT_SHIP: 1, FleetOutcome.REFUSED: 2, FleetOutcome.NOT_HERE: 3}
        return next((code for outcome, code in codes.items() if outcome in outcomes), 0)


def read_fleet(path: Path, output: Path) -> dict[str, EngineRecipe]:
    """Return the recipe of every target of a fleet file.

    ``[build]`` holds the options of ``engine --recipe``; each ``[target.NAME]`` overrides some of them.

    Args:
        path: the file; paths in it are relative to its folder.
        output: each target is built in a folder of its name in this one.

    Raises:
        OptionError: the file cannot be read, an option is unknown or wrong, or there is no target.
    """
    table = read_toml(path, "fleet")
    if unknown := sorted(set(table) - {_BUILD, _TARGET}):
        raise OptionError(
            f"'{path}' has the table '{unknown[0]}'; it takes [build] and [target.NAME]."
        )
    targets = table.get(_TARGET)
    if not isinstance(targets, dict) or not targets:
        raise OptionError(f"'{path}' names no target; add one, such as [target.rtx-40].")
    shared = read_table(EngineRecipe, table.get(_BUILD, {}), str(path), path.parent)
    found = {}
    for name, own in targets.items():
        if not isinstance(own, dict) or not _names_folder(name):
            raise OptionError(
                f"'{path}': [target.{visible(name)}] is not a table, or its name cannot name a folder."
            )
        where = f"{path}, [target.{name}]"
        values = merge(shared, read_table(EngineRecipe, own, where, path.parent))
        if "output" in values:
            raise OptionError(f"{where}: 'output' is the fleet's, given with -o; leave it out.")
        try:
            recipe = make(EngineRecipe, merge(values, {"output": output / name}))
        except OptionError as error:
            raise OptionError(f"'{where}': {error}") from error
        if name in (_RESULT, _ranges_file(recipe)):
            raise OptionError(
                f"{where}: '{name}' is a file that the fleet writes; give the target another name."
            )
        found[name] = recipe
    return found


def _ranges_file(recipe: EngineRecipe) -> str:
    return f"{recipe.model.stem}.calibration.json"


def _names_folder(name: str) -> bool:
    """Whether a folder of this name can be made on all systems, and stays inside the output folder."""
    return name.isprintable() and name not in ("", "..") and Path(name).name == name


@in_one_tree()
def build_fleet(
    path: Path,
    output: Path,
    *,
    ray: str | None = None,
    progress: Progress = silent,
    besides: Besides | None = None,
) -> Fleet:
    """Calibrate once, build every target of a fleet file, and write ``fleet.json``.

    A target that fails does not stop the others.

    Args:
        path: the fleet file, see `read_fleet`.
        output: a folder; created if it does not exist.
        ray: address of a Ray cluster that builds targets in parallel, under the same paths; empty for one
            that is started here, None for none.
        progress: called in every stage.
        besides: other files that the command writes.

    Raises:
        OptionError: the file is wrong, targets differ in network or data, or there is no data for
            verification.
        ModelError, DataError: the network or the data cannot be read.
        MissingError: Ray is missing, or nothing answers at its address.
    """
    recipes = read_fleet(path, output)
    first = next(iter(recipes.values()))
    _check_shared(path, recipes)
    inputs = named_inputs(the_fleet=path, the_network=first.model)
    data = data_inputs(first.data)
    check_paths((*inputs, *data), [output / _RESULT], besides, folder=output)
    for what, place in data:  # the calibration alone reads no data for verification
        if not place.exists():
            raise DataError(f"{what} '{place}' does not exist.")
    with staying_joined(ray):  # joined before the calibration, which may take hours
        make_directory(output)
        calibration = _calibrated(first, output, progress) if first.int8 else None
        if calibration is not None:
            recipes = {n: replace(one, calibration=calibration) for n, one in recipes.items()}
        targets = tuple(_built(recipes, ray, progress))
    fleet = Fleet(first.model.name, "" if calibration is None else calibration.name, targets)
    write_text(output / _RESULT, dumps(fleet.to_json()) + "\n")
    return fleet


def _check_shared(path: Path, recipes: Mapping[str, EngineRecipe]) -> None:
    """Check that all targets have the same network and data, since they share one calibration."""
    first = next(iter(recipes.values()))
    for name, one in recipes.items():
        same = (one.model, one.data, one.calibrate) == (first.model, first.data, first.calibrate)
        if not same or one.int8 != first.int8:
            raise OptionError(
                f"'{path}': [target.{name}] has another network, other data, another rule or no INT8; these "
                "belong to [build], since all targets share one calibration."
            )
        if one.calibration is not None:
            raise OptionError(f"'{path}': the fleet calibrates by itself; leave 'calibration' out.")
    if first.int8 and first.data.verify_data is None:
        raise OptionError(
            f"'{path}': set verify_data in [build.data], which the engines are judged on; 'data' is for "
            "calibration."
        )
    if first.calibrate.method == AS_TENSORRT:
        raise OptionError(f"'{path}': {AS_TENSORRT} serves one target alone; name another rule.")


def _calibrated(recipe: EngineRecipe, output: Path, progress: Progress) -> Path:
    """Calibrate every tensor whose range any target may need; return the file."""
    file = output / _ranges_file(recipe)
    rule = recipe.calibrate.method or DEFAULT_RULE
    calibrate_file(
        CalibrateRecipe(
            model=recipe.model,
            data=replace(recipe.data, verify_data=None, labels=None),
            calibrate=replace(recipe.calibrate, method=rule),
            files=CalibrationFiles(output=file),
        ),
        progress,
    )
    return file


def _built(
    recipes: Mapping[str, EngineRecipe], ray: str | None, progress: Progress
) -> Iterator[FleetTarget]:
    if ray is None:
        for number, (name, recipe) in enumerate(recipes.items()):
            progress("fleet", number, len(recipes))
            yield build_target(name, recipe, progress)
        progress("fleet", len(recipes), len(recipes))
        return
    done: dict[int, FleetTarget] = {}
    absolute = [(name, _absolute(recipe)) for name, recipe in recipes.items()]
    with joined(ray or None) as cluster:
        for number, target in cluster.results(build_target, absolute):
            done[number] = target
            progress("fleet", len(done), len(recipes))
    yield from (done[number] for number in sorted(done))


def _absolute(recipe: EngineRecipe) -> EngineRecipe:
    """The recipe with absolute paths, because workers run in other folders."""
    values = read_table(EngineRecipe, to_table(recipe), "the fleet", Path.cwd())
    return make(EngineRecipe, values)


def build_target(name: str, recipe: EngineRecipe, progress: Progress = silent) -> FleetTarget:
    """Build for one target; an error becomes its outcome."""
    started = time.perf_counter()
    try:
        result = build_engine(recipe, progress)
    except MissingError as error:
        return FleetTarget(name, FleetOutcome.NOT_HERE, str(error))
    except TrtbuildError as error:
        return FleetTarget(name, FleetOutcome.REFUSED, str(error))
    return _row(name, result, time.perf_counter() - started)


def _row(name: str, result: EngineResult, seconds: float) -> FleetTarget:
    name_judged = ENGINE if ENGINE in result.comparisons else next(iter(result.comparisons), "")
    judged = result.comparisons.get(name_judged)
    size = 0
    with contextlib.suppress(OSError):
        size = result.engine.path.stat().st_size
    timed = result.latency.get(ENGINE)
    decisions = result.artifact.decisions
    return FleetTarget(
        name=name,
        outcome=FleetOutcome(result.ruling.word),
        reason=result.ruling.why,
        backend=result.engine.backend,
        folder=name,
        engine=result.engine.path.name,
        num_bytes=size,
        judged=TITLES.get(name_judged, name_judged),
        figures={} if judged is None else accuracy_of(judged),
        sqnr_db=None if judged is None else judged.worst_sqnr_db,
        latency_ms=None if timed is None else summarize(timed).median_ms,
        int8_layers=sum(one.int8 for one in decisions),
        num_layers=len(decisions),
        seconds=seconds,
    )
