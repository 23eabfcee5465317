"""Optimizes graphs with the rewrites that MNN, NCNN and ONNX Runtime have, in ONNX terms."""

from trtbuild.model.inference import infer_model
from trtbuild.model.stats import GraphStats, measure
from trtbuild.options.optimize import OptimizeOptions
from trtbuild.passes import matching
from trtbuild.passes.declined import Declined
from trtbuild.passes.driver import PassLog, PassRun, Rollback
from trtbuild.passes.editor import Editor, Note
from trtbuild.passes.optimizer import OptimizeResult, optimize
from trtbuild.passes.pass_base import Pass, PassDescription
from trtbuild.passes.selection import all_passes, check_passes

__all__ = [
    "Declined",
    "Editor",
    "GraphStats",
    "Note",
    "OptimizeOptions",
    "OptimizeResult",
    "Pass",
    "PassDescription",
    "PassLog",
    "PassRun",
    "Rollback",
    "all_passes",
    "check_passes",
    "infer_model",
    "matching",
    "measure",
    "optimize",
]
