"""Ranges of activations straight from a module, under the tensor names of its ONNX export.

Two ways, both into a `calibrators.Collector` and on a GPU if the module is there:

    observe_modules     forward hooks: the output of every leaf module, before any export
    observe_export      the exported graph, node by node in torch: functional operators as well

A hook counts inside the hook, because a later in-place ReLU overwrites the tensor. Hooks see modules
only: sums and concatenations have none, so use `observe_export` for a calibration that is complete.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import torch
from torch.export.passes import move_to_device_pass

from calibrators import Collector
from trtbuild.errors import DataError
from trtbuild.pytorch.aten import quiet
from trtbuild.pytorch.device_histogram import device_histogram

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from torch import nn
    from torch.fx import Node

    from trtbuild.pytorch.export import ExportResult

__all__ = ["observe_export", "observe_modules"]


def observe_modules(module: nn.Module, batches: Iterable[Sequence[torch.Tensor]]) -> Collector:
    """Count what every leaf module gives.

    Tensors are named as in the export: ``<path>_output_0``, and ``<path>_1_output_0`` for the second
    call of the same module. Observe the folded module (`ExportResult.module`) if its export is to be
    calibrated: folding changes what a layer gives.

    Args:
        module: in eval mode, on any device.
        batches: positional arguments of ``forward``, a tuple a batch.

    Raises:
        DataError: there is no batch.
    """
    device = next((tensor.device for tensor in module.parameters()), torch.device("cpu"))
    given = iter(batches)
    first = next(given, None)
    if first is None:
        raise DataError("there are no batches to observe.")
    names: dict[str, None] = {}
    _run_with_hooks(module, _moved(first, device), lambda name, _: names.setdefault(name))
    collector = Collector(names)
    for number, batch in enumerate(_chained(first, given)):

        def count(name: str, tensor: torch.Tensor, number: int = number) -> None:
            if name in names:
                _count(collector, name, tensor, number)

        _run_with_hooks(module, _moved(batch, device), count)
    return collector


def _count(collector: Collector, name: str, tensor: torch.Tensor, batch: int) -> None:
    """Count a tensor where it is; only counts leave a GPU."""
    if tensor.device.type == "cpu":
        collector.observe({name: tensor.float().numpy()}, batch=batch)
    else:
        collector.add(name, device_histogram(tensor), batch=batch)


def _chained(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest


def _moved(batch: Sequence[torch.Tensor], device: torch.device) -> tuple[torch.Tensor, ...]:
    return tuple(torch.as_tensor(value).to(device) for value in batch)


def _run_with_hooks(
    module: nn.Module,
    batch: Sequence[torch.Tensor],
    see: Callable[[str, torch.Tensor], Any],
) -> None:
    """Run once and show `see` every floating-point tensor that a leaf module gives, in order of calls."""
    calls: Counter[str] = Counter()
    paths = {child: path for path, child in module.named_modules() if not list(child.children())}

    def note(child: nn.Module, _arguments: Any, output: Any) -> None:
        path = paths[child]
        call = path if not calls[path] else f"{path}_{calls[path]}"
        calls[path] += 1
        tensors = output if isinstance(output, tuple | list) else (output,)
        for index, tensor in enumerate(tensors):
            if isinstance(tensor, torch.Tensor) and tensor.is_floating_point():
                see(f"{call}_output_{index}", tensor.detach())

    handles = [child.register_forward_hook(note) for child in paths]
    try:
        with torch.no_grad():
            module(*batch)
    finally:
        for handle in handles:
            handle.remove()


def observe_export(
    result: ExportResult,
    batches: Iterable[Mapping[str, torch.Tensor]],
    names: Iterable[str] | None = None,
    device: str | torch.device | None = None,
) -> Collector:
    """Count the tensors of an exported network while torch runs it.

    Args:
        result: the export.
        batches: input name -> tensor.
        names: tensors of ``result.model`` to count; None counts inputs and every floating-point
            tensor that the graph of torch has, too.
        device: where it runs; None takes the GPU if there is one.

    Raises:
        DataError: there is no batch, an input is missing, or torch's graph has no tensor of a name.
    """
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    tensors = _graph_tensors(result)
    wanted = list(tensors) if names is None else list(names)
    unknown = [name for name in wanted if name not in tensors]
    if unknown:
        raise DataError(f"torch's graph has no tensor '{unknown[0]}'; the exporter made it.")
    collector = Collector(wanted)
    with quiet():
        program = move_to_device_pass(result.program, place)
    chosen = {tensors[name]: name for name in wanted}
    num_batches = 0
    for number, batch in enumerate(batches):
        _Observer(program, chosen, collector, number).run_on(batch, place)
        num_batches += 1
    if not num_batches:
        raise DataError("there are no batches to observe.")
    return collector


def _graph_tensors(result: ExportResult) -> dict[str, str]:
    """Tensor name in the ONNX model -> graph node that gives it."""
    inputs = {str(value.name): str(value.name) for value in result.model.graph.inputs}
    floating = {
        node.name
        for node in result.program.graph.nodes
        if isinstance(node.meta.get("val"), torch.Tensor) and node.meta["val"].is_floating_point()
    }
    named = {onnx_name: node for node, onnx_name in result.tensor_names.items()}
    return {name: node for name, node in {**inputs, **named}.items() if node in floating}


class _Observer(torch.fx.Interpreter):  # type: ignore[misc]
    """Runs a program and hands chosen nodes' values to the collector at once."""

    def __init__(
        self, program: Any, chosen: Mapping[str, str], collector: Collector, batch: int
    ) -> None:
        super().__init__(program.graph_module)
        self.program, self.chosen = program, chosen
        self.collector, self.batch = collector, batch

    def run_node(self, node: Node) -> Any:
        """Run one node and count its value."""
        value = super().run_node(node)
        name = self.chosen.get(node.name)
        if name is not None:
            _count(self.collector, name, value.detach(), self.batch)
        return value

    def run_on(self, batch: Mapping[str, torch.Tensor], device: torch.device) -> None:
        """Run the whole program on one batch."""
        values = []
        for spec in self.program.graph_signature.input_specs:
            if spec.kind.name != "USER_INPUT":
                state = self.program.state_dict
                values.append(
                    state[spec.target]
                    if spec.target in state
                    else self.program.constants[spec.target]
                )
            elif spec.arg.name in batch:
                values.append(torch.as_tensor(batch[spec.arg.name]).to(device))
            else:
                raise DataError(f"a batch has no input '{spec.arg.name}'.")
        with torch.no_grad():
            self.run(*values)
