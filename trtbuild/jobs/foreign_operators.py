"""Operators that not every runtime has: the network is cut before them, or the user is told."""

from __future__ import annotations

import difflib
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import onnx

from trtbuild.artifact import Artifact, Record
from trtbuild.errors import ExecutionError, ModelError
from trtbuild.migration.qoperators import is_integer_operator
from trtbuild.model import read_model
from trtbuild.model.cut import cut, operators_outside
from trtbuild.plan import Decision
from trtbuild.runtime.onnxruntime import has_operator, open_session
from trtbuild.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import onnx_ir as ir

    from trtbuild.backends.base import Backend
    from trtbuild.model.cut import Cut, ForeignOperator
    from trtbuild.options.tensorrt import OpenOptions
    from trtbuild.runtime.session import Session

__all__ = [
    "check_spelling",
    "front_of",
    "left_behind",
    "open_whole",
    "warn_about_tensorrt",
    "with_left_behind",
    "without_foreign",
]

_log = logging.getLogger(__name__)

# How similar a misspelled name must be, as a ratio, and how much its length may differ.
_ALIKE, _LETTERS = 0.8, 2

# ONNX Runtime composes some operators of its own domain from others; they have no kernel.
_ONNX_RUNTIMES = "com.microsoft"

# Domains that TensorRT's parser knows.
_TENSORRTS = ("", "ai.onnx")


def without_foreign(artifact: Artifact, path: Path) -> Artifact:
    """Cut the artifact before operators that ONNX Runtime cannot run, and record the cut.

    A warning names them, and also operators that ONNX Runtime runs but TensorRT needs a plugin for.

    Args:
        artifact: the artifact as it was read.
        path: path of its file, for messages.

    Raises:
        ModelError: there are such operators, and no layer with weights before them.
    """
    check_spelling(artifact.source, path)
    warn_about_tensorrt(artifact.source, path)
    operators = _foreign(artifact.source)
    if not operators:
        return artifact
    front, found = cut(artifact.source, operators)
    where = ", ".join(f"'{name}'" for name in found.tensors) or "the inputs"
    _log.warning(
        "'%s': ONNX Runtime cannot run %s; the network is calibrated and compared only before it, up to "
        "%s. TensorRT gets all of it, and needs the plugin.",
        path,
        found.named,
        where,
    )
    details = {
        "operators": [
            {"op_type": one.op_type, "domain": one.domain, "node": one.node} for one in operators
        ],
        "tensors": list(found.tensors),
        "outputs": list(found.outputs),
        "nodes_behind": [node.node for node in found.nodes],
    }
    summary = (
        f"in front of {found.named}: {counted(len(front.graph), 'node')}, {len(found.nodes)} behind"
    )
    return artifact.having(Record("cut", summary, details), source=front, model=front, cut=found)


def check_spelling(model: ir.Model, path: Path) -> None:
    """Check that no unknown operator of ONNX's own domain is a misspelled ONNX operator.

    Others in that domain may be plugins, which GraphSurgeon puts there.

    Raises:
        ModelError: one is misspelled; the message suggests the operator that is meant.
    """
    unknown = [one for one in operators_outside(model, has_operator) if one.domain in _TENSORRTS]
    if not unknown:
        return
    known = sorted({schema.name for schema in onnx.defs.get_all_schemas() if not schema.domain})
    for one in unknown:
        near = difflib.get_close_matches(one.op_type, known, 1, _ALIKE)
        if near and abs(len(near[0]) - len(one.op_type)) <= _LETTERS:
            raise ModelError(
                f"'{path}': ONNX has no operator '{one.op_type}' (node '{one.node}'); '{near[0]}' may be "
                "meant. If it is a plugin, give it a domain of its own."
            )


def open_whole(path: Path, backend: str | Backend, options: OpenOptions | None) -> Session:
    """Open an engine, as `trtbuild.backends.opening.open_engine` does.

    Raises:
        ModelError: ONNX Runtime lacks one of its operators; the message names it.
        TrtbuildError: as in `open_engine`.
    """
    from trtbuild.backends.opening import open_engine  # imported here: often not needed

    try:
        return open_engine(path, backend, options)
    except ExecutionError:
        operators = operators_outside(read_model(path), has_operator)
        if not operators:
            raise
        raise ModelError(
            f"ONNX Runtime cannot run '{path}': it holds {', '.join(_kinds(operators))}, which needs a "
            "plugin of TensorRT. Give TensorRT's engine, or the '.onnxruntime.onnx' file beside it."
        ) from None


def front_of(model: ir.Model) -> tuple[ir.Model, Cut | None]:
    """Return the part of `model` that ONNX Runtime can run, and the cut; None if that is all of it.

    Raises:
        ModelError: as in `without_foreign`.
    """
    operators = _foreign(model)
    return cut(model, operators) if operators else (model, None)


def left_behind(artifact: Artifact) -> tuple[Decision, ...]:
    """Return the reason why each node behind the cut stays float."""
    if artifact.cut is None:
        return ()
    reason = artifact.cut.reason
    return tuple(Decision(n.node, n.op_type, False, reason) for n in artifact.cut.nodes)


def with_left_behind(artifact: Artifact) -> Artifact:
    """Add the nodes behind the cut to a quantized artifact's decisions."""
    return replace(artifact, decisions=(*artifact.decisions, *left_behind(artifact)))


def _foreign(model: ir.Model) -> tuple[ForeignOperator, ...]:
    found = operators_outside(model, has_operator)
    if found and all(one.domain == _ONNX_RUNTIMES for one in found):
        try:
            open_session(model).close()
        except ExecutionError:
            return found
        return ()
    return found


def warn_about_tensorrt(model: ir.Model, path: Path) -> None:
    """Warn about operators of `model`, read from `path`, that TensorRT's parser needs a plugin for."""
    unknown = operators_outside(model, lambda domain, _: domain in _TENSORRTS)
    # operators on integers are rewritten or refused elsewhere
    others = [one for one in unknown if not is_integer_operator(one.domain, one.op_type)]
    runs = [one for one in others if has_operator(one.domain, one.op_type)]
    for kind in _kinds(runs):
        _log.warning(
            "'%s': TensorRT's parser does not know %s, which ONNX Runtime runs; TensorRT needs a plugin for "
            "it, or an export with ONNX's own operators.",
            path,
            kind,
        )


def _kinds(operators: Iterable[ForeignOperator]) -> list[str]:
    """One text for each kind of operator, with its first node."""
    firsts: dict[tuple[str, str], str] = {}
    for one in operators:
        firsts.setdefault((one.domain, one.op_type), str(one))
    return list(firsts.values())
