"""Is a cut network what it should be? Shapes on two inputs, values against zeroed channels.

Removing a channel is the same as multiplying what reads it by zero. So the dense network with the
readers' weights of the removed channels at zero must compute what the cut network computes. That finds
what shapes do not: a channel shuffle runs with half of the channels, and is wrong.

It holds exactly unless a norm or attention mixes the channels (`dependency.is_mixer`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from trtbuild.errors import ModelError
from trtbuild.pytorch.float64 import float64_copy, outputs64, relative_difference
from trtbuild.pytorch.inputs import other_batch

if TYPE_CHECKING:
    from trtbuild.pytorch.inputs import BoundInputs

__all__ = ["DenseReference", "Snapshot"]

_TOLERANCE = 1e-9
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class Snapshot:
    """The attributes and tensors of all modules, to go back to.

    Torch-Pruning puts new tensors in place of old ones and never writes into them, so references are
    enough.
    """

    def __init__(self, module: nn.Module) -> None:
        self._states = [
            (child, dict(child.__dict__), dict(child._parameters), dict(child._buffers))
            for child in module.modules()
        ]

    def restore(self) -> None:
        """Put everything back."""
        for child, attributes, parameters, buffers in self._states:
            child.__dict__.clear()
            child.__dict__.update(attributes)
            child._parameters = parameters
            child._buffers = buffers


class DenseReference:
    """The dense network, to hold a cut one against."""

    def __init__(self, dense: nn.Module, inputs: BoundInputs) -> None:
        self._dense = float64_copy(dense)
        self._samples = [(inputs, 1), *((other, 2) for other in other_batch(inputs))]
        # Original numbers of the input channels that a layer still has.
        self._survivors: dict[str, torch.Tensor] = {}

    def note_removed(self, graph: Any, group: Any) -> None:
        """Zero, in the dense network, what reads the channels of `group`. Call it before the cut."""
        for item in group:
            layer = item.dep.target.module
            reads = graph.is_in_channel_pruning_fn(item.dep.handler)
            if reads and isinstance(layer, nn.Linear | nn.modules.conv._ConvNd):
                self._zero(str(graph._module2name[layer]), [int(index) for index in item.idxs])

    def _zero(self, path: str, indices: list[int]) -> None:
        layer = self._dense.get_submodule(path)
        groups = getattr(layer, "groups", 1)
        depthwise = groups > 1 and groups == layer.weight.shape[0] * (
            layer.weight.shape[1] if isinstance(layer, _TRANSPOSED) else 1
        )
        if depthwise:
            return  # a depthwise layer passes its channel on; whoever reads that is zeroed
        inputs = layer.weight.shape[0 if isinstance(layer, _TRANSPOSED) else 1]
        inputs *= 1 if isinstance(layer, _TRANSPOSED) else groups
        survivors = self._survivors.get(path, torch.arange(inputs))
        gone = survivors[indices]
        keep = torch.ones(len(survivors), dtype=torch.bool)
        keep[indices] = False
        self._survivors[path] = survivors[keep]
        with torch.no_grad():
            if isinstance(layer, _TRANSPOSED):
                layer.weight[gone] = 0
            else:
                grouped = layer.weight.view(groups, -1, *layer.weight.shape[1:])
                for channel in gone.tolist():
                    size = layer.weight.shape[1]
                    grouped[channel // size, :, channel % size] = 0

    def broken(self, cut: nn.Module, *, values: bool) -> str:
        """Why `cut` is not the dense network without the noted channels; empty when it is.

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
                        f"({str(error).splitlines()[0][:160]})."
                    ) from error
                continue  # the dense network does not take another batch size either
            try:
                found = outputs64(copy, inputs, seed)
            except Exception as error:  # noqa: BLE001 - the user's forward may raise anything
                return f"the network does not run without them: {str(error).splitlines()[0][:160]}"
            if [t.shape for t in found] != [t.shape for t in wanted]:
                return "an output would change its shape"
            if values:
                difference = relative_difference(wanted, found)
                if not difference <= _TOLERANCE:
                    return f"the network computes something else without them (off by {difference:.1e})"
        return ""
