"""ONNX Runtime sessions whose outputs may stay in its blocked layout, for values that are only counted.

On a CPU, ONNX Runtime computes convolutions on blocks of channels (the layout NCHWc), and converts every
output of the network back into the order of ONNX. For activations that are only counted that conversion is
wasted: on residual networks some 7 % of an inference in which each of them is an output, on networks of
depthwise convolutions up to a third. To avoid it, the network is opened twice, the second time with its
weights packed already: some 0.05 s for ResNet-50.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trtbuild.errors import ModelError, OutputError
from trtbuild.model.edits import take_over_output
from trtbuild.model.reading import read_as_written
from trtbuild.runtime.onnxruntime import Execution, OnnxRuntimeSession, open_session
from trtbuild.temporaries import temporary_folder

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["open_blocked"]

# Blocks have 4, 8 or 16 channels. Other numbers of channels are padded, and padding must not be counted.
_WHOLE_BLOCKS = 16


def open_blocked(model: ir.Model | Path, threads: int | None = None) -> OnnxRuntimeSession:
    """Return a session of a float network with the values of `Execution.FLOAT`, but in any order.

    Args:
        model: the network, or the path of its file.
        threads: threads inside an operator; None takes one per core.

    Raises:
        ModelError: ONNX Runtime cannot load it.
        OutputError: as `open_session`.
    """
    graph = (read_as_written(model) if isinstance(model, Path) else model).graph
    if any(node.op_type == "Conv" for node in graph):
        session = _open_in_blocks(model, threads)
        if session is not None:
            return session
    return open_session(model, Execution.FLOAT, threads)


def _open_in_blocks(model: ir.Model | Path, threads: int | None) -> OnnxRuntimeSession | None:
    """Return None if no output is computed in blocks, or if the temporary folder has no room."""
    try:
        with temporary_folder() as folder:
            path = folder / "optimized.onnx"
            open_session(model, Execution.FLOAT, threads, optimized=path).close()
            optimized = read_as_written(path)
            if not _leave_in_blocks(optimized.graph):
                return None
            # as written: it is optimized already
            return open_session(optimized, Execution.REFERENCE, threads)
    except (ModelError, OutputError, OSError):
        return None


def _leave_in_blocks(graph: ir.Graph) -> bool:
    """Replace outputs by the blocked tensors that they are converted from; return whether any was."""
    found = False
    for ordered in list(graph.outputs):
        reorder = ordered.producer()
        if reorder is None or not _is_of_whole_blocks(reorder):
            continue
        blocked = reorder.inputs[0]
        if blocked is None or blocked.is_graph_output():  # a tensor has one name only
            continue
        take_over_output(ordered, blocked, aside=blocked.name or "")
        blocked.type, blocked.shape = ordered.type, None
        if not ordered.uses():
            graph.remove(reorder, safe=True)
        found = True
    return found


def _is_of_whole_blocks(node: ir.Node) -> bool:
    channels = node.attributes.get("channels")
    return (
        (node.domain, node.op_type) == ("com.microsoft.nchwc", "ReorderOutput")
        and channels is not None
        and channels.as_int() % _WHOLE_BLOCKS == 0
    )
