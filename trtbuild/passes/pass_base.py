"""The base class of passes: a pass has a name and rewrites one pattern, or says why it did not.

A pass of your own is a subclass of `Pass` with a name, the operators at which its pattern starts, a
docstring, and `rewrite`. The docstring has a first line and four fields, which
``trtbuild optimize --list`` and the documentation print::

        Pattern: what it looks for.
        Conditions: what must hold.
        Effect: what replaces the pattern.
        Source: where the rule comes from.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from trtbuild.passes.declined import Declined

if TYPE_CHECKING:
    import onnx_ir as ir

    from trtbuild.passes.editor import Editor

__all__ = ["Pass", "PassDescription"]


@dataclass(frozen=True)
class PassDescription:
    """The parts of a pass' docstring."""

    summary: str
    pattern: str
    conditions: str
    effect: str
    source: str


class Pass:
    """One rewrite with a name.

    Subclasses set the attributes below and implement `rewrite`; a pass that needs the whole graph at once
    overrides `run` instead.

    Attributes:
        name: its name for users, ``verb_object``. ``name.part`` is a part of the entry ``name``; a user who
            says ``name`` means its parts, too.
        opt_in: runs only on request, once, after the default passes have reached their fixpoint.
        exact: changes results by rounding only; a pass that is not exact is always `opt_in`.
        anchors: operators of the ONNX domain at which a match starts; empty: every node.
        needs: operators of which the graph must have at least one for a match; empty: none needed.
    """

    name: ClassVar[str]
    opt_in: ClassVar[bool] = False
    exact: ClassVar[bool] = True
    anchors: ClassVar[frozenset[str]] = frozenset()
    needs: ClassVar[frozenset[str]] = frozenset()

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Rewrite the match that starts at `node`.

        Check all conditions before the first edit.

        Returns:
            What was done, in a few words; None if `node` does not look like the pattern.

        Raises:
            Declined: `node` looks like the pattern but must stay; the message says why.
        """
        raise NotImplementedError

    def run(self, edit: Editor) -> None:
        """Offer every anchor node of the model, bodies included, to `rewrite`."""
        for node in edit.nodes(self.anchors):
            try:
                what = self.rewrite(node, edit)
            except Declined as verdict:
                edit.decline(node, str(verdict))
            else:
                if what is not None:
                    edit.report(node, what)

    @classmethod
    def describe(cls) -> PassDescription:
        """Split the docstring of this pass into its parts."""
        paragraphs = (inspect.getdoc(cls) or "").split("\n\n")
        fields = dict.fromkeys(("pattern", "conditions", "effect", "source"), "")
        for line in "\n".join(paragraphs[1:]).splitlines():
            head, colon, rest = line.partition(":")
            if colon and head.lower() in fields:
                current = head.lower()
                fields[current] = rest.strip()
            elif line.strip() and any(fields.values()):
                fields[current] += " " + line.strip()
        return PassDescription(summary=" ".join(paragraphs[0].split()), **fields)
