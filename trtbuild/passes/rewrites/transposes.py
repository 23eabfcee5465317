"""Removes Transposes that do nothing or cancel, and composes others.

``Transpose(perm)`` gives the dims ``y[j] = x[perm[j]]``, so ``q`` behind ``p`` is the one Transpose
``r[j] = p[q[j]]``. ONNX has no operator for MNN's format converters (NCHW, NHWC, NC4HW4); exporters
write Transposes for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.model.attributes import permutation
from trtbuild.model.shapes import rank
from trtbuild.model.traversal import maker
from trtbuild.passes.pass_base import Pass

if TYPE_CHECKING:
    import onnx_ir as ir

    from trtbuild.passes.editor import Editor

__all__ = [
    "CancelInverseTransposes",
    "MergeTransposes",
    "RemoveIdentityTranspose",
    "RemoveTransposeBeforeOutput",
]


def _perm(node: ir.Node) -> tuple[int, ...] | None:
    return permutation(node, rank(node.inputs[0]))


def _is_identity(perm: tuple[int, ...] | None) -> bool:
    return perm is not None and perm == tuple(range(len(perm)))


def _composed(node: ir.Node) -> tuple[ir.Value, tuple[int, ...]] | None:
    """Return the tensor before two Transposes, and their composed permutation."""
    first = maker(node.inputs[0], "Transpose")
    if first is None or first.inputs[0] is None:
        return None
    inner, outer = _perm(first), _perm(node)
    if inner is None or outer is None:
        return None
    return first.inputs[0], tuple(inner[axis] for axis in outer)


def _drop_identity(node: ir.Node, edit: Editor) -> str | None:
    source = node.inputs[0]
    if source is None or not _is_identity(_perm(node)):
        return None
    edit.bypass(node, node.outputs[0], source)
    return "was the identity permutation"


def _cancel(node: ir.Node, edit: Editor) -> str | None:
    found = _composed(node)
    if found is None or not _is_identity(found[1]):
        return None
    edit.bypass(node, node.outputs[0], found[0])
    return "undid the Transpose in front of it"


class RemoveIdentityTranspose(Pass):
    """Remove a Transpose that does not permute dims.

    Pattern: a Transpose with the identity permutation.
    Conditions: the permutation is given, or the rank known (without a permutation the dims are reversed); a
        swap of dims of equal size is not the identity.
    Effect: readers read the input.
    Source: MNN ``TensorConverterSameMerge``.
    """

    name = "remove_identity_transpose"
    anchors = frozenset({"Transpose"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Bypass `node` if its permutation is the identity."""
        return _drop_identity(node, edit)


class RemoveTransposeBeforeOutput(Pass):
    """Remove Transposes before an output that together do nothing.

    Pattern: a Transpose that makes a graph output and is the identity, or undoes the one before it.
    Conditions: the tensor in front can take the name of the output. A Transpose that changes the
        layout of an output stays (TensorRT: I/O formats).
    Effect: the node in front makes the output, under its name.
    Source: MNN ``RemoveOutputTensorConvert``.
    """

    name = "remove_transpose_before_output"
    anchors = frozenset({"Transpose"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Bypass `node` if it makes an output and does nothing."""
        if not node.outputs[0].is_graph_output():
            return None
        return _drop_identity(node, edit) or _cancel(node, edit)


class CancelInverseTransposes(Pass):
    """Remove a Transpose that undoes the one before it.

    Pattern: ``Transpose -> Transpose`` whose composition is the identity.
    Conditions: both permutations are known. The first one stays if it has other readers.
    Effect: readers read the tensor before both.
    Source: MNN ``RemoveInverseTensorConverter``.
    """

    name = "cancel_inverse_transposes"
    anchors = frozenset({"Transpose"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Bypass `node` and its inverse."""
        return _cancel(node, edit)


class MergeTransposes(Pass):
    """Compose a chain of Transposes into one.

    Pattern: ``Transpose -> Transpose``.
    Conditions: both permutations are known; the first one stays if it has other readers.
    Effect: one Transpose with ``perm[j] = first[second[j]]``.
    Source: MNN ``RemoveDuplicatedTensorConvert``.
    """

    name = "merge_transposes"
    anchors = frozenset({"Transpose"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Let `node` permute the tensor at the start of the chain."""
        found = _composed(node)
        if found is None:
            return None
        source, perm = found
        first = maker(node.inputs[0], "Transpose")
        edit.rewire(node, 0, source)
        edit.set_attribute(node, "perm", perm)
        return f"took in '{first.name}'" if first is not None else None
