"""The speed of an engine: against the float network, and against FP16 if the backend builds that."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from trtbuild.errors import OptionError, TrtbuildError
from trtbuild.latency.limits import speed_findings
from trtbuild.latency.measure import measure
from trtbuild.latency.regress import Answer, is_within_reach, taken_together
from trtbuild.progress import Progress, silent
from trtbuild.runtime.onnxruntime import open_session
from trtbuild.temporaries import temporary_folder
from trtbuild.titles import ALSO, ENGINE, FLOAT, FP16, PRUNED

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Iterable, Mapping

    from trtbuild.artifact import Artifact
    from trtbuild.backends.base import Backend, BuildRequest
    from trtbuild.data import Batch
    from trtbuild.latency.measure import MeasureOptions, Samples
    from trtbuild.options.measure import BuildSpeedLimits
    from trtbuild.options.tensorrt import TensorRTOptions
    from trtbuild.runtime.session import Feeds, Session

__all__ = ["Speed", "open_fp16", "take_times", "why_no_fp16"]

_log = logging.getLogger(__name__)

_AGAIN = " again"


@dataclass(frozen=True)
class Speed:
    """Latencies that were measured in turns.

    Attributes:
        samples: name (`trtbuild.result`) -> latencies of the float network, of each engine, and of the FP16
            engine if there is one.
        controls: name -> latencies of `FLOAT` and `FP16` a second time in the same turns; they show the
            noise.
        without_fp16: why there is no FP16 engine to compare with; empty if there is one, or if none was
            asked for.
    """

    samples: Mapping[str, Samples] = field(default_factory=dict)
    controls: Mapping[str, Samples] = field(default_factory=dict)
    without_fp16: str = ""


def why_no_fp16(backend: Backend, options: TensorRTOptions) -> str:
    """Return why `backend` builds no engine in FP16 alone; empty if it does."""
    try:
        backend.check(options, int8=False, fp16=True)
    except OptionError as error:
        return str(error).rstrip(".")
    return ""


def open_fp16(
    backend: Backend, request: BuildRequest, example: Feeds, stack: contextlib.ExitStack
) -> tuple[Session | None, str]:
    """Build the network of `request` in FP16, and run it once; a failure is a warning, not an error.

    The engine is in a temporary folder, and no file of the build is changed.

    Args:
        backend: the backend that built the INT8 engine.
        request: the request that it was built from.
        example: inputs for the run, which shows whether the memory suffices.
        stack: closes the session and removes the folder.

    Returns:
        The session and an empty text; or None and the reason.
    """
    why = why_no_fp16(backend, request.options)
    if why:
        return None, why
    in_float = replace(request.artifact, calibration=None, quantized=None, placement=None)
    folder = stack.enter_context(temporary_folder())
    options = request.options
    if options.timing_cache is not None:
        # a copy: the manifest describes the cache as the INT8 build left it, or as the lock pinned it
        timings = folder / "timings"
        if options.timing_cache.is_file():
            shutil.copyfile(options.timing_cache, timings)
        options = replace(options, timing_cache=timings, lock=None)
    wanted = replace(request, artifact=in_float, directory=folder, fp16=True, options=options)
    try:
        session = backend.open(backend.build(wanted).path)
        stack.callback(session.close)
        session.run(example)
    except TrtbuildError as error:
        _log.warning("the engine is not timed against FP16: %s", error)
        return None, str(error).rstrip(".")
    return session, ""


def take_times(
    artifact: Artifact,
    sessions: Mapping[str, Session],
    few: Iterable[Batch],
    options: MeasureOptions,
    limits: BuildSpeedLimits,
    progress: Progress = silent,
) -> Speed:
    """Measure latencies of the float network and of the engines in turns, on a few batches.

    Networks that others are compared with get two turns in each round: the difference between them is noise.
    For a pruned module, float is the module as it was loaded, and the pruned module is timed, too.

    Args:
        artifact: the network.
        sessions: sessions by name, opened as they are deployed: the float form, and engines; the FP16 engine,
            if there is one, is one to compare with. They stay open.
        few: the batches, one per turn.
        options: the longest time; measuring ends earlier once all comparisons and limits are settled, or,
            without limits, if the machine is too noisy to settle the others.
        limits: limits on the speed.
        progress: called with the milliseconds done.
    """
    pruned = None if artifact.reference is None else open_session(artifact.source)
    first = {FLOAT: sessions[FLOAT], **({} if pruned is None else {PRUNED: pruned})}
    sessions = {**first, **sessions}
    again = {f"{name}{_AGAIN}": sessions[name] for name in (FLOAT, FP16) if name in sessions}
    batches = list(few)
    size = len(batches[0].names) if batches else None
    feeds = [batch.feeds for batch in batches]

    def speed(taken: Mapping[str, Samples]) -> Speed:
        return Speed(
            {name: taken[name] for name in sessions},
            {name.removesuffix(_AGAIN): taken[name] for name in again},
        )

    taken = measure(
        {**sessions, **again},
        feeds,
        options,
        batch_size=size,
        is_enough=lambda so_far: _says_enough(speed(so_far), limits),
        progress=progress,
    )
    if pruned is not None:
        pruned.close()
    return speed(taken)


def _says_enough(speed: Speed, limits: BuildSpeedLimits) -> bool:
    """Whether each comparison has an answer, and each limit holds or fails.

    Without limits, also whether the comparisons without an answer will hardly get one.
    """
    samples, controls = speed.samples, speed.controls
    against_float = {
        name: taken_together(samples[FLOAT], samples[name], controls.get(FLOAT))
        for name in samples
        if name not in (FLOAT, FP16)
    }
    against_fp16 = {}
    if {FP16, ENGINE} <= samples.keys():
        against_fp16[ENGINE] = taken_together(samples[FP16], samples[ENGINE], controls.get(FP16))
    findings = (
        finding
        for name in (ENGINE, ALSO)
        if name in samples
        for finding in speed_findings(
            samples[name], limits, against_float[name], against_fp16.get(name)
        )
    )
    verdicts = (*against_float.values(), *against_fp16.values())
    untold = [one for one in verdicts if one.answer is Answer.CANNOT_TELL]
    if not limits.flags:
        untold = [one for one in untold if is_within_reach(one)]
    return not untold and all(finding.settled for finding in findings)
