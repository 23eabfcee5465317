"""The cost of each step from a loaded module to its INT8 engine: pruned, weights in INT8, all in INT8."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from trtbuild.artifact import Record
from trtbuild.errors import OptionError
from trtbuild.latency.stats import summarize
from trtbuild.runtime.onnxruntime import Execution, open_session
from trtbuild.search.groups import with_weights_only
from trtbuild.titles import ENGINE, FLOAT, PRUNED, TENSORRT_FORM, TITLES, WEIGHTS_INT8
from trtbuild.verification.gate import Gate
from trtbuild.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import onnx_ir as ir

    from trtbuild.artifact import Artifact
    from trtbuild.latency.measure import Samples
    from trtbuild.recipes import EngineRecipe
    from trtbuild.runtime.session import Session
    from trtbuild.verification.compare import Comparison

__all__ = [
    "check_stage_limits",
    "judged_gates",
    "stage_sessions",
    "with_stages",
    "with_weights_alone",
]

_LIMITED = {
    "pruned": PRUNED,
    "weights": WEIGHTS_INT8,
    "form": TENSORRT_FORM,
    "engine": ENGINE,
}
"""Names of the stages for ``--max-stage-drop``."""
_OF_MODULES = ("pruned", "weights")
"""Stages that only a build from a module has."""


def stage_names(artifact: Artifact) -> tuple[str, ...]:
    """Return the stages of a network that comes from a module; empty for other networks."""
    if all(record.stage != "export" for record in artifact.history):
        return ()
    pruned = (PRUNED,) if artifact.reference is not None else ()
    return (*pruned, *((WEIGHTS_INT8,) if artifact.quantized is not None else ()))


def stage_sessions(artifact: Artifact) -> dict[str, Session]:
    """Return a session for each of `stage_names`."""
    sessions: dict[str, Session] = {}
    for name in stage_names(artifact):
        if name == PRUNED:
            sessions[name] = open_session(artifact.source)
        else:
            assert artifact.quantized is not None
            weights = with_weights_only(artifact.quantized)
            sessions[name] = open_session(weights, Execution.REFERENCE)
    return sessions


def check_stage_limits(
    artifact: Artifact, recipe: EngineRecipe, *, has_labels: bool, has_task: bool
) -> None:
    """Check that every stage with a limit is measured.

    Raises:
        OptionError: there is no such stage, or there are neither labels nor a task.
    """
    is_module = any(record.stage == "export" for record in artifact.history)
    for name, _ in recipe.stage_drops:
        known = ", ".join(_LIMITED)
        if name not in _LIMITED:
            raise OptionError(f"--max-stage-drop knows no stage '{name}': there are {known}.")
        if not (has_labels or has_task):
            raise OptionError(
                "a limit on a step needs labels (--labels), or a task that is measured without them (--task)."
            )
        absent = _LIMITED[name] == PRUNED and artifact.reference is None
        if absent or (name in _OF_MODULES and not is_module):
            raise OptionError(
                f"--max-stage-drop {name}: this build has no such stage; builds from a PyTorch module "
                "with --prune, --mask or --sparsity have it."
            )


def judged_gates(
    recipe: EngineRecipe, found: Mapping[str, Comparison], gates: Mapping[str, Gate]
) -> dict[str, Gate]:
    """Add the limits on single stages to `gates`: on top-1, or without labels on the task's figure.

    Args:
        recipe: the recipe with the limits.
        found: figures by name, of the stages, of TensorRT's form and of the engine.
        gates: the other limits, by name.
    """
    judged = dict(gates)
    for stage, points in recipe.stage_drops:
        name = _LIMITED[stage]
        if name not in found:
            continue
        gate = judged.get(name, Gate())
        if found[name].accuracy is not None:
            judged[name] = replace(gate, max_top1_drop=points)
        else:  # the task's figure is 100 for the network as loaded
            judged[name] = replace(gate, min_agreement=100.0 - points)
    return judged


def with_weights_alone(artifact: Artifact) -> Artifact:
    """Return a quantized artifact with only its weights in INT8; its ranges are removed."""
    assert artifact.quantized is not None
    decisions = tuple(
        replace(one, int8=False, reason="its weights alone are in INT8; it computes in float")
        if one.int8
        else one
        for one in artifact.decisions
    )
    changes = {"quantized": with_weights_only(artifact.quantized), "decisions": decisions}
    record = Record("weights only", "weights are in INT8, and everything computes in float")
    nothing = dict.fromkeys(("placement", "calibration", "given_calibration", "portable"))
    return artifact.having(record, **changes, **nothing)


def with_stages(
    artifact: Artifact, found: Mapping[str, Comparison], latency: Mapping[str, Samples]
) -> tuple[Artifact, dict[str, Comparison]]:
    """Record the table of stages; return the artifact, and the figures that do not belong to a stage.

    Args:
        artifact: the network.
        found: figures by name, of the stages, of TensorRT's form and of the engine.
        latency: latencies by name; that of the module as loaded is under `FLOAT`.
    """
    stages = stage_names(artifact)
    if stages:
        times = {name: summarize(samples).median_ms for name, samples in latency.items()}
        artifact = artifact.having(_record(artifact, found, stages, times))
    return artifact, {name: one for name, one in found.items() if name not in stages}


def _record(
    artifact: Artifact,
    found: Mapping[str, Comparison],
    stages: Iterable[str],
    times: Mapping[str, float],
) -> Record:
    """The table of stages, with figures against the module as it was loaded."""
    names = [*stages, *(name for name in (TENSORRT_FORM, ENGINE) if name in found)]
    networks: dict[str, ir.Model] = {PRUNED: artifact.source}
    if artifact.quantized is not None:
        networks |= dict.fromkeys((WEIGHTS_INT8, TENSORRT_FORM), artifact.quantized)
    cost: Mapping[str, Any] = next(
        (r.details["steps"]["cost"] for r in artifact.history if r.stage == "export"), {}
    )
    first = found[names[0]].accuracy
    loaded = None if first is None else first.reference_percent.value
    rows: list[dict[str, Any]] = [
        {
            "stage": "loaded, folded",
            "top1_percent": loaded,
            "lost_points": None,
            "figure": None,
            "sqnr_db": None,
            "weight_bytes": _bytes(artifact.float_reference),
            "latency_ms": times.get(FLOAT),
            **cost.get("loaded", {}),
        }
    ]
    for name in names:
        row = {"stage": TITLES[name], **_figures(found[name])}
        row |= {"weight_bytes": _bytes(networks.get(name)), "latency_ms": times.get(name)}
        rows.append({**row, **cost.get("exported", {})})
    parts = [
        f"{row['stage']} {row['top1_percent']:.2f} %"
        for row in rows
        if row["top1_percent"] is not None
    ]
    return Record(
        "stages",
        "top-1: " + ", ".join(parts) if parts else counted(len(rows), "stage"),
        {"rows": rows},
    )


def _figures(comparison: Comparison) -> dict[str, Any]:
    accuracy, task = comparison.accuracy, comparison.task
    main = None if task is None else task.main
    return {
        "top1_percent": None if accuracy is None else accuracy.candidate_percent.value,
        "lost_points": None if accuracy is None else accuracy.drop_points.value,
        "figure": None if main is None else f"{main.name} {main.estimate.value:.1f} {main.unit}",
        "sqnr_db": comparison.worst_sqnr_db,
    }


def _bytes(model: ir.Model | None) -> int | None:
    """Size of a network's constants."""
    if model is None:
        return None
    tensors = (value.const_value for value in model.graph.initializers.values())
    return sum(int(tensor.nbytes) for tensor in tensors if tensor is not None)
