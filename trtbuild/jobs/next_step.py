"""The next step for the user: the step that most probably helps with the verdict, as a ready command.

For a build, in order of what it rules out first:

    wrong data                    other preprocessing, a new calibration, another cache
    outputs that are all noise    other preprocessing, unless clipping is the cause
    outputs below the floor that a limit lets pass:
                                  the same as for a limit that fails
    too few samples               the number to verify on, if it is in reach
    no limit                      a limit on the known figure, which also starts the search
    only a limit on speed         a longer measurement; if it fails, the layers that take the time
    a limit that fails, or that no number of samples in reach settles:
                                  the search for a budget; a larger share in float, if the search would meet
                                  the limit with it; more effort to choose ranges; then the layer that
                                  costs the outputs most, in float; then more calibration data; if nothing
                                  is calibrated, other samples
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtbuild.data.account import RANDOM, REPEATED, WRONG_INPUT
from trtbuild.manifest import NextStep
from trtbuild.options.command import command_line
from trtbuild.options.data import FOLDERS
from trtbuild.options.effort import Effort
from trtbuild.options.tables import to_table
from trtbuild.options.values import IN_MEMORY
from trtbuild.titles import TENSORRT_FORM
from trtbuild.verification.gate import TOP1_LOST
from trtbuild.verification.ruling import (
    CANNOT_TELL,
    DO_NOT_SHIP,
    FAR_SQNR_DB,
    NOT_JUDGED,
    SAYS_LITTLE,
    SHIP,
    UNLIKE_LISTS,
    samples_needed,
)
from trtbuild.verification.tasks.user_judge import BLIND
from trtbuild.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from trtbuild.recipes import EngineRecipe, VerifyRecipe
    from trtbuild.result import EngineResult
    from trtbuild.verification.compare import Comparison
    from trtbuild.verification.gate import Finding, Verdict
    from trtbuild.verification.ruling import Ruling
    from trtbuild.verification.tasks.base import TaskScore

__all__ = ["after_engine", "after_verify", "built_by"]

MORE = "MORE_SAMPLES"
"""Placeholder for data that the user has to find."""

MORE_LABELS = "MORE_LABELS"
"""Placeholder for the labels of these data; used if the replaced samples had labels."""

_JUDGE = "MODULE:FUNCTION"

# Keeping a layer in float is worth it from half a bit of SQNR at the outputs.
_WORTH_DB = 3.0
# At 0 dB the error is as large as the output itself: no signal is left.
_NO_SIGNAL_DB = 1.0
# With fewer samples, each one moves a share by more than five points.
_FEW_SAMPLES = 20

# If more than this factor of samples is needed, improving the engine is quicker than collecting them.
_IN_REACH = 50

# The interval of a median shrinks with the root of the measuring time.
_LONGER = 10

_LIMIT_ON = {"%": "95", "dB": "30"}
_LIMIT_SQNR = {"--min-sqnr": "20"}


@dataclass(frozen=True)
class _Step:
    """A change of a command: why, the flags to add with their values, and a flag to leave out."""

    why: str
    added: Mapping[str, str] = field(default_factory=dict)
    skip: str = ""


_UNCHANGED = _Step("")
_PREPROCESS = _Step(
    "give the preprocessing that the network was trained with", {"--preprocess": "PREPROCESS.toml"}
)


def after_engine(result: EngineResult, recipe: EngineRecipe) -> NextStep | None:
    """Return what to do after a build; None for an engine that can be shipped."""
    if result.ruling.word == SHIP:
        return None
    never_ran = result.ruling.word == NOT_JUDGED and bool(result.engine.not_opened)
    if never_ran and recipe.gate.limits and not result.below_floor:
        return _run_it(result, recipe)
    speed = _speed(result, recipe)
    if speed is not None:
        return speed
    fails = result.ruling.word == DO_NOT_SHIP
    if fails or (
        _rounds_activations(recipe) and _is_out_of_reach(result.ruling, *_figures(result))
    ):
        step = _all_noise(result, recipe) or _mended(result, recipe)
    elif recipe.tensorrt.cache is not None and result.unused_cache:
        words = ["trtbuild", "cache", "convert", str(recipe.tensorrt.cache), str(recipe.model)]
        words += ["-o", f"{recipe.model.stem}.int8.onnx"]
        return NextStep("turn the cache into Q/DQ, and see what it covers", shlex.join(words))
    else:
        step = (
            _wrong_data(result, recipe)
            or _all_noise(result, recipe)
            or (_mended(result, recipe) if _is_let_pass(result, recipe) else None)
            or _judged(result.ruling, *_figures(result))
        )
        if step.added == _LIMIT_SQNR and not result.artifact.came_in_float:
            # training changes what a network computes, so its distance from float says nothing
            step = _Step("say what the network is for (--task), or give labels", {"--task": "TASK"})
    return NextStep(step.why, _again(recipe, step))


def after_verify(
    ruling: Ruling,
    comparison: Comparison,
    verdict: Verdict,
    recipe: VerifyRecipe,
    *,
    spoilt: Sequence[str] = (),
) -> NextStep | None:
    """Return what to do after an engine was compared; None if it can be shipped.

    Args:
        ruling: the answer.
        comparison: the figures.
        verdict: the limits that were checked on them.
        recipe: what was compared.
        spoilt: why figures on the samples cannot be trusted.
    """
    if ruling.word == SHIP:
        return None
    arguments = (_name_of(recipe), str(recipe.engine))
    other = _other_data(spoilt, "--data")
    if other is not None:
        return NextStep(other.why, _command("verify", arguments, recipe, other))
    if ruling.word != DO_NOT_SHIP and not _is_out_of_reach(ruling, [comparison], [verdict]):
        step = _judged(ruling, [comparison], [verdict], "--data")
        return NextStep(step.why, _command("verify", arguments, recipe, step))
    if recipe.engine.suffix == ".onnx" and isinstance(recipe.reference, Path):
        why = "see which layers cost the most accuracy, for --float of the next build"
        return NextStep(why, _command("verify", arguments, recipe, _Step(why)) + " --layers")
    data = [str(recipe.data.data)] if isinstance(recipe.data.data, str) else [MORE]
    build = ["trtbuild", "engine", arguments[0], "--int8", "--data", *data, *_limits(recipe)]
    return NextStep("build with the limit as a budget", shlex.join(build))


def _speed(result: EngineResult, recipe: EngineRecipe) -> NextStep | None:
    """The next step if only limits on speed prevent SHIP; else None."""
    limits = [one for found in result.speed.values() for one in found]
    accuracy_fails = not all(verdict.passed for verdict in result.verdicts.values())
    if result.ruling.word == DO_NOT_SHIP and not accuracy_fails:
        engine = str(recipe.output / result.engine.path.name)
        words = ["trtbuild", "bench", engine, "--layer-times", f"{result.artifact.name}.times.json"]
        return NextStep("see which layers take the time", shlex.join(words))
    unclear = any(not one.settled for one in limits) and not _doubtful(result.verdicts.values())
    if result.ruling.word == CANNOT_TELL and unclear:
        assert recipe.latency is not None  # otherwise no limit on speed would have been checked
        seconds = f"{_LONGER * recipe.latency.duration_ms / 1000:g}"
        why = "measure for longer, on a machine that does nothing else"
        return NextStep(why, _again(recipe, _Step(why, {"--seconds": seconds})))
    return None


def _run_it(result: EngineResult, recipe: EngineRecipe) -> NextStep:
    """The step for an engine that could not run where it was built: judge it on another machine."""
    named = recipe.data.verify_data or recipe.data.data
    data = named if isinstance(named, str) else MORE
    engine = str(recipe.output / result.engine.path.name)
    words = ["trtbuild", "verify", str(recipe.model), engine, "--data", data, *_limits(recipe)]
    return NextStep("judge the engine on a machine that can run it", shlex.join(words))


def _limits(recipe: EngineRecipe | VerifyRecipe) -> list[str]:
    """A recipe's limits on accuracy as words of a command."""
    limits = recipe.gate.limits.items()
    return [word for name, v in limits for word in (f"--{name.replace('_', '-')}", f"{v:g}")]


def _wrong_data(result: EngineResult, recipe: EngineRecipe) -> _Step | None:
    """The step for wrong calibration data."""
    if result.moved_ranges:
        return _Step("calibrate anew", _data_for(recipe), "--calibration")
    return _other_data(result.spoilt_data)


def _other_data(spoilt: Sequence[str], verifying: str = "--verify-data") -> _Step | None:
    """The step for samples on which figures cannot be trusted: give others.

    Args:
        spoilt: what is wrong with them.
        verifying: the flag of the data that verifies.
    """
    if RANDOM in spoilt:
        return _Step("give data like what the network will see", {"--data": MORE}, "--random-data")
    if any(why.startswith(WRONG_INPUT) for why in spoilt):
        return _PREPROCESS
    if any(why.startswith(REPEATED) for why in spoilt):
        return _Step("verify on samples that differ", {verifying: MORE})
    return None


def _all_noise(result: EngineResult, recipe: EngineRecipe) -> _Step | None:
    """The step if the outputs of all forms are noise and clipping is not the cause.

    Ranges that hold all values leave only rounding errors, which networks tolerate on inputs like those that
    they were trained on.
    """
    found = [
        [o.judged_sqnr_db.value for o in comparison.outputs if o.judged_sqnr_db is not None]
        for comparison in result.comparisons.values()
    ]
    if not found or not all(values and max(values) <= _NO_SIGNAL_DB for values in found):
        return None
    if not result.artifact.came_in_float:  # training changes what a network computes
        return None
    if recipe.data.random_data or not _has_signals(result) or _may_clip(result):
        return None
    why = (
        "check that the preprocessing is what the network expects (scale, mean, std, color order): its "
        "outputs in INT8 are noise, and clipping is not the cause"
    )
    return _Step(why, _PREPROCESS.added)


def _has_signals(result: EngineResult) -> bool:
    """Whether an input takes images or signals, which preprocessing may change."""
    records = (one.details for one in result.artifact.history if one.stage == "data")
    return any(details.get("inputs") for details in records)


def _may_clip(result: EngineResult) -> bool:
    """Whether clipping, not rounding, spoils an activation, or layers were not examined."""
    return result.layers is None or any(
        one.sqnr_db < FAR_SQNR_DB and one.clipping_noise_percent > 50
        for one in result.layers.activations
    )


def _is_let_pass(result: EngineResult, recipe: EngineRecipe) -> bool:
    """Whether limits pass although outputs are below the floor, so that another limit would not help."""
    return (
        result.ruling.word == NOT_JUDGED
        and bool(recipe.gate.limits)
        and UNLIKE_LISTS not in result.ruling.why
        and any(SAYS_LITTLE not in why for why in result.poor_figures)
    )


def _figures(result: EngineResult) -> tuple[list[Comparison], list[Verdict]]:
    return list(result.comparisons.values()), list(result.verdicts.values())


def _is_out_of_reach(
    ruling: Ruling, comparisons: Sequence[Comparison], verdicts: Sequence[Verdict]
) -> bool:
    """Whether the answer is CANNOT TELL and even many times the samples would not change that."""
    if ruling.word != CANNOT_TELL:
        return False
    most = _IN_REACH * max(comparison.num_images for comparison in comparisons)
    return any((one.num_needed or 0) > most for one in _doubtful(verdicts))


def _doubtful(verdicts: Iterable[Verdict]) -> list[Finding]:
    """The limits that more samples would settle."""
    findings = (finding for verdict in verdicts for finding in verdict.findings)
    return [finding for finding in findings if finding.is_limit and not finding.settled]


def _judged(
    ruling: Ruling,
    known: Sequence[Comparison],
    verdicts: Sequence[Verdict],
    data_flag: str = "--verify-data",
) -> _Step:
    """The step towards a verdict for an engine with no failed limit."""
    if ruling.word == CANNOT_TELL:
        return _Step(f"verify on {samples_needed(_doubtful(verdicts))}", {data_flag: MORE})
    tasks = [comparison.task for comparison in known if comparison.task is not None]
    step = _for_lists(ruling, verdicts) or _without_figure(tasks, known[0].num_images, data_flag)
    if step is not None:
        return step
    is_judged = any(one.what == TOP1_LOST for verdict in verdicts for one in verdict.findings)
    if not is_judged and any(comparison.accuracy is not None for comparison in known):
        return _Step("set a limit on what top-1 may lose", {"--max-top1-drop": "1"})
    figures = [task.main for task in tasks if task.main is not None]
    if figures:
        main = figures[0]
        limit = _LIMIT_ON.get(main.unit, f"{main.estimate.value:.4g}")
        return _Step(f"set a limit on '{main.name}'", {"--min-agreement": limit})
    if any(output.num_incomparable for comparison in known for output in comparison.outputs):
        why = "give a judge that compares lists of unlike lengths, or say what the network is for (--task)"
        return _Step(why, {"--judge": _JUDGE})
    return _Step("say what the network is for (--task), or limit the SQNR", _LIMIT_SQNR)


def _for_lists(ruling: Ruling, verdicts: Sequence[Verdict]) -> _Step | None:
    """The step where limits hold that do not judge lists of unlike lengths."""
    has_limit = any(finding.is_limit for verdict in verdicts for finding in verdict.findings)
    if UNLIKE_LISTS not in ruling.why or not has_limit:
        return None
    why = "give a judge that compares lists of unlike lengths, instead of the task's"
    return _Step(why, {"--judge": _JUDGE}, "--task")


def _without_figure(tasks: Sequence[TaskScore], num_images: int, data_flag: str) -> _Step | None:
    """The step towards a meaningful figure of the task; None if each task has one."""
    blind = next((one for one in tasks if one.main is None), None)
    if blind is not None:
        samples = counted(blind.num_samples, "sample")
        why = f"verify on other data: --task {blind.task} has no figure on {samples}"
        return _Step(why, {data_flag: MORE})
    if any(task.doubt == BLIND for task in tasks):
        return _Step("give a judge that tells wrong outputs from right ones", {"--judge": _JUDGE})
    if any(task.doubt or task.num_samples < _FEW_SAMPLES for task in tasks):
        return _Step(f"verify on more than {counted(num_images, 'sample')}", {data_flag: MORE})
    return None


def _mended(result: EngineResult, recipe: EngineRecipe) -> _Step:
    """The step that brings an engine nearer to float."""
    named = recipe.calibrate.method is not None or recipe.calibration is not None
    chooses = _rounds_activations(recipe)
    if chooses and recipe.tune is None and recipe.calibration is None and recipe.gate.limits:
        return _Step("let it search for the cheapest way to meet the limit", skip="--no-tune")
    if chooses and named and recipe.tensorrt.cache is None:
        flag = "--calibration" if recipe.calibration is not None else "--calibrator"
        why = "let the ranges be chosen by their effect on the outputs"
        return _Step(why, _data_for(recipe), flag)
    if chooses and (step := _wider_search(result, recipe)) is not None:
        return step
    group = _at_fault(result)
    if group is not None:
        why = f"keep '{group}' in float, which costs the most accuracy"
        return _Step(why, {"--float-group": group})
    if not chooses:
        return _Step("see whether other samples say the same", {"--verify-data": MORE})
    return _Step("calibrate on more data, like what the network will see", {"--data": MORE})


def _wider_search(result: EngineResult, recipe: EngineRecipe) -> _Step | None:
    """The step that searches further: more in float if that is known to suffice, else more effort."""
    enough = None if result.tuned is None else result.tuned.enough_float_percent
    if enough is not None:
        why = (
            f"let the search keep up to {enough:g} % of the multiply-accumulates in float: that meets the "
            "limit on its samples"
        )
        return _Step(why, {"--max-float": f"{enough:g}"})
    if recipe.effort is not Effort.HIGH:
        return _Step("try more ways to meet the limit", {"--effort": "high"})
    return None


def _data_for(recipe: EngineRecipe) -> dict[str, str]:
    """The flag for calibration data, if only a calibration file was given."""
    return {"--data": MORE} if recipe.data.data is None and not recipe.data.random_data else {}


def _rounds_activations(recipe: EngineRecipe) -> bool:
    """Whether activations are rounded; FP16 and weights-only builds have no ranges to choose."""
    return recipe.int8 and not recipe.weights_only


def _at_fault(result: EngineResult) -> str | None:
    """The group of the layer whose INT8 costs the outputs most, by measurement."""
    if result.layers is None or TENSORRT_FORM not in result.comparisons:
        return None
    gains = {
        one.node: one.effect.gained_db
        for one in result.layers.layers
        if one.effect is not None and one.effect.measured
    }
    worst = max(gains, key=lambda name: gains[name], default=None)
    if worst is None or gains[worst] < _WORTH_DB:
        return None
    return worst if worst in {group.name for group in result.artifact.groups} else None


def built_by(recipe: EngineRecipe) -> str:
    """Return the command of this build; empty if a script holds the data."""
    return _again(recipe, _UNCHANGED) if _is_text(recipe) else ""


def _again(recipe: EngineRecipe, step: _Step) -> str:
    if step.skip == "--calibrator":  # its options have no effect without it
        recipe = replace(recipe, calibrate=replace(recipe.calibrate, method_options={}))
    target = str(recipe.model) if recipe.export is None else recipe.export.source.name
    words = ("--int8",) if recipe.int8 else ()
    return _command("engine", (target, *words), recipe, step)


def _name_of(recipe: VerifyRecipe) -> str:
    given = recipe.reference
    return str(given) if isinstance(given, Path) else given.name


def _command(
    name: str,
    arguments: tuple[str, ...],
    recipe: EngineRecipe | VerifyRecipe,
    step: _Step,
) -> str:
    """The command; for data in a script, the keyword arguments to add to its call."""
    added = step.added
    if "--preprocess" in added:  # single preprocessing options would override the file
        recipe = replace(recipe, data=replace(recipe.data, preprocess=None))
    if added.get("--data") == MORE:  # use all of the new data
        recipe = replace(recipe, data=replace(recipe.data, num_images=None))
    if _replaces_labelled(recipe, added):
        added = {"--labels": MORE_LABELS, **added}
    if not _is_text(recipe):
        return ", ".join(_keyword(flag, value) for flag, value in added.items())
    return command_line(name, arguments, recipe, added, step.skip)


def _replaces_labelled(recipe: EngineRecipe | VerifyRecipe, added: Mapping[str, str]) -> bool:
    """Return whether the labels file would no longer match the samples to verify with."""
    data = recipe.data
    flag = "--data" if data.verify_data is None else "--verify-data"
    has_file = data.labels is not None and str(data.labels) != FOLDERS
    return has_file and MORE in (added.get(flag), added.get("--verify-data"))


def _keyword(flag: str, value: str) -> str:
    """A flag with its value as a keyword argument of `trtbuild.build`; a placeholder stays a name."""
    is_plain = value in (MORE, MORE_LABELS) or value.replace(".", "", 1).isdigit()
    return f"{flag[2:].replace('-', '_')}={value if is_plain else repr(value)}"


def _is_text(recipe: EngineRecipe | VerifyRecipe) -> bool:
    """Whether a command line can express everything that was given, above all the data."""
    return not any(text.startswith(IN_MEMORY) for text in _texts(to_table(recipe)))


def _texts(value: Any) -> Iterator[str]:
    """All texts inside JSON types."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)
