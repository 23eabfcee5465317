"""Fixtures for a deployment repository's own tests; pytest finds them once trtbuild is installed.

::

    def test_accuracy(assert_accuracy):
        assert_accuracy("net.onnx", "net.int8.onnx", data="val.npz", max_top1_drop=0.5)

    def test_latency(assert_not_slower):
        assert_not_slower("net.plan", against="baselines", within=3.0)

A folder given as `against` holds one baseline per device; ``pytest --trtbuild-save-baselines`` writes
the one of this machine, and without one the test is skipped with a sentence that says so. Wrong
arguments fail the test with one sentence, without a traceback.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import pytest

from trtbuild.errors import OptionError, TrtbuildError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from trtbuild.data import DataRecipe, Preprocess
    from trtbuild.jobs.bench import BenchResult
    from trtbuild.jobs.verify import Verification
    from trtbuild.options.data import Data
    from trtbuild.options.measure import SpeedLimits
    from trtbuild.recipes import BenchRecipe

__all__ = ["AccuracyAssertion", "LatencyAssertion", "assert_accuracy", "assert_not_slower"]


# Arguments for the task -> fields of `trtbuild.options.compare.TaskOptions`.
_TASK = {"task": "kind", **{name: name for name in ("box_layout", "min_score", "judge")}}


_P = ParamSpec("_P")
_T = TypeVar("_T")

# Endings of the file names of baselines and engines; other dots (`v1.2`) are part of the name.
_FILES = (".json", ".onnx", ".plan", ".engine", ".trt")

# Flags of the command line whose counterpart here has another name.
_FLAGS = {"--save-baseline": "--trtbuild-save-baselines"}
_ARGUMENTS = (
    r"--(data|labels|preprocess|num-images|batch-size|backend|against|within|seconds|strict"
    r"|task|box-layout|min-score|judge|(?:min|max)-[a-z0-9-]+)(?![a-z-])"
)


def _in_one_sentence(assertion: Callable[_P, _T]) -> Callable[_P, _T]:
    """Wrap an assertion: errors of trtbuild fail the test with one sentence, without a traceback."""

    @functools.wraps(assertion)
    def called(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        __tracebackhide__ = True
        try:
            return assertion(*args, **kwargs)
        except TrtbuildError as error:
            said = str(error)
        # after the block: pytest would also show the error's context
        pytest.fail(_in_python(said), pytrace=False)

    return called


def _in_python(text: str) -> str:
    """Replace flags of the command line in a text by Python arguments."""
    for flag, name in _FLAGS.items():
        text = re.sub(rf"{flag}(?![a-z-])", name, text)
    text = re.sub(r"--task (classify|detect|ctc|embed|segment|restore)\b", r"task='\1'", text)
    return re.sub(_ARGUMENTS, lambda found: found[1].replace("-", "_") + "=", text)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of this plugin."""
    group = parser.getgroup("trtbuild", "accuracy and latency of engines")
    group.addoption(
        "--trtbuild-save-baselines",
        action="store_true",
        help="measure latencies anew and keep them as this device's baselines",
    )


@dataclass(frozen=True)
class AccuracyAssertion:
    """Called in a test; see `assert_accuracy`."""

    @_in_one_sentence
    def __call__(
        self,
        reference: str | Path,
        engine: str | Path,
        *,
        data: Data,
        labels: str | Path | None = None,
        preprocess: Preprocess | str | Path | None = None,
        num_images: int | None = None,
        batch_size: int = 8,
        backend: str = "auto",
        **limits: Any,
    ) -> Verification:
        """Compare `engine` with the float network `reference`, and fail if a limit fails.

        Args:
            reference: float ONNX file.
            engine: a plan or an ONNX file.
            data: as for ``--data``, or an object that gives batches, as for `trtbuild.build`.
            labels: as for ``--labels``.
            preprocess: how pixels become inputs, or a TOML file with it.
            num_images: number of images; None for all.
            batch_size: images per run, if the network's batch is dynamic.
            backend: backend that opens the engine.
            **limits: fields of `trtbuild.verification.gate.Gate`; and the options of ``verify`` for the
                task: ``task``, ``box_layout``, ``min_score``, ``judge``. With ``strict=True`` the verdict
                CANNOT TELL fails, too.

        Returns:
            The result, for further assertions.

        Raises:
            AssertionError: a limit fails; the message has the numbers.
            pytest.fail.Exception: the files, the data or the options do not fit, or a package is missing.
        """
        __tracebackhide__ = True
        from trtbuild.jobs.verify import verify
        from trtbuild.options.compare import TaskOptions
        from trtbuild.recipes import VerifyRecipe
        from trtbuild.verification.gate import Gate, check_limits

        _check_numbers({"num_images": num_images, "batch_size": batch_size}, whole=True)
        strict = bool(limits.pop("strict", False))
        check_limits(set(limits) - set(_TASK))
        task = {_TASK[name]: limits.pop(name) for name in _TASK if name in limits}
        found = verify(
            VerifyRecipe(
                reference=Path(reference),
                engine=Path(engine),
                data=_data(data, labels, preprocess, num_images),
                backend=backend,
                batch_size=batch_size,
                task=TaskOptions(**task),
                gate=Gate(**limits),
            )
        )
        if found.ruling.exit_code(is_strict=strict):
            raise AssertionError(_why_not(found))
        return found


@dataclass(frozen=True)
class LatencyAssertion:
    """Called in a test; see `assert_not_slower`."""

    save_baselines: bool = False

    @_in_one_sentence
    def __call__(
        self,
        engine: str | Path,
        *,
        against: str | Path | None = None,
        within: float = 2.0,
        data: Data | None = None,
        preprocess: Preprocess | str | Path | None = None,
        batch_size: int | None = None,
        seconds: float = 3.0,
        backend: str = "auto",
        **limits: float,
    ) -> BenchResult:
        """Time `engine` against another engine or a baseline, and fail if it is slower.

        It also fails if the engine is slower than a limit allows; ``min_speedup`` is ignored while a
        baseline is saved. The test is skipped, with the numbers, if the machine is too noisy to tell.

        Args:
            engine: a plan or an ONNX file.
            against: another engine; a baseline file; or a folder of baselines, one per device. None compares
                with nothing, for `max_latency`.
            within: smaller differences count as the same, percent.
            data: the data to run on; without any, random numbers.
            preprocess: how pixels become inputs, or a TOML file with it.
            batch_size: None uses the engine's fixed batch size, else 1.
            seconds: how long to measure.
            backend: backend that opens the engines.
            **limits: ``min_speedup``, the minimum speed as a multiple of that of `against`, and
                ``max_latency``, the maximum median latency of one batch in milliseconds. With ``strict=True``
                it fails, too, where it would be skipped: on a noisy machine, and without a baseline.

        Returns:
            The measurements.

        Raises:
            AssertionError: it is slower, or a limit fails; the message has the numbers.
            pytest.fail.Exception: a file or baseline does not fit, nothing is asked, or a package is missing.
        """
        __tracebackhide__ = True
        from trtbuild.jobs.bench import bench
        from trtbuild.options.measure import MeasureOptions
        from trtbuild.recipes import BenchRecipe

        _check_numbers({"within": within, "seconds": seconds})
        _check_numbers({"batch_size": batch_size}, whole=True)
        give_up = _fail if limits.pop("strict", False) else pytest.skip
        speed_limits = _speed_limits(limits)
        base = _base_for(against, Path(engine), speed_limits)
        recipe = BenchRecipe(
            engine=Path(engine),
            against=base,
            data=_data(data, None, preprocess, None),
            backend=backend,
            batch_sizes=() if batch_size is None else (batch_size,),
            measure=MeasureOptions(duration_ms=1000.0 * seconds),
            margin_percent=within,
            speed_limits=speed_limits,
        )
        if base is not None and self._has_to_be_saved(base):
            recipe = self._saving(recipe, base, give_up)
        return _fast_enough(bench(recipe), give_up)

    def _has_to_be_saved(self, base: Path) -> bool:
        """Whether `base` is a baseline that does not exist, or that is to be measured again."""
        return base.suffix == ".json" and (self.save_baselines or not base.exists())

    def _saving(
        self, recipe: BenchRecipe, base: Path, give_up: Callable[[str], object]
    ) -> BenchRecipe:
        """The recipe that writes `base`, and compares with nothing."""
        from dataclasses import replace

        from trtbuild.files import make_directory

        if not self.save_baselines:
            give_up(
                f"no baseline of this device, '{base}'; pytest --trtbuild-save-baselines writes it"
            )
        make_directory(base.parent)
        limits = replace(recipe.speed_limits, min_speedup=None)
        return replace(recipe, against=None, save_baseline=base, speed_limits=limits)


def _why_not(found: Verification) -> str:
    """The ruling, and the failed limits that it does not name."""
    failures = [str(failure) for failure in found.verdict.failures]
    told = [text for text in failures if text not in found.ruling.why]
    return _in_python("; ".join([str(found.ruling), *told]))


def _base_for(against: str | Path | None, engine: Path, limits: SpeedLimits) -> Path | None:
    """The engine or baseline to compare with; None for a limit on the latency alone."""
    if against is not None:
        return _baseline_file(Path(against), engine)
    if limits.max_latency is None:
        raise OptionError("assert_not_slower needs --against, or a limit by --max-latency.")
    return None


def _check_numbers(given: Mapping[str, object], *, whole: bool = False) -> None:
    """Check arguments that are numbers above 0; whole ones may be None."""
    kind, words = (Integral, "whole number") if whole else (Real, "number")
    for name, value in given.items():
        if whole and value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, kind) or not float(value) > 0:
            raise OptionError(f"{name} must be a {words} above 0, not {value!r}.")


def _speed_limits(limits: dict[str, float]) -> SpeedLimits:
    from trtbuild.options.measure import SpeedLimits
    from trtbuild.verification.gate import check_limits

    check_limits(limits, SpeedLimits)
    return SpeedLimits(**limits)


def _fail(reason: str) -> None:
    __tracebackhide__ = True
    raise AssertionError(reason)


def _fast_enough(found: BenchResult, give_up: Callable[[str], object]) -> BenchResult:
    """Return `found`; fail if the engine is too slow, and call `give_up` if that cannot be told."""
    __tracebackhide__ = True
    from trtbuild.verification.ruling import CANNOT_TELL, TOO_SLOW

    ruling = found.ruling
    said = "; ".join(map(str, (*found.verdicts, *found.speed)))
    if ruling is not None and ruling.word == TOO_SLOW:
        raise AssertionError(f"{ruling}; {said}")
    if ruling is not None and ruling.word == CANNOT_TELL:
        give_up(f"{CANNOT_TELL}: {said}")
    return found


def _data(
    data: Data | None,
    labels: str | Path | None,
    preprocess: Preprocess | str | Path | None,
    num_images: int | None,
) -> DataRecipe:
    from trtbuild.data import DataRecipe
    from trtbuild.options.preprocess import read_preprocess

    if isinstance(preprocess, str | Path):
        preprocess = read_preprocess(Path(preprocess), {})
    return DataRecipe(
        data=data,
        labels=None if labels is None else Path(labels),
        preprocess=preprocess,
        num_images=num_images,
    )


def _baseline_file(against: Path, engine: Path) -> Path:
    """The file meant by `against`: in a folder, the baseline of this engine and this device.

    A path that does not exist is a folder, unless its suffix is that of a baseline or engine.
    """
    if against.is_file() or (not against.is_dir() and against.suffix in _FILES):
        return against
    from trtbuild.latency.conditions import this_device

    return against / f"{engine.stem}.{this_device().slug}.json"


@pytest.fixture(scope="session")
def assert_accuracy() -> AccuracyAssertion:
    """Compares an engine with its float network and fails if a limit fails."""
    return AccuracyAssertion()


@pytest.fixture(scope="session")
def assert_not_slower(pytestconfig: pytest.Config) -> Any:
    """Times an engine against another or a baseline and fails if it is slower."""
    return LatencyAssertion(pytestconfig.getoption("--trtbuild-save-baselines"))
