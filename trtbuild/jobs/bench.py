"""The stages of ``trtbuild bench``: an engine alone, against another, or against a baseline."""

from __future__ import annotations

import contextlib
import itertools
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from trtbuild.data import batches, open_named
from trtbuild.data.random_data import RandomSource
from trtbuild.errors import DataError, ModelError, OptionError, in_one_tree
from trtbuild.files import file_digest
from trtbuild.jobs.foreign_operators import open_whole
from trtbuild.jobs.paths import check_paths, data_inputs, is_same_file, named_inputs
from trtbuild.json_codec import Document
from trtbuild.latency.baseline import (
    Baseline,
    check_device,
    check_inputs,
    load_baseline,
    save_baseline,
    timed_inputs,
)
from trtbuild.latency.conditions import Conditions, Device, Monitor, this_device
from trtbuild.latency.layer_times import LayerTimes, measure_layers
from trtbuild.latency.limits import SpeedFinding, latency_finding, speedup_finding
from trtbuild.latency.measure import Samples, measure
from trtbuild.latency.regress import (
    Answer,
    LatencyVerdict,
    against_baseline,
    taken_together,
)
from trtbuild.latency.stats import summarize
from trtbuild.machine import package_versions
from trtbuild.model import fixed_batch, read_model, with_batch_axes
from trtbuild.model.reading import parse_proto
from trtbuild.model.repair import has_float64_ends
from trtbuild.model.writing import temporary_file
from trtbuild.progress import Progress, silent
from trtbuild.runtime.onnxruntime_profile import ProfiledNetwork
from trtbuild.runtime.tensorrt import TensorRTSession
from trtbuild.verification.matching import check_same_interface
from trtbuild.verification.ruling import CANNOT_TELL, FAST_ENOUGH, TOO_SLOW, Ruling
from trtbuild.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from trtbuild.data import DataRecipe, Source
    from trtbuild.jobs.paths import Besides
    from trtbuild.latency.layer_times import ProfiledSession
    from trtbuild.latency.stats import LatencySummary
    from trtbuild.model.signature import TensorSpec
    from trtbuild.recipes import BenchRecipe
    from trtbuild.runtime.session import Feeds, Session

__all__ = ["BenchResult", "LatencyRecord", "bench"]

# The turns cycle through this many batches: power, and so clocks, depend on the values.
_NUM_BATCHES = 8
_CONTROL = "again"
# A profiler's clock counts microseconds, and a small layer takes only a few of them.
_PROFILED_RUNS = 64


@dataclass(frozen=True)
class LatencyRecord(Document):
    """Latencies, and the conclusions from them.

    Attributes:
        ruling: whether the engine is fast enough; None if it was not compared and had no limit to meet.
        latencies: of each session and batch size.
        verdicts: one per batch size; empty without anything to compare with.
        speed: findings for the limits on speed, for each batch size.
        device: where they were measured.
        conditions: what the machine did meanwhile.
        remarks: what about the conditions makes latencies less certain.
        data: description of the data.
        layers: time of each layer; None if not asked for.
    """

    SCHEMA = "trtbuild.latency"

    ruling: Ruling | None
    latencies: tuple[LatencySummary, ...]
    verdicts: tuple[LatencyVerdict, ...]
    speed: tuple[SpeedFinding, ...]
    device: Device
    conditions: Conditions
    remarks: tuple[str, ...]
    data: str
    layers: LayerTimes | None = None


@dataclass(frozen=True)
class BenchResult:
    """Latencies, and the conclusions from them.

    Attributes:
        samples: latencies of each session and batch size.
        verdicts: one per batch size; empty without anything to compare with.
        speed: findings for the limits on speed, for each batch size.
        device: where they were measured.
        conditions: what the machine did meanwhile.
        data: description of the data.
        layers: time of each layer; None if not asked for.
    """

    samples: tuple[Samples, ...]
    verdicts: tuple[LatencyVerdict, ...]
    speed: tuple[SpeedFinding, ...]
    device: Device
    conditions: Conditions
    data: str
    layers: LayerTimes | None = None

    @property
    def slower(self) -> bool:
        """Whether the engine is slower at any batch size."""
        return any(verdict.answer is Answer.SLOWER for verdict in self.verdicts)

    @property
    def too_slow(self) -> bool:
        """Whether a limit on speed fails at any batch size."""
        return any(not finding.passed for finding in self.speed)

    @property
    def unclear(self) -> bool:
        """Whether nothing can be said at some batch size."""
        unclear = any(verdict.answer is Answer.CANNOT_TELL for verdict in self.verdicts)
        return unclear or any(not finding.settled for finding in self.speed)

    @property
    def ruling(self) -> Ruling | None:
        """Whether the engine is fast enough; None if it was not compared and had no limit to meet."""
        if self.slower:
            return Ruling(TOO_SLOW, "it is slower")
        if self.too_slow:
            return Ruling(TOO_SLOW, "it is slower than a limit allows")
        if self.unclear:
            what = "whether all limits hold" if self.speed else "whether it is slower"
            advice = "measure longer (--seconds), or on a quieter machine"
            return Ruling(CANNOT_TELL, f"{what}; {advice}")
        if self.speed:
            return Ruling(FAST_ENOUGH, "every limit on speed holds")
        return Ruling(FAST_ENOUGH, "it is not slower") if self.verdicts else None

    @property
    def record(self) -> LatencyRecord:
        """The part that programs read: summaries instead of all samples."""
        return LatencyRecord(
            ruling=self.ruling,
            latencies=tuple(map(summarize, self.samples)),
            verdicts=self.verdicts,
            speed=self.speed,
            device=self.device,
            conditions=self.conditions,
            remarks=tuple(self.conditions.remarks()),
            data=self.data,
            layers=self.layers,
        )


@in_one_tree()
def bench(
    recipe: BenchRecipe, progress: Progress = silent, besides: Besides | None = None
) -> BenchResult:
    """Time the engine, and compare it if there is something to compare with.

    Args:
        recipe: what to time, and what to compare it with.
        progress: called in every stage.
        besides: other files that the command reads and writes.

    Raises:
        InputError: an option or a file is wrong, the engines do not match, a baseline is of another device
            or network, or the data does not fit.
        MissingError: the backend does not work here.
    """
    if not recipe.margin_percent > 0:  # before the measurement
        raise OptionError(f"--within must be above 0 %, not {recipe.margin_percent:g}.")
    _check_paths(recipe, besides)
    device = this_device()
    baseline = _baseline(recipe, device)
    with contextlib.ExitStack() as stack:
        files = _files(recipe, stack)
        sessions = _open(recipe, files, stack)
        engine = sessions[recipe.engine.name]
        if baseline is not None and recipe.against is not None:
            check_inputs(baseline, engine.inputs, str(recipe.engine), recipe.against)
        inputs = with_batch_axes(engine.inputs, said=recipe.data.batch_axes).inputs
        source = _source(recipe.data, inputs)
        sizes = _batch_sizes(recipe, inputs)
        monitor = Monitor()
        samples, verdicts = [], []
        speed: list[SpeedFinding] = []
        for size in sizes:
            taken = measure(sessions, _feeds(source, size), recipe.measure, batch_size=size,
                            progress=progress)  # fmt: skip
            samples += [taken[name] for name in taken if name != _CONTROL]
            found = _verdicts(recipe, taken, baseline)
            verdicts += found
            speed += _limited(recipe, taken[recipe.engine.name], found)
        result = BenchResult(
            samples=tuple(samples),
            verdicts=tuple(verdicts),
            speed=tuple(speed),
            device=device,
            conditions=monitor.conditions(),
            data=source.description,
        )
        if recipe.layer_times is not None:
            layers = _layer_times(recipe, files, _feeds(source, sizes[0]), stack)
            layers.write(recipe.layer_times)
            result = replace(result, layers=layers)
    if recipe.save_baseline is not None:
        _save(recipe, result, engine.inputs)
    return result


def _files(recipe: BenchRecipe, stack: contextlib.ExitStack) -> Mapping[Path, Path]:
    """Engine -> the file that is timed: of a network in float64, a copy in float32, as builds read it."""
    named = [recipe.engine]
    if recipe.against is not None and not _is_baseline(recipe.against):
        named.append(recipe.against)
    return {path: _in_float32(path, stack) for path in named}


def _in_float32(path: Path, stack: contextlib.ExitStack) -> Path:
    if path.suffix != ".onnx":
        return path
    try:
        proto = parse_proto(path)
    except ModelError:
        return path  # opening it reports the error
    if not has_float64_ends(proto):
        return path
    return stack.enter_context(temporary_file(read_model(path), path.stem))


def _layer_times(
    recipe: BenchRecipe,
    files: Mapping[Path, Path],
    feeds: Sequence[Feeds],
    stack: contextlib.ExitStack,
) -> LayerTimes:
    """Profile the engine in a separate session, because a profiler slows down what it measures."""
    if recipe.engine.suffix == ".onnx":
        source = f"ONNX Runtime {package_versions('onnxruntime')['onnxruntime']}'s profiler"
        profiled: ProfiledSession = ProfiledNetwork(files[recipe.engine])
        stack.callback(profiled.close)
    else:
        session = open_whole(recipe.engine, recipe.backend, recipe.tensorrt)
        stack.callback(session.close)
        if not isinstance(session, TensorRTSession):
            raise OptionError(
                f"--layer-times: the runtime that opens '{recipe.engine}' does not time its layers."
            )
        source, profiled = "TensorRT's profiler", session
    return measure_layers(profiled, feeds, _PROFILED_RUNS, source)


def _check_paths(recipe: BenchRecipe, besides: Besides | None) -> None:
    """Check all paths. A baseline may be replaced by itself, because it is read before it is written."""
    against = recipe.against
    if _is_baseline(against) and is_same_file(recipe.save_baseline, against):
        against = None
    reads = named_inputs(the_engine=recipe.engine, what_it_is_compared_with=against)
    writes = [recipe.save_baseline, recipe.layer_times]
    check_paths((*reads, *data_inputs(recipe.data)), writes, besides)


def _is_baseline(path: Path | None) -> bool:
    return path is not None and path.suffix == ".json"


def _baseline(recipe: BenchRecipe, device: Device) -> Baseline | None:
    if recipe.save_baseline is not None and len(recipe.batch_sizes) > 1:
        raise OptionError("a baseline holds one batch size; give one with --batch-size.")
    if recipe.speed_limits.min_speedup is not None and recipe.against is None:
        raise OptionError(
            "--min-speedup needs something to compare with: --against ENGINE or --against BASELINE.json."
        )
    if recipe.against is None or not _is_baseline(recipe.against):
        return None
    baseline = load_baseline(recipe.against)
    check_device(baseline, device, recipe.against)
    return baseline


def _open(
    recipe: BenchRecipe, files: Mapping[Path, Path], stack: contextlib.ExitStack
) -> dict[str, Session]:
    """Return the opened engine; an engine to compare with comes before it, and a second time after it."""

    def opened(path: Path) -> Session:
        session = open_whole(files[path], recipe.backend, recipe.tensorrt)
        stack.callback(session.close)
        return session

    engine = opened(recipe.engine)
    if recipe.against is None or _is_baseline(recipe.against):
        return {recipe.engine.name: engine}
    base = opened(recipe.against)
    check_same_interface(base, engine, str(recipe.engine), of="the other engine")
    name = recipe.against.name
    if name == recipe.engine.name:
        path = str(recipe.against)
        name = f"{os.curdir}{os.sep}{path}" if path == name else path
    return {name: base, recipe.engine.name: engine, _CONTROL: opened(recipe.against)}


def _source(data: DataRecipe, inputs: Sequence[TensorSpec]) -> Source:
    named = data.verify_data or data.data
    if named is None:
        return RandomSource(inputs, seed=data.seed)
    return open_named(named, data, inputs)


def _batch_sizes(recipe: BenchRecipe, inputs: Sequence[TensorSpec]) -> tuple[int, ...]:
    fixed = fixed_batch(inputs)
    wanted = recipe.batch_sizes or (fixed or 1,)
    for size in wanted:
        if fixed not in (None, size):
            raise OptionError(
                f"'{recipe.engine}' was built for batch {fixed}, not {size};"
                " leave --batch-size out, or build it with a dynamic batch."
            )
    return wanted


def _feeds(source: Source, size: int) -> list[Feeds]:
    samples = itertools.islice(source, size * _NUM_BATCHES)
    found: list[Feeds] = [
        batch.feeds for batch in batches(samples, size) if len(batch.names) == size
    ]
    if not found:
        raise DataError(
            f"'{source.description}' holds fewer than {counted(size, 'sample')}, one batch."
        )
    return found


def _verdicts(
    recipe: BenchRecipe, taken: Mapping[str, Samples], baseline: Baseline | None
) -> list[LatencyVerdict]:
    candidate = taken[recipe.engine.name]
    if baseline is not None and recipe.against is not None:
        # named after its file: the baseline's engine often has the same name as this one
        base = replace(baseline.samples, name=recipe.against.name)
        return [against_baseline(base, candidate, recipe.margin_percent)]
    if _CONTROL not in taken:
        return []
    base = next(samples for name, samples in taken.items() if name != recipe.engine.name)
    return [taken_together(base, candidate, taken[_CONTROL], recipe.margin_percent)]


def _limited(
    recipe: BenchRecipe, engine: Samples, verdicts: Sequence[LatencyVerdict]
) -> Iterator[SpeedFinding]:
    """The findings for the limits on speed at one batch size."""
    limits = recipe.speed_limits
    if limits.max_latency is not None:
        yield latency_finding(engine, limits.max_latency)
    if limits.min_speedup is not None:
        yield from (speedup_finding(verdict, limits.min_speedup) for verdict in verdicts)


def _save(recipe: BenchRecipe, result: BenchResult, inputs: Sequence[TensorSpec]) -> None:
    assert recipe.save_baseline is not None
    samples = next(one for one in result.samples if one.name == recipe.engine.name)
    baseline = Baseline(
        engine=recipe.engine.name,
        engine_digest=file_digest(recipe.engine),
        device=result.device,
        taken_at=Baseline.now(),
        samples=samples,
        conditions=result.conditions,
        versions=package_versions("trtbuild", "onnxruntime", "tensorrt"),
        inputs=timed_inputs(inputs),
    )
    save_baseline(baseline, recipe.save_baseline)
