"""One operator in the backward pass: what a rule gets, and how it says that it does not apply."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from trtbuild.gradients.writer import NoRuleError
from trtbuild.model.attributes import attribute, input_at
from trtbuild.model.shapes import rank

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import onnx_ir as ir

    from trtbuild.gradients.writer import Writer

__all__ = ["Gradients", "Rule", "Step"]


@dataclass(frozen=True)
class Step:
    """One node of the network in the backward pass.

    Attributes:
        node: the node.
        gradients: d<v,out>/dy for each of its outputs y; None where there is none.
        wanted: the indices of the inputs whose gradients are needed.
        write: writes the nodes of the backward graph.
    """

    node: ir.Node
    gradients: tuple[ir.Value | None, ...]
    wanted: frozenset[int]
    write: Writer

    @property
    def g(self) -> ir.Value:
        """The gradient of the first output.

        Raises:
            NoRuleError: only other outputs have a gradient.
        """
        found = self.gradients[0]
        if found is None:
            raise NoRuleError("outputs other than the first")
        return found

    @property
    def y(self) -> ir.Value:
        """The first output."""
        return self.node.outputs[0]

    def x(self, index: int = 0) -> ir.Value:
        """Return an operand that is never omitted."""
        value = self.node.inputs[index]
        assert value is not None
        return value

    def given(self, index: int) -> ir.Value | None:
        """Return an operand that may be omitted, or None."""
        return input_at(self.node, index)

    def attribute(self, name: str, default: Any = None) -> Any:
        """Return an attribute as a Python value."""
        return attribute(self.node, name, default)

    def rank(self, value: ir.Value) -> int:
        """Return the number of dims of `value`.

        Raises:
            NoRuleError: it is unknown.
        """
        known = rank(value)
        if known is None:
            raise NoRuleError(f"the number of dims of '{value.name}' is not known")
        return known


Gradients: TypeAlias = "Mapping[int, ir.Value]"
"""Index of an input -> its gradient."""

Rule: TypeAlias = "Callable[[Step], Gradients]"
