"""What is known about the tensors of a network while its nodes are followed from the inputs on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.model.constants import integers
from trtbuild.model.shapes import dims
from trtbuild.search.rows.sizes import BATCH, MANY, UNKNOWN, Entry, Rows, is_of_batch

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import onnx_ir as ir

__all__ = ["Known"]


class Known:
    """Where images lie in tensors, and the entries of vectors of lengths.

    A tensor without either is fixed: the same for any images, and for any number of them.

    Args:
        inputs: the inputs of the network, which have a row for each image.

    Attributes:
        images: tensor that depends on images -> where they lie in it.
        lengths: what nodes compute from a Shape, a vector or scalar of integers -> its entries.
    """

    def __init__(self, inputs: Iterable[ir.Value]) -> None:
        self.images: dict[ir.Value, Rows] = dict.fromkeys(inputs, Rows(0))
        self.lengths: dict[ir.Value, tuple[Entry, ...]] = {}

    def rows(self, value: ir.Value | None) -> Rows | None:
        """Return where images lie in a tensor; None if it does not depend on them."""
        return None if value is None else self.images.get(value)

    def is_fixed(self, value: ir.Value | None) -> bool:
        """Return whether an operand is left out, or the same for any images and any number of them."""
        if value is None:
            return True
        return value not in self.images and not any(map(is_of_batch, self.lengths.get(value, ())))

    def entries(self, value: ir.Value | None) -> tuple[Entry, ...] | None:
        """Return the entries of a vector or scalar of integers, with names for those that a node computes.

        Returns:
            None if the number of entries is not known, or if they depend on images.
        """
        if value is None or value in self.images:
            return None
        found = self.lengths.get(value, integers(value))
        known = dims(value)
        if found is not None or known is None or len(known) > 1:
            return found
        count = known[0] if known else 1
        if not isinstance(count, int):
            return None
        return tuple(f"{UNKNOWN}{value.name}[{place}]" for place in range(count))

    def dims(self, value: ir.Value) -> list[Entry]:
        """Return the dims of a tensor that depends on images, with names for unknown ones."""
        known: Sequence[int | str | None] = dims(value) or ()
        rows = self.images[value]
        found = [f"{value.name}.{axis}" if one is None else one for axis, one in enumerate(known)]
        found[rows.axis : rows.axis + 1] = [BATCH if rows.is_plain else MANY]
        return found
