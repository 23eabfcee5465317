"""Folds carried out on an exported program, for what a module cannot express.

Every call gets parameters of its own here, so one layer under two norms, a functional norm and a weight
that is computed are no obstacle. The nodes keep the module path that they came from.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.export.graph_signature import InputKind, InputSpec, TensorArgument

from trtbuild.pytorch.aten import module_path, state_names, tensor_of
from trtbuild.pytorch.float64 import Float64, relative_difference, tensors_in
from trtbuild.pytorch.fold.affine import TOLERANCE, Affine, CannotFoldError, norm_affine
from trtbuild.pytorch.fold.layers import Weights, arguments, scaled_after, scaled_before
from trtbuild.pytorch.fold.plan import norm_calls, plan_folds
from trtbuild.pytorch.fold.report import NormFate
from trtbuild.pytorch.inputs import sample

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import Node

    from trtbuild.pytorch.fold.plan import Fold, Plan
    from trtbuild.pytorch.inputs import BoundInputs

__all__ = ["fold_in_graph"]


def fold_in_graph(program: ExportedProgram, inputs: BoundInputs) -> tuple[list[NormFate], float]:
    """Fold what is left in `program`, in place, and check it in float64.

    Returns:
        A fate for every norm of the graph, named by its module path, or by its node if functional;
        and the largest relative difference to the outputs before.

    Raises:
        CannotFoldError: the program does not compute the same any more; it is of no use then.
    """
    plan, weights = _plan(program)
    fates = [_fate(norm, plan) for norm in norm_calls(program)]
    if not plan.folds:
        return fates, 0.0
    expected = program_outputs64(program, inputs, seed=1)
    added = [name for layer, own in weights.items() for name in _give_own(program, layer, own)]
    for fold in plan.folds:
        fold.norm.replace_all_uses_with(fold.norm.args[0])
        program.graph.erase_node(fold.norm)
    program.graph.lint()
    program.graph_module.recompile()
    error = relative_difference(expected, program_outputs64(program, inputs, seed=1))
    if not error <= TOLERANCE:
        raise CannotFoldError(f"the output differed by {error:.1e} in float64")
    for name, dtype in added:
        rounded = program.state_dict[name].to(dtype)
        program.state_dict[name] = nn.Parameter(rounded, requires_grad=False)
    return fates, error


def _plan(program: ExportedProgram) -> tuple[Plan, dict[Node, Weights]]:
    """The folds whose numbers allow it, and the new weights of each layer call."""
    barred: dict[Node, str] = {}
    while True:
        plan = plan_folds(program, barred)
        weights, refused = _new_weights(program, plan.folds)
        if not refused:
            return plan, weights
        barred.update(refused)


def _fate(norm: Node, plan: Plan) -> NormFate:
    name = module_path(norm) or norm.name
    for fold in plan.folds:
        if fold.norm is norm:
            return NormFate(name, "graph", "folded in graph", (_layer_name(fold),))
    return NormFate(name, "graph", "left", (), plan.reasons[norm])


def _layer_name(fold: Fold) -> str:
    return module_path(fold.layer.node) or fold.layer.node.name


def _new_weights(
    program: ExportedProgram, folds: tuple[Fold, ...]
) -> tuple[dict[Node, Weights], dict[Node, str]]:
    """The weights of every layer call that takes up norms, in float64; and refusals."""
    done: dict[Node, Weights] = {}
    refused: dict[Node, str] = {}
    constants = _Constants(program)
    for fold in folds:
        layer = fold.layer
        try:
            old = done.get(layer.node) or Weights(
                constants.required(layer.weight, "the weight of its layer"),
                constants.value(layer.bias),
                layer.groups,
                layer.transposed,
            )
            scaled = scaled_after if fold.side == "after" else scaled_before
            done[layer.node] = scaled(old, _affine(fold.norm, constants))
            done[layer.node].to(_dtype(layer.node))  # refuses what would not be finite
        except CannotFoldError as refusal:
            refused[fold.norm] = str(refusal)
    return done, refused


def _dtype(layer: Node) -> torch.dtype:
    dtype: torch.dtype = arguments(layer)["weight"].meta["val"].dtype
    return dtype


def _affine(norm: Node, constants: _Constants) -> Affine:
    given = arguments(norm)
    return norm_affine(
        constants.required(given["running_mean"], "its running mean"),
        constants.required(given["running_var"], "its running variance"),
        constants.value(given["weight"]),
        constants.value(given["bias"]),
        given["eps"],
    )


class _Constants:
    """Values of nodes that depend on parameters and buffers only."""

    def __init__(self, program: ExportedProgram) -> None:
        self.program = program
        self.names = state_names(program)

    def required(self, node: Node, title: str) -> torch.Tensor:
        """The value of `node` in float64, if it was float.

        Raises:
            CannotFoldError: it depends on the network's input.
        """
        value = self.value(node)
        if value is None:
            raise CannotFoldError(f"{title} depends on the network's input")
        return value

    def value(self, node: Node | None) -> torch.Tensor | None:
        """The value of `node`, None if there is none or it depends on the network's input."""
        if node is None:
            return None
        with torch.no_grad(), Float64():
            found = self._evaluate(node)
        return found if isinstance(found, torch.Tensor) else None

    def _evaluate(self, node: Node) -> Any:
        if node.op == "placeholder" and node.name in self.names:
            tensor = tensor_of(self.program, self.names[node.name]).detach()
            return tensor.double() if tensor.is_floating_point() else tensor
        if node.op != "call_function" or str(node.target).partition(".")[0].endswith("_"):
            return None
        inputs = {source: self._evaluate(source) for source in node.all_input_nodes}
        if any(value is None for value in inputs.values()):
            return None
        replaced = torch.fx.map_arg((node.args, node.kwargs), lambda source: inputs[source])
        return node.target(*replaced[0], **replaced[1])


def _give_own(
    program: ExportedProgram, layer: Node, weights: Weights
) -> list[tuple[str, torch.dtype]]:
    """Give one layer call a weight and a bias that no other call uses.

    They are float64 until the fold has been checked.

    Returns:
        Name in the program and final dtype of each.
    """
    path, dtype = module_path(layer) or layer.name, _dtype(layer)
    given = arguments(layer)
    added = []
    for name, tensor in (("weight", weights.weight), ("bias", weights.bias)):
        assert tensor is not None
        given[name], target = _add_parameter(program, f"{path}.{name}", tensor, dtype)
        added.append((target, dtype))
    layer.args = tuple(given.values())
    layer.kwargs = {}
    return added


def _add_parameter(
    program: ExportedProgram, name: str, tensor: torch.Tensor, dtype: torch.dtype
) -> tuple[Node, str]:
    """Add a parameter to the program; one whose name is taken gets a number."""
    numbers = itertools.count(1)
    target = name
    while target in program.state_dict:
        target = f"{name}_{next(numbers)}"
    placeholders = [node for node in program.graph.nodes if node.op == "placeholder"]
    values = (node.meta.get("val") for node in placeholders)
    fake = next(value.fake_mode for value in values if hasattr(value, "fake_mode"))
    with program.graph.inserting_before(placeholders[0]):
        node: Node = program.graph.placeholder("p_" + target.replace(".", "_"))
    node.meta["val"] = fake.from_tensor(tensor.to(dtype), static_shapes=True)
    program.graph_signature.input_specs.insert(
        0, InputSpec(InputKind.PARAMETER, TensorArgument(node.name), target, None)
    )
    program.state_dict[target] = nn.Parameter(tensor, requires_grad=False)
    return node, target


def program_outputs64(
    program: ExportedProgram, inputs: BoundInputs, seed: int
) -> list[torch.Tensor]:
    """Run an exported program in float64 on a sample; its output tensors in order."""
    given, keywords = sample(inputs, seed, torch.float64)
    users = iter((*given, *keywords.values()))
    values = []
    for spec in program.graph_signature.input_specs:
        tensor = (
            next(users) if spec.kind is InputKind.USER_INPUT else tensor_of(program, spec.target)
        )
        values.append(tensor.detach().double() if tensor.is_floating_point() else tensor)
    with torch.no_grad(), Float64():
        outputs = torch.fx.Interpreter(program.graph_module).run(*values)
    mutated = len(outputs) - sum(
        s.kind.name == "USER_OUTPUT" for s in program.graph_signature.output_specs
    )
    return tensors_in(outputs[mutated:])
