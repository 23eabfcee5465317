"""The check of a cut: shapes for two inputs, and values against zeroed channels.

Removing a channel is the same as multiplying it by zero where it is read. So the dense network with the
readers' weights of the removed channels set to zero must compute the same as the cut network. This finds
errors that shapes do not show: a channel shuffle runs with half of the channels, but is wrong.

The two are equal unless a norm or attention mixes the channels (`dependency.is_mixer`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from trtbuild.errors import ModelError, first_line
from trtbuild.pytorch.float64 import float64_copy, outputs64, relative_difference
from trtbuild.pytorch.inputs import other_batch
from trtbuild.pytorch.layers import LAYERS, TRANSPOSED, is_depthwise

if TYPE_CHECKING:
    from torch import nn

    from trtbuild.pytorch.inputs import BoundInputs

__all__ = ["DOES_NOT_RUN", "DenseReference"]

_TOLERANCE = 1e-9

DOES_NOT_RUN = "the network does not run without them"
"""Beginning of the answer of `DenseReference.broken` for a cut network that does not run."""


class DenseReference:
    """The dense network, with which a cut one is compared."""

    def __init__(self, dense: nn.Module, inputs: BoundInputs) -> None:
        self._dense = float64_copy(dense)
        self._samples = [(inputs, 1), *((other, 2) for other in other_batch(inputs))]
        # Original indices of the input channels that a layer still has.
        self._survivors: dict[str, torch.Tensor] = {}

    def note_removed(self, graph: Any, group: Any) -> None:
        """Zero the dense network's weights that read the channels of `group`. Call it before the cut."""
        for item in group:
            layer = item.dep.target.module
            reads = graph.is_in_channel_pruning_fn(item.dep.handler)
            if reads and isinstance(layer, LAYERS):
                self.note_unread(graph._module2name[layer], [int(index) for index in item.idxs])

    def note_unread(self, path: str, indices: list[int]) -> None:
        """Zero the weights that read these inputs of the layer at `path`. Call it before the cut."""
        layer = self._dense.get_submodule(path)
        if is_depthwise(layer):
            return  # it passes each channel on; the weights that read its output are zeroed
        groups, transposed = getattr(layer, "groups", 1), isinstance(layer, TRANSPOSED)
        inputs = layer.weight.shape[0] if transposed else layer.weight.shape[1] * groups
        survivors = self._survivors.get(path, torch.arange(inputs))
        gone = survivors[indices]
        keep = torch.ones(len(survivors), dtype=torch.bool)
        keep[indices] = False
        self._survivors[path] = survivors[keep]
        with torch.no_grad():
            if transposed:
                layer.weight[gone] = 0
            else:
                size = layer.weight.shape[1]
                grouped = layer.weight.view(groups, -1, *layer.weight.shape[1:])
                grouped[gone // size, :, gone % size] = 0

    def broken(self, cut: nn.Module, *, values: bool) -> str:
        """Return how `cut` differs from the dense network without the noted channels; empty if it does not.

        Args:
            cut: the network after the cut.
            values: compare values; else only that it runs and gives the same shapes.

        Raises:
            ModelError: the dense network itself does not run in float64.
        """
        if any(0 in tensor.shape for tensor in cut.parameters()):
            return "a layer would have no channels left"
        copy = float64_copy(cut)
        for inputs, seed in self._samples:
            try:
                wanted = outputs64(self._dense, inputs, seed)
            except Exception as error:
                if seed == 1:
                    raise ModelError(
                        "a cut could not be checked: the module does not run in float64 "
                        f"({first_line(error)[:160]})."
                    ) from error
                continue  # the dense network does not take another batch size either
            try:
                found = outputs64(copy, inputs, seed)
            except Exception as error:  # noqa: BLE001 - the user's forward may raise anything
                return f"{DOES_NOT_RUN}: {first_line(error)[:160]}"
            if [t.shape for t in found] != [t.shape for t in wanted]:
                return "an output would change its shape"
            if values:
                difference = relative_difference(wanted, found)
                if not difference <= _TOLERANCE:
                    return f"the network computes something else without them (off by {difference:.1e})"
        return ""
