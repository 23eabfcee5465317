"""What Torch-Pruning guesses wrongly while it traces, or does not see: put right for as long as it works."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
import torch_pruning as tp
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["GatesInPieces", "by_the_widest", "gradients_everywhere", "joining_what_is_known"]


@contextlib.contextmanager
def joining_what_is_known() -> Iterator[None]:
    """Let the library pass over concatenations of parts whose width is not known, on which it fails.

    Queries that turn with their positions, half by half, are such. What the shapes say of the parts is set
    afterwards, see `trtbuild.pytorch.prune.slices`.
    """
    mappings = tp.dependency.index_mapping
    join, between = (
        mappings.update_concat_index_mapping,
        tp.dependency.shape_infer.infer_channels_between,
    )

    def joined(graph: Any, node: Any) -> None:
        sizes = node.module.concat_sizes or [between(graph, one, node) for one in node.inputs]
        if None not in sizes:
            join(graph, node)

    with mock.patch.object(mappings, "update_concat_index_mapping", joined):
        yield


@contextlib.contextmanager
def by_the_widest() -> Iterator[None]:
    """Let the library count the channels of a sum or product by its widest part, and not by its last.

    The last may be one map for all channels, and then a flattening behind it is taken for another.
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
    """Let gradients flow through frozen parts of forward as well: the library sees channels by them."""
    with contextlib.ExitStack() as stack:
        for block in (torch.no_grad, torch.inference_mode):
            for name in ("__enter__", "__exit__"):
                stack.enter_context(mock.patch.object(block, name, return_value=None))
        yield


class GatesInPieces(TorchFunctionMode):  # type: ignore[misc]
    """Within this mode ``glu`` is what it stands for: one half times the sigmoid of the other."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call `func`, or what ``glu`` stands for."""
        del types
        if func not in (F.glu, torch._C._nn.glu):
            return func(*args, **(kwargs or {}))
        return _gate(*args, **(kwargs or {}))


def _gate(input: torch.Tensor, dim: int = -1) -> torch.Tensor:  # noqa: A002 - torch's name
    value, gate = input.chunk(2, dim)
    return value * gate.sigmoid()
