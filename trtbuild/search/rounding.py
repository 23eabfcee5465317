"""Rounds weights so that the layer's output changes least, instead of each weight to the nearest step.

Let w be the weights of one output channel, q their rounded values and x their inputs. The error of the
output over the calibration images is (w - q) H (w - q)^T with H = sum x x^T. Weights are rounded one after
the other, and the remaining weights compensate the error of each as well as H allows.

Source: Frantar et al., GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers,
ICLR 2023, with columns in the order of their weight in H; in the form of Babai's nearest plane, which gives
the same without an inverse (Chen et al., The Geometry of LLM Quantization, 2025). The scales stay symmetric,
with 127 steps: the largest weight of a scale keeps its step, and pruned weights stay zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbuild.calibration.observe import Observer, as_samples, observe
from trtbuild.model.attributes import attribute
from trtbuild.model.constants import array
from trtbuild.model.edits import GraphWriter, tapped
from trtbuild.model.traversal import nodes_by_name
from trtbuild.plan import INT8_LIMIT
from trtbuild.quantization import weight_scales
from trtbuild.runtime.onnxruntime import Execution, open_session
from trtbuild.search.channels.sites import is_transposed
from trtbuild.search.draws import generator_for

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from trtbuild.plan import WeightPoint
    from trtbuild.runtime.session import Feeds

    Array = NDArray[np.float64]

__all__ = ["round_weights", "with_weights"]

# Rows (pixels, tokens) taken from each image; some thousand in all suffice for H of a few hundred weights.
_ROWS = 256
# Most bytes of all H of one pass over the images.
_BUDGET = 1 << 29
# Share of the mean of H's diagonal that is added to the diagonal, as in the source.
_DAMPING = 0.01
_BLOCK = 128


@dataclass(frozen=True)
class _Layer:
    """A layer whose weight is rounded.

    Attributes:
        node: the layer.
        axis: axis of the per-channel scales, or None for one scale.
        weight: its weight, in the layout of the network.
    """

    node: ir.Node
    axis: int | None
    weight: np.ndarray

    @property
    def group(self) -> int:
        """Number of groups of a convolution; 1 for other layers."""
        return int(attribute(self.node, "group", 1)) if self.node.op_type == "Conv" else 1

    @property
    def is_turned(self) -> bool:
        """Whether the layout of the weight is inputs by outputs."""
        return self.node.op_type != "Conv" and not is_transposed(self.node)

    def rows(self, weight: np.ndarray) -> Array:
        """Return a weight as groups x outputs of a group x weights of one output, float64."""
        flat = weight.T if self.is_turned else weight.reshape(len(weight), -1)
        return flat.reshape(self.group, -1, flat.shape[1]).astype(np.float64)

    def weight_of(self, rows: Array) -> np.ndarray:
        """Undo `rows`."""
        flat = rows.reshape(-1, rows.shape[-1])
        turned = flat.T if self.is_turned else flat.reshape(self.weight.shape)
        return np.ascontiguousarray(turned.astype(self.weight.dtype))

    @property
    def tensor(self) -> str:
        """Name of the activation that it reads."""
        value = self.node.inputs[0]
        assert value is not None
        return value.name or ""

    @property
    def num_bytes(self) -> int:
        """Size of its H."""
        length = self.weight.shape[0] if self.is_turned else self.weight[0].size
        return int(8 * self.group * length**2)


def round_weights(
    model: ir.Model, points: Sequence[WeightPoint], feeds: Sequence[Feeds]
) -> dict[str, np.ndarray]:
    """Return node name -> its rounded weight, if that is better than rounding to the nearest steps.

    Quantizing such a weight with the scales of its own largest values does not change it. Weights that
    several nodes read, and those of ConvTranspose, are left out.

    Args:
        model: the float network.
        points: its weights that become INT8.
        feeds: calibration images.

    Raises:
        ModelError: the network cannot be run, or a weight holds NaN or infinity.
    """
    nodes = nodes_by_name(model.graph)
    layers = [found for point in points if (found := _layer(nodes, point)) is not None]
    rounded: dict[str, np.ndarray] = {}
    for some in _portions(layers):
        products = _Products(some)
        session = open_session(tapped(model, {layer.tensor for layer in some}), Execution.FLOAT)
        observe(session, as_samples(feeds), [products])
        for layer in some:
            weight = _rounded(layer, products.of(layer))
            if weight is not None:
                rounded[layer.node.name or ""] = weight
    return rounded


def with_weights(model: ir.Model, weights: Mapping[str, np.ndarray]) -> ir.Model:
    """Return a copy of `model` in which the named nodes have these weights as input 1."""
    model = model.clone()
    writer = GraphWriter(model)
    for node in list(model.graph):
        weight = weights.get(node.name or "")
        if weight is not None:
            writer.set_constant(node, 1, weight, "rounded")
    return model


def _layer(nodes: Mapping[str, ir.Node], point: WeightPoint) -> _Layer | None:
    node = nodes[point.node]
    value = node.inputs[1]
    weight = array(value)
    of_kind = node.op_type in ("Conv", "MatMul") or (
        node.op_type == "Gemm" and not attribute(node, "transA", 0)
    )
    if point.index != 1 or not of_kind or weight is None or value is None or len(value.uses()) > 1:
        return None
    if node.op_type != "Conv" and weight.ndim != 2:
        return None
    if attribute(node, "auto_pad", "NOTSET") not in ("NOTSET", ""):
        return None
    return _Layer(node, point.axis, weight)


def _portions(layers: Sequence[_Layer]) -> Iterator[list[_Layer]]:
    """Yield layers whose H fit into `_BUDGET` together; a layer that does not fit alone is left out."""
    some: list[_Layer] = []
    used = 0
    for layer in layers:
        if layer.num_bytes > _BUDGET:
            continue
        if some and used + layer.num_bytes > _BUDGET:
            yield some
            some, used = [], 0
        some.append(layer)
        used += layer.num_bytes
    if some:
        yield some


class _Products(Observer):
    """Sums H of each layer, over rows drawn evenly from all images."""

    def __init__(self, layers: Sequence[_Layer]) -> None:
        self._layers = layers
        self._sums: dict[str, Array] = {}
        self._random = {layer.node.name: generator_for(layer.node.name or "") for layer in layers}

    @property
    def tensors(self) -> Collection[str]:
        """Names of the tensors that it observes."""
        return {layer.tensor for layer in self._layers}

    def update(self, tensors: Mapping[str, Any], places: Sequence[object]) -> None:
        """Take the tensors of some samples; see `Observer`."""
        del places
        for layer in self._layers:
            for values in tensors[layer.tensor]:
                rows = _read(layer, values, self._random[layer.node.name])
                name, product = layer.node.name or "", rows.swapaxes(1, 2) @ rows
                if name in self._sums:
                    self._sums[name] += product
                else:
                    self._sums[name] = product.astype(np.float64)

    def of(self, layer: _Layer) -> Array:
        """Return H, groups x length x length."""
        return self._sums[layer.node.name or ""]


def _read(layer: _Layer, values: np.ndarray, random: np.random.Generator) -> NDArray[np.float32]:
    """Return the inputs that some outputs multiply with their weights, groups x rows x length."""
    if layer.node.op_type != "Conv":
        rows = values.reshape(-1, values.shape[-1])
        taken: NDArray[np.float32] = rows[_some(len(rows), random)][None].astype(np.float32)
        return taken
    windows = _windows(layer, values)
    kernel = layer.weight.shape[2:]
    places = windows.shape[2 : 2 + len(kernel)]
    chosen = np.unravel_index(
        _some(int(np.prod(places)) * len(windows), random), (len(windows), *places)
    )
    # axes after moving: samples, positions, channels, kernel positions
    found = np.moveaxis(windows, 1, -1 - len(kernel))[chosen]
    grouped = found.reshape(len(found), layer.group, -1).astype(np.float32)
    by_group: NDArray[np.float32] = grouped.swapaxes(0, 1)
    return by_group


def _some(count: int, random: np.random.Generator) -> NDArray[np.int64]:
    return np.arange(count) if count <= _ROWS else random.choice(count, _ROWS, replace=False)


def _windows(layer: _Layer, values: np.ndarray) -> np.ndarray:
    """Return a view N x C x positions x kernel of the padded input."""
    node, kernel = layer.node, layer.weight.shape[2:]
    count = len(kernel)
    strides = attribute(node, "strides") or [1] * count
    dilations = attribute(node, "dilations") or [1] * count
    pads = attribute(node, "pads") or [0] * 2 * count
    padded = np.pad(values, [(0, 0), (0, 0), *zip(pads[:count], pads[count:])])
    spans = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilations))
    axes = tuple(range(2, 2 + count))
    windows = np.lib.stride_tricks.sliding_window_view(padded, spans, axes)
    steps = (slice(None, None, step) for step in (*strides, *dilations))
    index = (slice(None), slice(None), *steps)
    found: np.ndarray = windows[index]
    return found


def _rounded(layer: _Layer, products: Array) -> np.ndarray | None:
    """Return the rounded weight; None if the nearest steps are as good."""
    scales = weight_scales(layer.weight, layer.axis, layer.node.name or "")
    shape = [1] * layer.weight.ndim
    if layer.axis is not None:
        shape[layer.axis] = -1
    each = np.broadcast_to(scales.reshape(shape), layer.weight.shape)
    weight, steps = layer.rows(layer.weight), layer.rows(each)
    nearest = np.clip(np.rint(weight / steps), -INT8_LIMIT, INT8_LIMIT)
    fixed = (weight == 0) | (np.abs(nearest) == INT8_LIMIT)
    found = _nearest_plane(weight, steps, np.where(fixed, nearest, np.nan), products)
    errors = [_error(weight - levels * steps, products) for levels in (found, nearest)]
    return layer.weight_of(found * steps) if errors[0] < errors[1] else None


def _error(change: Array, products: Array) -> float:
    return float(((change @ products) * change).sum())


def _nearest_plane(weight: Array, steps: Array, given: Array, products: Array) -> Array:
    """Return levels, groups x outputs x length; levels in `given` that are not NaN stay.

    With H = L L^T the error is |(w - q) L|^2, whose last term depends on the last weight alone. So weights
    are rounded from the last to the first, each to minimize its own term.
    """
    diagonal = np.einsum("gkk->gk", products)
    order = np.argsort(diagonal.sum(0), kind="stable")  # the last, largest in H, is rounded first
    weight, steps, given = (one[..., order] for one in (weight, steps, given))
    damped = products[:, order[:, None], order].astype(np.float64)
    mean = np.maximum(diagonal.mean(1), np.finfo(np.float32).tiny)
    damped += _DAMPING * mean[:, None, None] * np.eye(len(order))
    factor = np.linalg.cholesky(damped)
    change, levels = np.zeros_like(weight), np.empty_like(weight)
    for stop in range(len(order), 0, -_BLOCK):
        start = max(stop - _BLOCK, 0)
        carried = change[..., stop:] @ factor[:, stop:, start:stop]
        for k in reversed(range(start, stop)):
            inside = change[..., k + 1 : stop] @ factor[:, k + 1 : stop, k, None]
            owed = (carried[..., k - start] + inside[..., 0]) / factor[:, None, k, k]
            level = np.rint((weight[..., k] + owed) / steps[..., k])
            level = np.clip(level, 1 - INT8_LIMIT, INT8_LIMIT - 1)
            levels[..., k] = np.where(np.isnan(given[..., k]), level, given[..., k])
            change[..., k] = weight[..., k] - levels[..., k] * steps[..., k]
    back = np.empty_like(levels)
    back[..., order] = levels
    return back
