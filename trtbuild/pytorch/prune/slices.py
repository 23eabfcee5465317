"""Reads from the trace which channels a slice takes and where a concatenation puts them; corrects the graph.

Torch-Pruning assigns the pieces of a ``chunk`` in the order in which it happens to meet them, and composes
two mappings in the wrong order if a piece is concatenated again (YOLOv8's C2f). Autograd has the right order:
each edge names the output that it comes from, and the shape of its tensor.

In the corrected graph, layers before a slice come first, so that a group has all pieces, not just one.
Pieces of the same size keep the same size: the same channels of each are removed.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch_pruning as tp
from torch_pruning._helpers import _HybridIndex

from trtbuild.errors import ModelError
from trtbuild.pytorch.layers import LAYERS, is_depthwise
from trtbuild.pytorch.prune.edges import (
    ChannelWidths,
    Edge,
    edges_of,
    joined_axis,
    shape_of,
    takes_slices,
)
from trtbuild.pytorch.prune.tracing_fixes import (
    GatesInPieces,
    by_the_widest,
    gradients_everywhere,
    passing_over_the_unknown,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Mapping, Sequence

    from torch import nn

__all__ = [
    "SlicedGraph",
    "TooManyWaysError",
    "following_slices",
    "operators",
    "sizes_of",
    "sliced_alike",
]

_TYPES = tp.ops.OPTYPE
_MOST_VISITS = 2
"""Visits per dependency, on average. Networks that can be traced need at most a third of a visit. The
library visits every order of channels separately; where halves are swapped and repeated (rotary positions
with heads that share keys) their number doubles each time."""
_MOST_NUMBERS = 2
"""Channel indices per position on the longest axis. A view that the library takes for a flattening gives each
channel as many indices as the view has positions, again and again (the attention of YOLO11: millions)."""
_SIZES = ("offsets", "split_sizes", "concat_sizes", "start", "end", "shape")


class TooManyWaysError(ModelError):
    """The channels of a layer are joined and cut again in so many ways that tracing them would not end.

    Attributes:
        layer: the layer; None in another process, since pickling drops it.
    """

    def __init__(self, said: str, layer: nn.Module | None = None) -> None:
        super().__init__(said)
        self.layer = layer


class SlicedGraph(tp.DependencyGraph):  # type: ignore[misc]  # the library has no types
    """A dependency graph that knows which channels its slices take, before the library guesses."""

    def __init__(self) -> None:
        super().__init__()
        self.sliced: set[Any] = set()
        self.sliced_alike: dict[nn.Module, tuple[int, list[nn.Module]]] = {}

    def build_dependency(self, *given: Any, **options: Any) -> Any:
        """Trace the module, with ``glu`` as its two pieces."""
        with passing_over_the_unknown(), by_the_widest(), GatesInPieces():
            try:
                with gradients_everywhere():
                    return super().build_dependency(*given, **options)
            except Exception:  # noqa: BLE001 - writes in place may forbid gradients
                self.__init__()  # type: ignore[misc]
                return super().build_dependency(*given, **options)

    def _build_dependency(self, module2node: Any) -> None:
        super()._build_dependency(module2node)
        _follow_slices(self)

    def get_out_channels(self, module_or_node: Any) -> Any:
        """Return the channels of a module or node; of one that cuts into equal pieces, those of a piece."""
        if module_or_node in self.sliced:
            sizes = {end - start for start, end in _all_bounds(module_or_node)}
            return sizes.pop() if len(sizes) == 1 else None
        return super().get_out_channels(module_or_node)

    def get_in_channels(self, module_or_node: Any) -> Any:
        """Return the channels that a module or node reads; of one that cuts into pieces, all of them."""
        if module_or_node in self.sliced:
            operator = module_or_node.module
            if isinstance(operator, tp.ops._SplitOp):
                return sum(operator.split_sizes)
            count, _ = self.sliced_alike[operator]
            return count * self.get_out_channels(module_or_node)
        return super().get_in_channels(module_or_node)

    def get_pruning_group(self, module: nn.Module, pruning_fn: Any, idxs: Any) -> Any:
        """Return the group of the channels `idxs` of `module`.

        Raises:
            TooManyWaysError: the search for the group would not end.
        """
        most = _MOST_VISITS * sum(len(node.dependencies) for node in self.module2node.values())
        widest = _MOST_NUMBERS * _widest_axis(self)

        class Bounded(tp.dependency.Group):  # type: ignore[misc]
            def add_dep(self, dep: Any, idxs: Any) -> None:
                super().add_dep(dep, idxs)
                if len(self) > most or len(idxs) > widest:
                    said = "its channels are coupled in too many ways to be followed."
                    raise TooManyWaysError(said, module)

        bounded = mock.patch.object(tp.dependency.graph, "Group", Bounded)
        with bounded, passing_over_the_unknown(), by_the_widest():
            return super().get_pruning_group(module, pruning_fn, idxs)


@contextlib.contextmanager
def following_slices() -> Iterator[None]:
    """Let a pruner of the library, which builds its own graph, build a `SlicedGraph`."""
    with mock.patch.object(tp.dependency, "DependencyGraph", SlicedGraph):
        yield


def _follow_slices(graph: Any) -> None:
    """Set the channel mappings through the slices and concatenations of a graph."""
    edges = edges_of(graph)
    widths = ChannelWidths(graph, edges)
    sliced = [node for node in edges if takes_slices(node) and widths.is_along(node)]
    joined = {
        node: parts
        for node in edges
        if node.type == _TYPES.CONCAT and widths.is_along(node) and (parts := _parts(node))
    }
    _set_sizes(sliced, joined, edges)
    _set_maps(sliced, joined, edges)
    _leave_what_is_repeated(edges, widths)
    before = {node.module: _layers_before(node) for node in sliced}
    graph.sliced_alike = {
        node.module: (_equal_parts(node, edges), before[node.module]) for node in sliced
    }
    graph.sliced = set(sliced)
    for node in sliced:
        node.type = _TYPES.ELEMENTWISE  # so that the library leaves its edges alone
    known = graph.module2node
    first = {layer for layers in before.values() for layer in layers}
    graph.module2node = {
        **{module: known[module] for module in known if module in first}, **known
    }  # fmt: skip


def _set_sizes(
    sliced: Sequence[Any], joined: Mapping[Any, list[int]], edges: dict[Any, list[Edge]]
) -> None:
    """Store in the operators the sizes of the pieces that they cut and join."""
    for node in sliced:
        if node.type == _TYPES.SLICE:
            node.module.end = min(int(node.module.end), _width_into(node, edges))
        else:
            shapes = [tuple(one.shape) for one in node.grad_fn._input_metadata]
            node.module.split_sizes = [shape[joined_axis(node, shape)] for shape in shapes]
    for node, parts in joined.items():
        node.module.concat_sizes = parts


def _set_maps(
    sliced: Sequence[Any], joined: Mapping[Any, list[int]], edges: dict[Any, list[Edge]]
) -> None:
    """Set the mappings along the edges out of slices and into concatenations."""
    for into, edge in ((into, edge) for into, found in edges.items() for edge in found):
        maps = []
        if edge.source in sliced:
            maps.append(_piece_of(edge.source, edge.output))
        if into in joined:
            maps.append(_place_in(into, edge.position))
        if maps or into in sliced:
            edge.follow(maps)


def _leave_what_is_repeated(edges: dict[Any, list[Edge]], widths: ChannelWidths) -> None:
    """Decouple a channel that is added to, or multiplied with, each of several channels."""
    for into, found in edges.items():
        for edge in found:
            if widths.is_repeated(edge, into):
                edge.follow([(_nothing, _nothing)])


def _widest_axis(graph: Any) -> int:
    """The longest axis of all parameters and of all tensors in the trace."""
    nodes = graph.module2node.values()
    shapes = [shape_of(node.grad_fn, 0) for node in nodes]
    shapes += [tuple(one.shape) for one in graph.model.parameters()]
    return max((size for shape in shapes for size in shape), default=0)


def sliced_alike(graph: Any, heads: Container[nn.Module]) -> dict[nn.Module, int]:
    """Return operator -> number of equal pieces that it cuts channels into, in a `SlicedGraph`.

    Args:
        graph: of the library.
        heads: layers whose channels belong to heads, which are counted separately.
    """
    return {
        one: count
        for one, (count, layers) in graph.sliced_alike.items()
        if count > 1 and not any(layer in heads for layer in layers)
    }


def operators(graph: Any) -> list[nn.Module]:
    """Return the operators of a graph that store sizes, which a cut changes."""
    kinds = (tp.ops._SplitOp, tp.ops._ConcatOp, tp.ops._SliceOp, tp.ops._OutputOp)
    return [module for module in graph.module2node if isinstance(module, kinds)]


def sizes_of(operator: nn.Module) -> dict[str, Any]:
    """Return a copy of the sizes that such an operator stores."""
    found = {name: vars(operator)[name] for name in _SIZES if name in vars(operator)}
    return {
        name: list(value) if isinstance(value, list) else value for name, value in found.items()
    }


def _parts(node: Any) -> list[int]:
    """The channels of each argument of a concatenation; empty if several arguments have no gradients."""
    functions = node.grad_fn.next_functions
    whole = shape_of(node.grad_fn, 0)
    axis = joined_axis(node, whole)
    given = [shape_of(function, output) for function, output in functions]
    sizes = [shape[axis] if shape else 0 for shape in given]
    if sizes.count(0) > 1:
        return []
    return [size or whole[axis] - sum(sizes) for size in sizes]


def _bounds(node: Any, output: int) -> tuple[int, int]:
    """Start and end of a piece, after the cuts so far."""
    if isinstance(node.module, tp.ops._SliceOp):
        return int(node.module.start), int(node.module.end)
    sizes = node.module.split_sizes
    start = sum(sizes[:output])
    return start, start + sizes[output]


def _all_bounds(node: Any) -> list[tuple[int, int]]:
    count = 1 if isinstance(node.module, tp.ops._SliceOp) else len(node.module.split_sizes)
    return [_bounds(node, output) for output in range(count)]


def _piece_of(node: Any, output: int) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    def there(indices: Any) -> Any:
        start, end = _bounds(node, output)
        return [_moved(one, -start) for one in indices if start <= one.idx < end]

    def back(indices: Any) -> Any:
        start, _ = _bounds(node, output)
        return [_moved(one, start) for one in indices]

    return there, back


def _place_in(node: Any, position: int) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    def there(indices: Any) -> Any:
        start = sum(node.module.concat_sizes[:position])
        return [_moved(one, start) for one in indices]

    def back(indices: Any) -> Any:
        sizes = node.module.concat_sizes
        start = sum(sizes[:position])
        return [
            _moved(one, -start) for one in indices if start <= one.idx < start + sizes[position]
        ]

    return there, back


def _nothing(indices: Any) -> Any:
    """Map to no channels."""
    del indices
    return []


def _moved(index: Any, by: int) -> Any:
    return _HybridIndex(idx=index.idx + by, root_idx=index.root_idx)


def _equal_parts(node: Any, edges: dict[Any, list[Edge]]) -> int:
    """How many equal pieces `node` and similar slices cut the channels into; 1 if the pieces differ."""
    if node.type == _TYPES.SPLIT:
        sizes = node.module.split_sizes
        return len(sizes) if len(set(sizes)) == 1 else 1
    width, start = _width_into(node, edges), int(node.module.start)
    size = int(node.module.end) - start
    return width // size if size and width % size == 0 and start % size == 0 else 1


def _width_into(node: Any, edges: dict[Any, list[Edge]]) -> int:
    (edge,) = edges[node]
    shape = shape_of(edge.source.grad_fn, edge.output)
    return shape[joined_axis(node, shape)]


def _layers_before(node: Any) -> list[nn.Module]:
    seen, stack, found = set(), list(node.inputs), []
    while stack:
        one = stack.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one.module, LAYERS) and not is_depthwise(one.module):
            found.append(one.module)
            continue
        stack.extend(one.inputs)
    return found
