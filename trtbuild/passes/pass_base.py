"""What a pass is: a small named object that rewrites one pattern, or says why it did not.

A pass of your own is a subclass of `Pass` with a name, the operators its pattern starts from, a
docstring, and `rewrite`. Its docstring has a first line and four fields, which
``trtbuild optimize --list`` and the documentation print::

    Pattern: what it looks for.
    Conditions: what must hold.
    Effect: what stands there afterwards.
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
    """The docstring of a pass, taken apart."""

    summary: str
    pattern: str
    conditions: str
    effect: str
    source: str


class Pass:
    """One rewrite with a name.

    Subclasses set the attributes below and write `rewrite`; a pass that has to see the whole graph
    at once overrides `run` instead.

    Attributes:
        name: what the user calls it, ``verb_object``. ``name.part`` is a part of the entry
            ``name``, and is meant too when the user says ``name``.
        opt_in: runs only when asked for, once, after the default passes have come to rest.
        exact: changes results by rounding only; what is not exact is always `opt_in`.
        anchors: operators of the ONNX domain that a match starts from; empty: every node.
        needs: others, without any of which nothing looks like the pattern; empty: it needs none.
    """

    name: ClassVar[str]
    opt_in: ClassVar[bool] = False
    exact: ClassVar[bool] = True
    anchors: ClassVar[frozenset[str]] = frozenset()
    needs: ClassVar[frozenset[str]] = frozenset()

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Rewrite the match that starts at `node`.

        All conditions are checked before the first edit.

        Returns:
            What was done, in a few words; None when `node` does not look like the pattern.

        Raises:
            Declined: `node` looks like the pattern, and must stay; says why.
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
        """Take the docstring of this pass apart."""
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
