"""Temporary corrections of what Torch-Pruning guesses wrongly or does not see during tracing."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
import torch_pruning as tp
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["GatesInPieces", "by_the_widest", "gradients_everywhere", "passing_over_the_unknown"]


@contextlib.contextmanager
def passing_over_the_unknown() -> Iterator[None]:
    """Let the library skip operators whose channels it cannot trace, instead of failing on them.

    Examples: rotary embeddings of queries, in halves, and views of maps with few channels. What the shapes
    tell is set afterwards (`trtbuild.pytorch.prune.slices`); the check of a cut covers the rest.
    """
    mappings = tp.dependency.index_mapping
    between = tp.dependency.shape_infer.infer_channels_between

    def guarded(known: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
        def tried(graph: Any, node: Any) -> None:
            with contextlib.suppress(ArithmeticError, LookupError, TypeError):
                if node.type == tp.ops.OPTYPE.CONCAT and not node.module.concat_sizes:
                    sizes = [between(graph, one, node) for one in node.inputs]
                    if None in sizes:
                        return
                known(graph, node)

        return tried

    with contextlib.ExitStack() as stack:
        for kind in ("concat", "split", "reshape", "expand", "slice"):
            name = f"update_{kind}_index_mapping"
            stack.enter_context(mock.patch.object(mappings, name, guarded(getattr(mappings, name))))
        unbind = mock.patch.object(mappings, "update_unbind_index_mapping", guarded(_follow_unbind))
        stack.enter_context(unbind)
        yield


def _follow_unbind(graph: Any, node: Any) -> None:
    """Give an ``unbind`` one piece of channels per output, not per reader.

    The library counts one piece per reader, and a query that is normalized has two.
    """
    function = node.grad_fn
    infer = tp.dependency.shape_infer.infer_out_channels_recursively
    width = next((found for one in node.inputs if (found := infer(graph, one, [0]))), None)
    count = len(function._input_metadata)
    if function._saved_dim != 0 or width is None or width % count:
        return
    size = width // count
    node.module.offsets = [size * number for number in range(count + 1)]
    seen: dict[Any, int] = {}
    for place, taker in enumerate(node.outputs):
        nth = seen[taker] = seen.get(taker, -1) + 1
        taken = [number for one, number in taker.grad_fn.next_functions if one is function]
        where = [index for index, one in enumerate(taker.inputs) if one is node]
        bounds = [size * taken[nth], size * (taken[nth] + 1)]
        for edge, back in (
            (node.dependencies[len(node.inputs) + place], False),
            (taker.dependencies[where[nth]], True),
        ):
            split = tp.dependency.index_mapping._SplitIndexMapping(bounds, reverse=back)
            edge.index_mapping[0] = split


@contextlib.contextmanager
def by_the_widest() -> Iterator[None]:
    """Let the library take the channels of a sum or product from its widest operand, not from its last.

    The last may be one map for all channels; then the library misreads a flattening after it.
    """
    infer = tp.dependency.shape_infer
    known, name = infer.infer_out_channels_recursively, "infer_out_channels_recursively"

    def widest(graph: Any, node: Any, depth: list[int]) -> Any:
        kinds = {one.type for one in node.inputs}
        if (
            node.type != tp.ops.OPTYPE.ELEMENTWISE
            or len(node.inputs) < 2
            or tp.ops.OPTYPE.SPLIT in kinds
        ):
            return known(graph, node, depth)
        found = []
        for one in node.inputs:
            depth[0] += 1
            found.append(getattr(infer, name)(graph, one, depth))
        return max((width for width in found if width), default=None)

    with mock.patch.object(infer, name, widest):
        yield


@contextlib.contextmanager
def gradients_everywhere() -> Iterator[None]:
    """Let gradients flow through frozen parts of forward, since the library traces channels by gradients."""
    with contextlib.ExitStack() as stack:
        for block in (torch.no_grad, torch.inference_mode):
            for name in ("__enter__", "__exit__"):
                stack.enter_context(mock.patch.object(block, name, return_value=None))
        yield


class GatesInPieces(TorchFunctionMode):  # type: ignore[misc]
    """In this mode ``glu`` runs as its definition: one half times the sigmoid of the other."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call `func`, or the definition of ``glu`` in its place."""
        del types
        if func not in (F.glu, torch._C._nn.glu):
            return func(*args, **(kwargs or {}))
        return _gate(*args, **(kwargs or {}))


def _gate(input: torch.Tensor, dim: int = -1) -> torch.Tensor:  # noqa: A002 - torch's name
    value, gate = input.chunk(2, dim)
    return value * gate.sigmoid()
