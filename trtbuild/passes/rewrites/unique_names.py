"""Names that no other tensor has, in the graph and in all its bodies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.model.names import rename_clashes
from trtbuild.passes.pass_base import Pass

if TYPE_CHECKING:
    from trtbuild.passes.editor import Editor

__all__ = ["MakeNamesUnique"]


class MakeNamesUnique(Pass):
    """Give every tensor a name of its own.

    Pattern: one name for two tensors, in sibling bodies or in a body and around it.
    Conditions: names of the interface stay.
    Effect: the later one gets a number behind its name, so that inlining and moving nodes is safe.
    Source: MNN ``RemoveInplace``; ONNX is in single assignment form, so nothing is in place.
    """

    name = "make_names_unique"

    def run(self, edit: Editor) -> None:
        """Rename what clashes."""
        for old, new in rename_clashes(edit.model, edit.names):
            edit.note(old, "tensor", f"is called '{new}' now")
