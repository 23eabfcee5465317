"""Adjusts the remaining weights by least squares so that layers compute what the dense ones did; no training.

The layers that lost inputs get new weights, from the first to the last: the weights for which
their outputs on the user's samples are nearest to the dense network's, given the inputs that the adjusted
layers before now make. He et al. 2017, "Channel Pruning for Accelerating Very Deep Neural Networks" (arXiv
1707.06168), its second step.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import nn

from trtbuild.errors import DataError, decoding, first_line
from trtbuild.pytorch.copies import copy_module, make_weights_plain, shared_parameters, unwrapped
from trtbuild.pytorch.fold.on_module import has_hooks
from trtbuild.pytorch.inputs import BoundInputs, bind_inputs
from trtbuild.pytorch.layers import LAYERS
from trtbuild.pytorch.prune.history import apply_history, history_of
from trtbuild.pytorch.prune.replay import Replay
from trtbuild.pytorch.prune.rewrites import rewrite_again

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from trtbuild.pytorch.prune.history import PruneHistory
    from trtbuild.pytorch.prune.outcome import PruneResult
    from trtbuild.pytorch.prune.rewrites import BlockRewrite

__all__ = ["restore_outputs"]

_POSITIONS = 32
"""Positions drawn per sample, since neighbours are similar. He et al. take ten."""
_RIDGE = 1e-3
"""As a share of the inputs' mean square: keeps the weights in directions that the samples lack."""
_MOST_BYTES = 1 << 28
"""Bytes of target outputs held at a time: one run of the dense network gives those of many layers."""
_KNOWN = (nn.Linear, nn.Conv1d, nn.Conv2d)


def restore_outputs(
    module: nn.Module,
    pruned: PruneResult,
    samples: Sequence[Mapping[str, Any]],
    *,
    rewrites: Sequence[BlockRewrite] = (),
) -> tuple[str, ...]:
    """Adjust the weights of layers in ``pruned.module`` that lost inputs to restore their outputs, in place.

    Needs no training and no labels, and restores most of the accuracy that a cut costs. It handles linear
    layers and convolutions over one and two axes; those that are grouped, tied, called twice or hooked stay.

    Args:
        module: the module before pruning, in eval mode.
        pruned: the result of `prune_channels` or `prune_indices`.
        samples: name of an input -> values (tensor or array), with a batch axis; some hundred in total.
        rewrites: as passed to `prune_channels`.

    Returns:
        The paths of the adjusted layers.

    Raises:
        DataError: there are no samples, one lacks an input or does not fit forward, or a layer reads or makes
            NaN or infinity.
    """
    small, module = pruned.module, unwrapped(module)
    bound = bind_inputs(small, pruned.history.inputs)
    samples = [_tensors(each, bound) for each in samples]
    if not samples:
        raise DataError("the outputs are restored on samples, and there are none.")
    cuts = _cuts_since(pruned.history, history_of(module))
    done = []
    with torch.inference_mode(mode=False), torch.no_grad():  # repeating the cuts traces the module
        dense = copy_module(module).eval()
        make_weights_plain(dense)
        for one in cuts:
            rewrite_again(dense, one.rewritten, rewrites)
        left = _left_of(dense, cuts)
        replay = Replay(small)
        order = _in_order(small, bound, samples[0], _candidates(dense, small))
        for paths in _parts(small, order, samples):
            wanted = _targets(dense, bound, {path: left[path] for path in paths}, samples)
            for path in paths:
                fit = _Fit.of(small.get_submodule(path))
                for number, sample in enumerate(samples):
                    given = replay.read(path, number, lambda: _run(small, bound, sample))  # noqa: B023
                    fit.add(given, *wanted.pop((path, number)))
                if not fit.is_finite:
                    raise DataError(f"on the samples '{path}' reads or gives NaN or infinity.")
                fit.solve()
                done.append(path)
    return tuple(done)


def _tensors(sample: Mapping[str, Any], bound: BoundInputs) -> dict[str, torch.Tensor]:
    """Convert a sample to the types that forward takes.

    Raises:
        DataError: an input is missing, or is not an array of numbers.
    """
    names = ", ".join(bound.names)
    if not isinstance(sample, Mapping):
        raise DataError(
            f"a sample is a dict with values for {names}, not a {type(sample).__name__}."
        )
    if not sample.keys() >= set(bound.names):
        raise DataError(f"a sample holds {', '.join(sample) or 'nothing'}; forward takes {names}.")
    with decoding(DataError, "a sample holds something that is not an array of numbers"):
        return {
            str(spec.name): torch.as_tensor(sample[str(spec.name)]).to(getattr(torch, spec.dtype))
            for spec in bound.specs
        }


def _cuts_since(history: PruneHistory, known: PruneHistory | None) -> list[PruneHistory]:
    """The cuts that are not in `known`, the history of the module as passed; the oldest first."""
    before = history.before
    earlier = [] if before is None or before == known else _cuts_since(before, known)
    return [*earlier, replace(history, before=None)]


def _left_of(dense: nn.Module, cuts: Sequence[PruneHistory]) -> dict[str, torch.Tensor]:
    """Layer path -> original indices of its remaining outputs: cuts a copy whose weights are indices."""
    numbered = copy_module(dense)
    with torch.no_grad():
        layers = [one for one in numbered.modules() if isinstance(one, LAYERS)]
        for layer in layers:
            numbers = torch.arange(len(layer.weight), dtype=torch.float32)
            layer.weight = nn.Parameter(
                numbers.view(-1, *[1] * (layer.weight.ndim - 1)).expand_as(layer.weight).clone()
            )
    for one in cuts:
        inputs = (replace(i, dtype="float32") if i.is_float else i for i in one.inputs)
        apply_history(numbered.float(), replace(one, inputs=tuple(inputs), rewritten=()))
    return {
        path: layer.weight.detach().flatten(1)[:, 0].long()
        for path, layer in numbered.named_modules()
        if isinstance(layer, LAYERS)
    }


def _candidates(dense: nn.Module, small: nn.Module) -> set[str]:
    """Paths of the layers that lost inputs, and whose inputs can be unfolded into rows."""
    before = dict(dense.named_modules())
    tied = {name.rpartition(".")[0] for names in shared_parameters(small) for name in names}
    return {
        path
        for path, layer in small.named_modules()
        if type(layer) in _KNOWN
        and path in before
        and type(before[path]) is type(layer)
        and layer.weight.shape[1] < before[path].weight.shape[1]
        and getattr(layer, "groups", 1) == 1
        and getattr(layer, "padding_mode", "zeros") == "zeros"
        and not isinstance(getattr(layer, "padding", 0), str)
        and path not in tied
        and not has_hooks(layer)
    }


def _in_order(
    module: nn.Module, bound: BoundInputs, sample: Mapping[str, torch.Tensor], paths: set[str]
) -> list[str]:
    """Those of `paths` that are called once, in the order of their calls."""
    called: list[str] = []
    with contextlib.ExitStack() as hooks:
        for path in paths:
            layer = module.get_submodule(path)
            hooks.enter_context(
                layer.register_forward_pre_hook(lambda *_, path=path: called.append(path))
            )
        _run(module, bound, sample)
    times = Counter(called)
    return [path for path in called if times[path] == 1]


def _parts(
    small: nn.Module, order: Sequence[str], samples: Sequence[Mapping[str, torch.Tensor]]
) -> Iterator[list[str]]:
    """Split the layers into parts whose target outputs fit into memory together."""
    count = sum(max(len(one) for one in sample.values()) for sample in samples)
    part: list[str] = []
    room = _MOST_BYTES
    for path in order:
        size = count * _POSITIONS * len(small.get_submodule(path).weight) * 4
        if part and size > room:
            yield part
            part, room = [], _MOST_BYTES
        part.append(path)
        room -= size
    if part:
        yield part


def _targets(
    dense: nn.Module,
    bound: BoundInputs,
    left: Mapping[str, torch.Tensor],
    samples: Sequence[Mapping[str, torch.Tensor]],
) -> dict[tuple[str, int], tuple[torch.Tensor, torch.Tensor]]:
    """The targets: (path, batch) -> drawn positions, and the remaining outputs there."""
    found: dict[tuple[str, int], tuple[torch.Tensor, torch.Tensor]] = {}
    number = 0

    def keep(path: str, layer: Any, output: torch.Tensor) -> None:
        if (path, number) not in found:
            wanted = output.index_select(_axis(layer, output), left[path])
            found[path, number] = _drawn(layer, wanted, torch.Generator().manual_seed(number))

    with contextlib.ExitStack() as hooks:
        for path in left:
            hook = dense.get_submodule(path).register_forward_hook(
                lambda layer, _, output, path=path: keep(path, layer, output)
            )
            hooks.enter_context(hook)
        for number, sample in enumerate(samples):  # noqa: B007 - `keep` reads it
            _run(dense, bound, sample)
    return found


def _drawn(
    layer: Any, output: torch.Tensor, draw: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw positions of a layer's output; return them, and the outputs there: ``[n, positions, outputs]``."""
    rows = output if isinstance(layer, nn.Linear) else output.movedim(1, -1)
    rows = rows.reshape(len(output), -1, output.shape[_axis(layer, output)])
    places = torch.randperm(rows.shape[1], generator=draw)[:_POSITIONS]
    return places, rows[:, places]


def _run(module: nn.Module, bound: BoundInputs, sample: Mapping[str, torch.Tensor]) -> None:
    names = bound.names
    try:
        module(
            *(sample[name] for name in names[: bound.positional]),
            **{name: sample[name] for name in names[bound.positional :]},
        )
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        shapes = ", ".join(f"{name} {list(sample[name].shape)}" for name in names)
        raise DataError(
            f"forward does not take a sample of {shapes}: {first_line(error)}"
        ) from error


def _axis(layer: nn.Module, output: torch.Tensor) -> int:
    """The channel axis of an output."""
    return output.ndim - 1 if isinstance(layer, nn.Linear) else 1


@dataclass
class _Fit:
    """Sums over rows of inputs and outputs of a layer, from which its weights are computed.

    Attributes:
        layer: gets the weights.
        rows_of: the layer's input, positions -> the inputs at these positions: ``[n, positions, inputs]``.
        inputs: sum of the products of inputs ``[inputs, inputs]``, in float64.
        outputs: sum of the products of inputs and outputs ``[inputs, outputs]``, in float64.
    """

    layer: Any
    rows_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    inputs: torch.Tensor
    outputs: torch.Tensor

    @classmethod
    def of(cls, layer: Any) -> _Fit:
        """Return empty sums for a layer; if it has a bias, a one is appended to its inputs."""
        width = layer.weight[0].numel() + int(layer.bias is not None)
        zeros = torch.zeros(width, width + len(layer.weight), dtype=torch.float64)
        inputs, outputs = zeros[:, :width].clone(), zeros[:, width:].clone()
        return cls(layer, _rows_of(layer), inputs, outputs)

    def add(self, given: torch.Tensor, places: torch.Tensor, wanted: torch.Tensor) -> None:
        """Add one batch: the layer's input, positions, and the target outputs there."""
        rows = self.rows_of(given, places), wanted
        left, right = (part.double().flatten(0, 1) for part in rows)
        if self.layer.bias is not None:
            left = F.pad(left, (0, 1), value=1.0)
        self.inputs += left.T @ left
        self.outputs += left.T @ right

    @property
    def is_finite(self) -> bool:
        """Whether all added values are finite."""
        return bool(self.inputs.isfinite().all() and self.outputs.isfinite().all())

    def solve(self) -> None:
        """Give the layer the weights with the least squared error, regularized towards the present ones."""
        layer = self.layer
        present = layer.weight.double().flatten(1)
        if layer.bias is not None:
            present = torch.cat([present, layer.bias.double()[:, None]], 1)
        ridge = _RIDGE * self.inputs.diagonal().mean().clamp_min(torch.finfo(torch.float32).tiny)
        self.inputs.diagonal().add_(ridge)
        found = torch.linalg.solve(self.inputs, self.outputs + ridge * present.T).T
        if layer.bias is not None:
            layer.bias.copy_(found[:, -1])
            found = found[:, :-1]
        layer.weight.copy_(found.reshape(layer.weight.shape))


def _rows_of(layer: Any) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    if isinstance(layer, nn.Linear):
        return lambda given, places: given.reshape(len(given), -1, given.shape[-1])[:, places]
    flat = isinstance(layer, nn.Conv1d)

    def unfolded(given: torch.Tensor) -> torch.Tensor:
        def two(values: tuple[int, ...], other: int) -> tuple[int, ...]:
            return (other, *values) if flat else values

        patches = F.unfold(
            given[:, :, None] if flat else given,
            two(layer.kernel_size, 1),
            dilation=two(layer.dilation, 1),
            padding=two(layer.padding, 0),
            stride=two(layer.stride, 1),
        )
        return patches.transpose(1, 2)

    # one sample at a time: unfolding a large map takes many times its memory
    return lambda given, places: torch.cat([unfolded(one)[:, places] for one in given.split(1)])
