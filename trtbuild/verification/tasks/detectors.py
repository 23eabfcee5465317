"""Which detector a network is, by the parts, shapes and last operators of its outputs; None in doubt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtbuild.model.ends import end_of
from trtbuild.model.operators import WEIGHTED
from trtbuild.model.parts import output_parts
from trtbuild.model.shapes import dims
from trtbuild.model.traversal import all_nodes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir

    from trtbuild.model.parts import Part
    from trtbuild.model.shapes import Dim, Dims

__all__ = ["Detector", "detector_of"]

_SUPPRESSION = ("NonMaxSuppression", "EfficientNMS_TRT", "BatchedNMS_TRT", "TopK", "TRTBatchedNMS")
_STRIDES = (8, 16, 32)


@dataclass(frozen=True)
class Detector:
    """A layout of `trtbuild.verification.tasks.layouts`; `num_classes` None: all remaining channels."""

    layout: str
    num_classes: int | None = None


def detector_of(model: ir.Model) -> Detector | None:
    """Return the layout of a detector's outputs, if the graph leaves no doubt."""
    outputs = list(model.graph.outputs)
    shapes = [dims(value) or () for value in outputs]
    if _is_suppressed(model, shapes):
        return Detector("nms")
    parts = output_parts(model)
    if len(shapes[0]) == 3 and len(parts[outputs[0].name or ""]) > 1:
        return _one_output(model, shapes[0], parts[outputs[0].name or ""])
    if len(outputs) == 2:
        return _two_outputs(outputs, shapes)
    return None


def _is_suppressed(model: ir.Model, shapes: Sequence[Dims]) -> bool:
    if not any(node.op_type in _SUPPRESSION for node in all_nodes(model.graph)):
        return False
    if any(len(shape) == 3 and shape[2] == 6 for shape in shapes):
        return True
    if any(len(shape) == 2 and shape[1] == 7 for shape in shapes):
        return True
    boxes = [shape for shape in shapes if len(shape) in (2, 3) and shape[-1] == 4]
    return len(boxes) == 1 and sum(_may_be_equal(shape, boxes[0][:-1]) for shape in shapes) == 2


def _may_be_equal(first: Dims, second: Dims) -> bool:
    """Whether no number differs: exporters give each output that a Gather makes a length of its own name."""
    return len(first) == len(second) and all(
        a == b or not (isinstance(a, int) or isinstance(b, int)) for a, b in zip(first, second)
    )


def _one_output(model: ir.Model, shape: Dims, parts: Sequence[Part]) -> Detector | None:
    """YOLO's single output, boxes then scores; the versions differ in where its parts begin."""
    starts = [part.start for part in parts]
    at_box_end = [part for part in parts if part.start == 4]
    if not at_box_end or set(starts[: starts.index(4)]) - {0, 2}:
        return None
    behind = at_box_end[0]
    if behind.axis == 1:
        has_sigmoid = _end_type(model, behind.tensor) == "Sigmoid"
        return Detector("yolov8", behind.stop - 4) if has_sigmoid else None
    if 5 in starts:
        raw = _end_type(model, parts[0].tensor) in WEIGHTED
        return Detector("yolox" if raw else "yolov5")
    cells = _num_cells(model)
    if cells is None or shape[1] not in (cells, 3 * cells):
        return None
    return Detector("yolov5" if shape[1] == 3 * cells else "yolov8")


def _num_cells(model: ir.Model) -> int | None:
    """Total cells of the grids with strides 8, 16 and 32 on the input; None if its size is dynamic."""
    inputs = [dims(value) or () for value in model.graph.inputs if not value.is_initializer()]
    sizes: Sequence[Dim] = inputs[0][2:] if len(inputs) == 1 and len(inputs[0]) == 4 else ()
    numbers = [size for size in sizes if isinstance(size, int)]
    if len(numbers) != 2:
        return None
    return sum((numbers[0] // stride) * (numbers[1] // stride) for stride in _STRIDES)


def _two_outputs(outputs: Sequence[ir.Value], shapes: Sequence[Dims]) -> Detector | None:
    """Boxes beside scores: SSD's scores end in a Softmax, DETR's are logits of a few hundred queries."""
    by_kind: Mapping[bool, list[int]] = {True: [], False: []}
    for place, shape in enumerate(shapes):
        if len(shape) != 3:
            return None
        by_kind[shape[2] == 4].append(place)
    if len(by_kind[True]) != 1 or len(by_kind[False]) != 1:
        return None
    boxes, scores = by_kind[True][0], by_kind[False][0]
    if shapes[boxes][1] != shapes[scores][1] or shapes[scores][2] == 1:
        return None
    ends = {one: end_of(outputs[one]) for one in (boxes, scores)}
    operators = {one: "" if node is None else node.op_type for one, node in ends.items()}
    if operators[scores] == "Softmax":
        return Detector("ssd")
    queries = shapes[boxes][1]
    is_detr = operators[boxes] == "Sigmoid" and operators[scores] in ("Add", "MatMul", "Gemm")
    return Detector("detr") if is_detr and isinstance(queries, int) and queries <= 1_000 else None


def _end_type(model: ir.Model, tensor: str) -> str:
    for node in model.graph:
        for output in node.outputs:
            if output.name == tensor:
                end = end_of(output)
                return "" if end is None else end.op_type
    return ""
