"""Sizes that a module stores as plain numbers and uses to cut or shape tensors: found and updated here.

Examples are ``self.c`` of YOLOv8's C2f and ``split_size`` of GPT-2: an attribute of the module that calls
``split``, ``narrow`` or ``view``, equal to a number that the call has in the trace. After a cut it is the
same share of its layer's channels as before. The check of the cut finds wrong guesses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trtbuild.pytorch.aten import calls, module_path, name_of, state_names
from trtbuild.pytorch.fold.layers import LAYER_OPERATORS
from trtbuild.pytorch.layers import LAYERS
from trtbuild.pytorch.prune.attention_blocks import HEAD_NUMBERS
from trtbuild.pytorch.prune.widths import width_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import nn
    from torch.export import ExportedProgram
    from torch.fx import Node

    from trtbuild.pytorch.prune.attention_blocks import Attention

__all__ = ["StoredSize", "find_sizes", "update_sizes"]

_CUTS = {"split": (1,), "split_with_sizes": (1,), "narrow": (2, 3), "slice": (2, 3)}
"""Operators that cut, and the positions of the arguments that say where."""
_SHAPES = ("view", "reshape", "unflatten")


@dataclass(frozen=True)
class StoredSize:
    """A number that counts channels.

    Attributes:
        path: of the module that stores it.
        name: of the attribute.
        layer: path of the layer whose output channels it counts.
        share: the share of these channels, as numerator and denominator.
    """

    path: str
    name: str
    layer: str
    share: tuple[int, int]


def find_sizes(
    program: ExportedProgram, module: nn.Module, attention: Sequence[Attention]
) -> tuple[StoredSize, ...]:
    """Return the attributes of `module` that cut or shape channels in `program`.

    Args:
        program: traced from `module`.
        module: with plain weights.
        attention: its attention blocks, whose numbers are updated with the heads.
    """
    names = state_names(program)
    packed = {path for block in attention if block.packed for path in block.projections}
    found: dict[tuple[str, str], StoredSize] = {}
    for node in calls(program):
        layer = _layer_before(node, names) if name_of(node) in (*_CUTS, *_SHAPES) else None
        if layer is None or not isinstance(module.get_submodule(layer), LAYERS):
            continue
        width = width_of(module.get_submodule(layer))
        wanted = set(_cut_at(node)) or {width, width // 3 if layer in packed else width}
        path = module_path(node)
        for name, value in vars(module.get_submodule(path)).items():
            if name not in HEAD_NUMBERS and type(value) is int and value > 1 and value in wanted:
                found.setdefault((path, name), StoredSize(path, name, layer, (value, width)))
    return tuple(found.values())


def update_sizes(module: nn.Module, sizes: Sequence[StoredSize]) -> dict[str, dict[str, Any]]:
    """Update the sizes after layers were cut.

    Returns:
        Module path -> attribute -> new value, of the changed attributes.
    """
    changed: dict[str, dict[str, Any]] = {}
    for size in sizes:
        block = module.get_submodule(size.path)
        part, whole = size.share
        value = width_of(module.get_submodule(size.layer)) * part // whole
        if getattr(block, size.name) != value:
            setattr(block, size.name, value)
            changed.setdefault(size.path, {})[size.name] = value
    return changed


def _cut_at(node: Node) -> Iterator[Any]:
    """The numbers with which an operator cuts."""
    for position in _CUTS.get(name_of(node), ()):
        given = node.args[position] if len(node.args) > position else ()
        yield from given if isinstance(given, list | tuple) else [given]


def _layer_before(node: Node, names: dict[str, str]) -> str | None:
    """Path of the layer whose channels reach `node`, following first arguments; None without one."""
    while node.op == "call_function" and node.args:
        if name_of(node) in LAYER_OPERATORS:
            weight = names.get(getattr(node.args[1], "name", ""), "")
            return weight.rpartition(".")[0] or None
        first = node.args[0]
        node = first[0] if isinstance(first, list | tuple) and first else first
        if not hasattr(node, "op"):
            return None
    return None
