"""Which task a network does: the user says it, or its graph leaves no doubt.

These leave no doubt: a Softmax over classes at the end of ``[images, classes]``, or labels for such an
output; a Softmax over the last axis of ``[images, steps, classes]`` in a network that reads images or sound,
if classes are short peaks between blanks (CTC); an output of many values scaled to unit length (embeddings);
a Sigmoid of one channel that is nearly 0 or 1 nearly everywhere, or a Softmax over channels (segmentation);
an image as large as the input or a multiple of it that resembles the input (restoration); the detectors of
`trtbuild.verification.tasks.layouts`, by their parts (`trtbuild.model.parts`) or pairs of outputs.

Where only values can tell, the float network's first batch decides. A wrong guess is worse than none.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from trtbuild.errors import OptionError
from trtbuild.model.ends import end_of, has_unit_length
from trtbuild.model.inference import with_output_sizes
from trtbuild.model.shapes import dims
from trtbuild.options.compare import Metric, TaskOptions, load_metric
from trtbuild.plugins import JUDGE
from trtbuild.verification.tasks.classify import Classify
from trtbuild.verification.tasks.coco import read_annotations
from trtbuild.verification.tasks.ctc import CTC
from trtbuild.verification.tasks.detect import Detect
from trtbuild.verification.tasks.detectors import detector_of
from trtbuild.verification.tasks.embed import Embed
from trtbuild.verification.tasks.restore import Restore
from trtbuild.verification.tasks.segment import Segment
from trtbuild.verification.tasks.user_judge import OwnJudge, Telling

if TYPE_CHECKING:
    import onnx_ir as ir

    from trtbuild.model.shapes import Dim, Dims
    from trtbuild.options.preprocess import Preprocess
    from trtbuild.verification.batch import LabelledBatch
    from trtbuild.verification.tasks.base import (
        Outputs,
        SampleScore,
        Seen,
        Task,
        TaskFactory,
        TaskScore,
    )
    from trtbuild.verification.views import Answer

__all__ = ["choose_task", "task_kind"]

_log = logging.getLogger(__name__)

_SOFTMAX = ("Softmax", "LogSoftmax")

# Operators that end in score maps: a layer, or a resize to the image's size.
_SCORING = ("Add", "Conv", "ConvTranspose", "Resize", "Upsample")

# A shorter unit vector is a direction or a rotation (a quaternion has 4 values).
_LEAST_DIMS = 5


def choose_task(
    options: TaskOptions,
    model: ir.Model | None,
    *,
    has_labels: bool = False,
    preprocess: Preprocess | None = None,
) -> TaskFactory | None:
    """Return the factory of the task's judge; None if none is wanted or the graph leaves doubt.

    Args:
        options: the user's options.
        model: the float network, or its Q/DQ form; None without a graph.
        has_labels: whether the samples have classes.
        preprocess: how images became inputs; places boxes in the original images.

    Raises:
        OptionError: a detector's layout is neither given nor clear from the graph, or the judge cannot be
            imported.
    """
    if options.judge is not None:
        return _own_judge(options.judge)
    model = None if model is None else with_output_sizes(model)
    if _is_said_to_detect(options):
        return _detect(options, model, preprocess)
    plain: dict[str, TaskFactory] = {
        "classify": Classify,
        "ctc": CTC,
        "embed": Embed,
        "segment": partial(Segment, options.min_score),
        "restore": Restore,
    }
    if options.kind != "auto":
        return plain.get(options.kind)
    if model is None:
        return None
    if detector_of(model) is not None:
        return partial(IfItFits, _detect(options, model, preprocess, is_guess=True))
    guessed: dict[str, TaskFactory] = {
        **plain,
        "ctc": partial(CTC, is_guess=True),
        "segment": partial(Segment, options.min_score, is_guess=True),
        "restore": partial(Restore, is_guess=True),
    }
    found = _by_output(model, has_labels=has_labels)
    return None if found is None else partial(IfItFits, guessed[found])


def task_kind(options: TaskOptions, model: ir.Model, *, has_labels: bool = False) -> str | None:
    """Return the value of `TaskOptions.kind` that the user or the graph says; None in doubt.

    Args:
        options: the user's options; a judge of the user's own is ignored.
        model: the float network.
        has_labels: whether the samples have classes.
    """
    if _is_said_to_detect(options):
        return "detect"
    if options.kind != "auto":
        return options.kind
    model = with_output_sizes(model)
    if detector_of(model) is not None:
        return "detect"
    return _by_output(model, has_labels=has_labels)


def _is_said_to_detect(options: TaskOptions) -> bool:
    given = (options.box_layout, options.coco)
    return options.kind == "detect" or any(one is not None for one in given)


def _own_judge(judge: str | Metric) -> TaskFactory:
    if isinstance(judge, str):
        return partial(OwnJudge, judge, load_metric(judge, JUDGE), Telling())
    return partial(OwnJudge, type(judge).__qualname__, judge, Telling())


class IfItFits:
    """A guessed task: it ends without a score if the outputs turn out not to fit."""

    def __init__(self, task: TaskFactory) -> None:
        self._task: Task | None = task()

    def add(self, batch: LabelledBatch, reference: Outputs, candidate: Outputs) -> None:
        """Take one batch."""
        if self._task is None:
            return
        try:
            self._task.add(batch, reference, candidate)
        except OptionError as error:
            _log.debug("no task of this network is measured: %s", error)
            self._task = None

    def result(self) -> TaskScore | None:
        """Return the task's figures."""
        return None if self._task is None else self._task.result()

    @property
    def worst(self) -> tuple[SampleScore, ...]:
        """The task's worst samples so far."""
        return () if self._task is None else self._task.worst

    def answers(self, seen: Seen) -> tuple[Answer, Answer] | None:
        """Return the task's answers."""
        if self._task is None:
            return None
        return self._task.answers(seen)


def _detect(
    options: TaskOptions,
    model: ir.Model | None,
    preprocess: Preprocess | None,
    *,
    is_guess: bool = False,
) -> TaskFactory:
    found = None if model is None else detector_of(model)
    layout = options.box_layout or (found.layout if found is not None else None)
    if layout is None:
        raise OptionError(
            "--task detect: the network does not tell what its outputs mean; say it with --box-layout"
            " (yolov5, yolov8, yolox, ssd, detr or nms)."
        )
    num_classes = found.num_classes if found is not None and found.layout == layout else None
    annotations = None if options.coco is None else read_annotations(options.coco, preprocess)
    given = (layout, options.min_score, num_classes, annotations)
    is_seen = options.box_layout is None and model is not None and _image_input(model) is not None
    return partial(Detect, *given, is_guess=is_guess or is_seen)


def _by_output(model: ir.Model, *, has_labels: bool) -> str | None:
    """The task of a network with one output; None if the end of its graph does not show it."""
    output = model.graph.outputs[0]
    shape, end = dims(output), end_of(output)
    if shape is None or len(model.graph.outputs) != 1:
        return None
    operator = end.op_type if end is not None else ""
    image = _image_input(model)
    if _is_vector(shape):
        if has_unit_length(output):
            is_long = isinstance(shape[1], int) and shape[1] >= _LEAST_DIMS
            return "embed" if is_long else None
        return "classify" if shape[1] != 1 and (operator in _SOFTMAX or has_labels) else None
    if operator in _SOFTMAX and end is not None and not _is_over_classes(end, output):
        return None
    if len(shape) == 3 and operator in _SOFTMAX and _reads_signals(model):
        return "ctc"
    return _of_images(shape, operator, image) if image is not None else None


def _is_over_classes(softmax: ir.Node, output: ir.Value) -> bool:
    """Whether a Softmax is over the channels of maps, else the last axis; True if axes move after it."""
    inner = dims(softmax.outputs[0])
    if inner is None or softmax.outputs[0] is not output:
        return True
    axis = softmax.attributes.get_int("axis", -1)
    return axis % len(inner) == (1 if len(inner) == 4 else len(inner) - 1)


def _is_vector(shape: Dims) -> bool:
    return len(shape) >= 2 and all(size == 1 for size in shape[2:])


def _of_images(shape: Dims, operator: str, image: Dims) -> str | None:
    """The task of a network that maps images to maps."""
    if operator == "ArgMax" and len(shape) in (3, 4):
        return "segment"
    if len(shape) != 4:
        return None
    if operator in _SOFTMAX or (operator == "Sigmoid" and shape[1] == 1):
        return "segment"
    channels, size = shape[1], (shape[2], shape[3])
    is_same_size = None not in size and size == (image[2], image[3])
    if is_same_size and isinstance(channels, int) and channels > 4 and channels != image[1]:
        return "segment" if operator in _SCORING else None
    if channels == image[1] and channels in (1, 3):
        return "restore" if all(map(_is_multiple, size, (image[2], image[3]))) else None
    return None


def _is_multiple(size: Dim, of: Dim) -> bool:
    """Whether one can be a multiple of the other; if both sizes are dynamic, the first batch decides."""
    if isinstance(size, int) and isinstance(of, int):
        return of > 0 and size % of == 0
    return not isinstance(size, int) and not isinstance(of, int)


def _image_input(model: ir.Model) -> Dims | None:
    """Dims of the only input if it is images ``[N, C, H, W]``, else None."""
    shapes = [dims(value) for value in model.graph.inputs if not value.is_initializer()]
    found = shapes[0] if len(shapes) == 1 else None
    return found if found is not None and len(found) == 4 else None


def _reads_signals(model: ir.Model) -> bool:
    """Whether the first input holds real numbers: pictures or sound, not tokens."""
    dtype = model.graph.inputs[0].dtype if model.graph.inputs else None
    return dtype is not None and dtype.is_floating_point()
