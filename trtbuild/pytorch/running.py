"""Runs a module on a sample, and checks that a second run gives the same."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from trtbuild.errors import ModelError, first_line
from trtbuild.pytorch.copies import copy_module
from trtbuild.pytorch.float64 import tensors_in
from trtbuild.pytorch.inputs import sample

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn

    from trtbuild.pytorch.inputs import BoundInputs

__all__ = ["check_repeatable", "run"]

_SAME = 1e-3
"""Relative to the largest value: above rounding that depends on threads, below new random values."""


def run(module: nn.Module, inputs: BoundInputs, seed: int = 0) -> Any:
    """Run `module` once on a sample.

    Raises:
        ModelError: it does not take these inputs; the text names the layer that failed.
    """
    arguments, keywords = sample(inputs, seed)
    try:
        with torch.no_grad():
            return module(*arguments, **keywords)
    except Exception as error:
        layer = _failing_layer(module, inputs, seed, error) or "forward"
        shapes = ", ".join(f"{s.name} {'x'.join(map(str, s.dims))}" for s in inputs.specs)
        raise ModelError(
            f"the module does not take the input {shapes}: in '{layer}', {first_line(error)}"
            + _types_at_odds(module, inputs)
        ) from error


def _failing_layer(module: nn.Module, inputs: BoundInputs, seed: int, failure: Exception) -> str:
    """Path of the layer in which `module` fails, found by a second run.

    Empty for the module itself, and if the second run does not fail alike: forward may count its runs.
    """
    arguments, keywords = sample(inputs, seed)  # forward may have changed those of the first run
    running = [""]

    def enter(path: str, _: Any) -> None:
        running.append(path)

    def leave(_: Any) -> None:
        running.pop()

    try:
        with _watched(module, enter, leave), torch.no_grad():
            module(*arguments, **keywords)
    except Exception as error:  # noqa: BLE001 - any code of the user's
        return running[-1] if first_line(error) == first_line(failure) else ""
    return ""


@contextlib.contextmanager
def _watched(
    module: nn.Module, enter: Callable[[str, Any], None], leave: Callable[[Any], None]
) -> Iterator[None]:
    """Call `enter` with the path and the arguments of each module that is called, `leave` with its output."""
    with contextlib.ExitStack() as hooks:
        for path, child in module.named_modules():
            before = child.register_forward_pre_hook(
                lambda _m, *read, path=path: enter(path, read), with_kwargs=True
            )
            after = child.register_forward_hook(lambda _m, _i, output: leave(output))
            hooks.enter_context(before)
            hooks.enter_context(after)
        yield


def _types_at_odds(module: nn.Module, inputs: BoundInputs) -> str:
    """What to do if no input has the type of the weights; else empty."""
    weights = {str(one.dtype)[6:] for one in module.parameters() if one.is_floating_point()}
    given = {spec.dtype for spec in inputs.specs if spec.is_float}
    if not weights or not given or weights & given:
        return ""
    names = " and ".join(sorted(weights))
    return (
        f". Its weights are {names}, and the input is {' and '.join(sorted(given))}: make the weights "
        f"float32 (module.float()), or name the type with the input (1x3x224x224:{min(weights)})."
    )


def check_repeatable(module: nn.Module, inputs: BoundInputs) -> None:
    """Run a copy of `module` twice on one sample: an ONNX file has no state and no random numbers.

    Raises:
        ModelError: forward writes a buffer that is saved with the weights, keeps state between two
            runs, or draws random numbers in eval mode; the text names the buffer or the layer.
    """
    copy = copy_module(module, share_parameters=True)
    saved = {name: value.clone() for name, value in copy.named_buffers()}
    saved = {name: value for name, value in saved.items() if name in set(copy.state_dict())}
    first = _trace(copy, inputs, 1)
    for name, value in copy.named_buffers():
        if name in saved and not _same(saved[name], value):
            raise ModelError(
                f"forward writes the buffer '{name}', but an engine keeps nothing between two runs, so an "
                "exported file computes something else. Give what the buffer holds as an input and an output "
                "of forward, or leave it alone in eval mode."
            )
    second = _trace(copy, inputs, 2)
    where = _first_difference(first, second)
    if where is None:
        return
    fresh = _trace(copy_module(module, share_parameters=True), inputs, 2)
    if _first_difference(first, fresh) is None:
        raise ModelError(
            f"{where} keeps something between two runs: on the same input its second run computes "
            "something else. An engine keeps nothing; give it as an input and an output of forward."
        )
    raise ModelError(
        f"{where} is random in eval mode: two runs on the same input differ, and an engine computes the same "
        "every time. Draw only where self.training is set, or give the random values as an input."
    )


@dataclass(frozen=True)
class _Trace:
    """One run: summaries of values in order, with the path of the module that computed each; outputs."""

    steps: list[tuple[str, torch.Tensor]]
    outputs: list[torch.Tensor]


def _trace(module: nn.Module, inputs: BoundInputs, seed: int) -> _Trace:
    """Run `module`, and note what each module in it gives, and what its caller made for it to read."""
    steps: list[tuple[str, torch.Tensor]] = []
    running = [""]

    def note(path: str, values: Any) -> None:
        for one in tensors_in(values):
            if one.numel():
                # torch has few operators for uint16, for example, and no maximum of sparse and nested tensors
                one = one.to_padded_tensor(0.0) if one.is_nested else one  # noqa: PLW2901
                wide = (one if one.layout is torch.strided else one.to_dense()).cdouble()
                sizes = wide.abs()
                steps.append((path, torch.stack((wide.sum().real, sizes.sum(), sizes.max()))))

    def enter(path: str, read: Any) -> None:
        note(running[-1], read)
        running.append(path)

    def leave(output: Any) -> None:
        note(running.pop(), output)

    arguments, keywords = sample(inputs, seed=0)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            with _watched(module, enter, leave):
                output = module(*arguments, **keywords)
        except Exception:  # noqa: BLE001 - torch.cond refuses hooks that note something
            steps.clear()
            torch.manual_seed(seed)
            output = module(*arguments, **keywords)
    return _Trace(steps, list(tensors_in(output)))


def _first_difference(first: _Trace, second: _Trace) -> str | None:
    """What gives something else the second time; None where the network's outputs are the same."""
    same = len(first.outputs) == len(second.outputs)
    if same and all(map(_same, first.outputs, second.outputs)):
        return None
    for (path, one), (_, other) in zip(first.steps, second.steps):
        if not _same(one, other):
            return f"'{path}'" if path else "the module's forward"
    return "the module's forward"


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.shape != other.shape:
        return False
    if one.numel() == 0 or not (one.is_floating_point() or one.is_complex()):
        return bool(torch.equal(one, other))
    left, right = (torch.view_as_real(t.cdouble()) for t in (one, other))
    scale = float(left.nan_to_num(0, 0, 0).abs().max())
    return bool(torch.allclose(left, right, rtol=0, atol=_SAME * scale, equal_nan=True))
