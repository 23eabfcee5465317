"""What each step from a loaded module to its INT8 engine costs: pruned, weights in INT8, all in INT8."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from trtbuild.artifact import Record
from trtbuild.errors import OptionError
from trtbuild.result import ENGINE, PRUNED, TENSORRT_FORM, TITLES, WEIGHTS_INT8
from trtbuild.runtime.onnxruntime import Execution, open_session
from trtbuild.search.groups import with_weights_only
from trtbuild.verification.gate import Gate, judge

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import onnx_ir as ir

    from trtbuild.artifact import Artifact
    from trtbuild.recipe import EngineRecipe
    from trtbuild.runtime.session import Session
    from trtbuild.verification.compare import Comparison
    from trtbuild.verification.gate import Verdict

__all__ = ["check_stage_limits", "stage_sessions", "stage_verdicts", "with_stages"]

_LIMITED = {"pruned": PRUNED, "weights": WEIGHTS_INT8}
"""What ``--max-stage-drop`` calls a stage."""


def stage_names(artifact: Artifact) -> tuple[str, ...]:
    """Return the stages of a network that came from a module; none for another."""
    if all(record.stage != "export" for record in artifact.history):
        return ()
    pruned = (PRUNED,) if artifact.reference is not None else ()
    return (*pruned, *((WEIGHTS_INT8,) if artifact.quantized is not None else ()))


def stage_sessions(artifact: Artifact) -> dict[str, Session]:
    """Return what runs each of `stage_names`."""
    sessions: dict[str, Session] = {}
    for name in stage_names(artifact):
        if name == PRUNED:
            sessions[name] = open_session(artifact.source)
        else:
            assert artifact.quantized is not None
            weights = with_weights_only(artifact.quantized)
            sessions[name] = open_session(weights, Execution.REFERENCE)
    return sessions


def check_stage_limits(artifact: Artifact, recipe: EngineRecipe, *, has_labels: bool) -> None:
    """Do nothing, unless a stage has a limit and is not measured.

    Raises:
        OptionError: there is no such stage, or there are no labels.
    """
    for name, _ in recipe.stage_drops:
        known = ", ".join(_LIMITED)
        if name not in _LIMITED:
            raise OptionError(f"--max-stage-drop knows no stage '{name}': there are {known}.")
        if not has_labels:
            raise OptionError("a limit on top-1 needs labels; give them with --labels.")
        absent = _LIMITED[name] == PRUNED and artifact.reference is None
        if absent or all(record.stage != "export" for record in artifact.history):
            raise OptionError(
                f"--max-stage-drop {name}: this build has no such stage; it starts from a PyTorch module "
                "from which channels or weights are taken (--prune, --mask, --sparsity)."
            )


def stage_verdicts(recipe: EngineRecipe, stages: Mapping[str, Comparison]) -> dict[str, Verdict]:
    """Return the judgement of every stage that has a limit."""
    limits = {_LIMITED[name]: points for name, points in recipe.stage_drops}
    return {
        name: judge(stages[name], Gate(max_top1_drop=points))
        for name, points in limits.items()
        if name in stages
    }


def with_stages(
    artifact: Artifact, found: Mapping[str, Comparison]
) -> tuple[Artifact, dict[str, Comparison]]:
    """Return `artifact` with the table of its stages recorded, and the figures that are none of a stage.

    Args:
        artifact: the network.
        found: figures by name, of the stages, of TensorRT's form and of the engine.
    """
    stages = stage_names(artifact)
    if stages:
        artifact = artifact.having(_record(artifact, found, stages))
    return artifact, {name: one for name, one in found.items() if name not in stages}


def _record(artifact: Artifact, found: Mapping[str, Comparison], stages: Iterable[str]) -> Record:
    """The table of stages, figures against the module as it was loaded."""
    names = [*stages, *(name for name in (TENSORRT_FORM, ENGINE) if name in found)]
    networks: dict[str, ir.Model] = {PRUNED: artifact.source}
    if artifact.quantized is not None:
        networks |= dict.fromkeys((WEIGHTS_INT8, TENSORRT_FORM), artifact.quantized)
    cost: Mapping[str, Any] = next(
        (r.details.get("cost", {}) for r in artifact.history if r.stage == "export"), {}
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
            **cost.get("loaded", {}),
        }
    ]
    for name in names:
        row = {"stage": TITLES[name], **_figures(found[name])}
        row["weight_bytes"] = _bytes(networks.get(name))
        rows.append({**row, **cost.get("exported", {})})
    parts = [
        f"{row['stage']} {row['top1_percent']:.2f} %"
        for row in rows
        if row["top1_percent"] is not None
    ]
    return Record(
        "stages", "top-1: " + ", ".join(parts) if parts else f"{len(rows)} stages", {"rows": rows}
    )


def _figures(comparison: Comparison) -> dict[str, Any]:
    accuracy, task = comparison.accuracy, comparison.task
    worst = [
        one.judged_sqnr_db.value for one in comparison.outputs if one.judged_sqnr_db is not None
    ]
    main = None if task is None else task.main
    return {
        "top1_percent": None if accuracy is None else accuracy.candidate_percent.value,
        "lost_points": None if accuracy is None else accuracy.drop_points.value,
        "figure": None if main is None else f"{main.name} {main.estimate.value:.1f} {main.unit}",
        "sqnr_db": min(worst, default=math.nan) if worst else None,
    }


def _bytes(model: ir.Model | None) -> int | None:
    """What the constants of a network take."""
    if model is None:
        return None
    tensors = (value.const_value for value in model.graph.initializers.values())
    return sum(int(tensor.nbytes) for tensor in tensors if tensor is not None)
