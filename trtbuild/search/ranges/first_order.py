"""First-order effect of each threshold of each scale on the outputs, from gradients on a few images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from calibrators.output_error import error_products
from trtbuild.gradients import backward_network
from trtbuild.model.graph_library import ir
from trtbuild.model.names import Names
from trtbuild.model.traversal import nodes_by_name, values_by_name
from trtbuild.plan import GRAPH_OUTPUT
from trtbuild.runtime.onnxruntime import Execution, open_session
from trtbuild.search.together import gain_together, run_alone, run_together

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from trtbuild.plan import Placement
    from trtbuild.runtime.session import Feeds
    from trtbuild.search.measured import Measure
    from trtbuild.search.ranges.shared_scales import SharedScale

__all__ = ["Draw", "FirstOrder", "Gradients"]


# Most bytes of values and gradients of images that are run together.
_ROOM = 1 << 26
_FLOAT_BYTES = 4


@dataclass(frozen=True)
class Draw:
    """One run for gradients: an image and a random v.

    Attributes:
        feeds: the image.
        image: its index in the measure.
        seed: seed of the random v.
    """

    feeds: Feeds
    image: int
    seed: int


@dataclass(frozen=True)
class _Pair:
    """Names of two tensors: a copy that only the INT8 readers of a tensor read, and the gradient by it."""

    read: str
    gradient: str


class Gradients:
    """Values of quantized tensors, and gradients of the outputs by them as read through Q/DQ pairs.

    Args:
        model: the float network.
        placement: where its Q/DQ go.
        tensors: names of quantized tensors.
        outputs: names of the tensors that are measured.

    Attributes:
        gain_together: whether one run of several draws is faster than one run for each.

    Raises:
        ModelError: the network has no backward network.
        ExecutionError: ONNX Runtime cannot open it.
    """

    def __init__(
        self,
        model: ir.Model,
        placement: Placement,
        tensors: Collection[str],
        outputs: Sequence[str],
    ) -> None:
        apart, reads = _read_apart(model, placement, set(tensors))
        backward = backward_network(apart, reads.values(), outputs)
        self._seeds = backward.seeds
        self._pairs = {
            name: _Pair(read, backward.gradients[read])
            for name, read in reads.items()
            if read in backward.gradients
        }
        self._session = open_session(backward.model, Execution.FLOAT) if self._pairs else None
        # the gradients of independent images are independent, and have the rows of their tensors
        self.gain_together = gain_together(model, [*backward.seeds, *self._pairs])

    @property
    def reached(self) -> Collection[str]:
        """The tensors on which the outputs depend."""
        return self._pairs.keys()

    def run(
        self, draws: Sequence[Draw], measure: Measure
    ) -> list[dict[str, tuple[np.ndarray, np.ndarray]]]:
        """Return for each draw: tensor -> its values and gradient.

        Args:
            draws: the draws to run; together if that is faster, see `trtbuild.search.together`.
            measure: the error measure.
        """
        if self._session is None:
            return [{} for _ in draws]
        given = [{**one.feeds, **self._drawn(one, measure)} for one in draws]
        run_all = run_together if self.gain_together else run_alone
        outputs = run_all(self._session.run, given)
        return [
            {name: (found[one.read], found[one.gradient]) for name, one in self._pairs.items()}
            for found in outputs
        ]

    def _drawn(self, draw: Draw, measure: Measure) -> Feeds:
        """The random v, by the names of the inputs that take it."""
        random = np.random.default_rng([draw.seed, draw.image])
        return {
            given: measure.seed(draw.image, output, random) for output, given in self._seeds.items()
        }

    def close(self) -> None:
        """Free the memory."""
        if self._session is not None:
            self._session.close()


class FirstOrder:
    """Scores thresholds by the error of the outputs if the tensors of one scale are rounded, others in float.

    Args:
        model: the float network.
        placement: where its Q/DQ go.
        scales: scale of the placement -> its possible thresholds; see `thresholds_of`.
        outputs: names of the tensors that are measured.
        num_values: how many values the quantized tensors have together for one image.

    Attributes:
        draws_at_a_time: how many draws are run together; more than 1 if that is faster and memory suffices.

    Raises:
        ModelError: the network has no backward network.
        ExecutionError: ONNX Runtime cannot open it.
    """

    def __init__(
        self,
        model: ir.Model,
        placement: Placement,
        scales: Mapping[SharedScale, np.ndarray],
        outputs: Sequence[str],
        num_values: float,
    ) -> None:
        wanted = {name for scale in scales for name in scale.tensors}
        self._gradients = Gradients(model, placement, wanted, outputs)
        self._scales = scales
        self._errors: dict[int, dict[SharedScale, np.ndarray]] = {}
        draw_bytes = 2 * _FLOAT_BYTES * num_values  # of each value there is a gradient
        has_room = int(max(1, _ROOM // max(1, draw_bytes)))
        self.draws_at_a_time = has_room if self._gradients.gain_together else 1

    def _reached(self, scale: SharedScale) -> list[str]:
        return [name for name in scale.tensors if name in self._gradients.reached]

    def add(self, draws: Sequence[Draw], measure: Measure) -> None:
        """Add the errors of images, each for one random v.

        Args:
            draws: the draws to run together, at most `draws_at_a_time`.
            measure: the error measure.
        """
        for draw, found in zip(draws, self._gradients.run(draws, measure)):
            self._count(draw.image, found)

    def _count(self, image: int, found: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
        errors = self._errors.setdefault(image, {})
        for scale in self._scales:
            if self._reached(scale):
                errors[scale] = errors.get(scale, 0.0) + self._errors_of(scale, found)

    def errors(self, base: Mapping[SharedScale, int]) -> dict[SharedScale, np.ndarray]:
        """Return the error of each threshold of a scale, ``float64[k]``, for scales with gradients.

        Each image has the same weight: its errors are divided by their sum over all scales. Otherwise one
        doubtful image would decide everything, as the output of a Softmax hardly changes where it is certain.

        Args:
            base: scale -> index of the threshold that is used for this sum.
        """
        found: dict[SharedScale, np.ndarray] = {}
        for errors in self._errors.values():
            total = sum(float(own[base[scale]]) for scale, own in errors.items())
            for scale, own in errors.items():
                if total > 0:
                    found[scale] = found.get(scale, 0.0) + own / total / len(self._errors)
        return found

    def _errors_of(
        self, scale: SharedScale, found: Mapping[str, tuple[np.ndarray, np.ndarray]]
    ) -> np.ndarray:
        """The error of each threshold of a scale; effects of its tensors are added before squaring."""
        amaxes = self._scales[scale]
        together, apart = np.zeros(len(amaxes)), np.zeros(len(amaxes))
        for name in self._reached(scale):
            product, square = error_products(*found[name], amaxes)
            together += product
            apart += square
        return np.asarray(together**2 + apart)

    def close(self) -> None:
        """Free the memory."""
        self._gradients.close()


def _read_apart(
    model: ir.Model, placement: Placement, names: set[str]
) -> tuple[ir.Model, dict[str, str]]:
    """A copy in which readers through a Q/DQ pair read an Identity instead; and tensor -> its Identity."""
    copy = model.clone()
    taken, nodes = Names(copy), nodes_by_name(copy.graph)
    values = values_by_name(copy.graph)
    reads = {}
    for name in sorted(names):
        value = values[name]
        identity = ir.node("Identity", [value], name=taken.fresh(f"{name}_read_node"))
        given = identity.outputs[0]
        given.name, given.type, given.shape = taken.fresh(f"{name}_read"), value.type, value.shape
        producer = value.producer()
        if producer is None:
            copy.graph.insert_before(copy.graph[0], identity)
        else:
            copy.graph.insert_after(producer, identity)
        # an output of the network keeps the tensor: rounding it has no effect through other nodes
        for reader in (one for one in placement.consumers[name] if one.node != GRAPH_OUTPUT):
            nodes[reader.node].replace_input_with(reader.index, given)
        reads[name] = given.name
    return copy, reads
