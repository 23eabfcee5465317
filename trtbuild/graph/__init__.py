"""Optimises graphs: every rewrite that MNN, NCNN and ONNX Runtime are known for, in ONNX terms."""

from trtbuild.graph import matching
from trtbuild.graph.editor import Editor, Note
from trtbuild.graph.inference import infer_model
from trtbuild.graph.optimizer import OptimizeOptions, OptimizeResult, optimize
from trtbuild.graph.pass_base import Declined, Pass, PassDescription
from trtbuild.graph.pass_log import PassLog, PassRun, Rollback
from trtbuild.graph.selection import all_passes
from trtbuild.graph.stats import GraphStats, measure

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
    "infer_model",
    "matching",
    "measure",
    "optimize",
]
