"""Two sessions that are compared: whether they and a batch fit, and what makes them fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trtbuild.errors import DataError, ModelError
from trtbuild.model.signature import in_own_floats
from trtbuild.runtime.session import SessionAround
from trtbuild.wording import dims_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trtbuild.model.signature import TensorSpec
    from trtbuild.runtime.session import Feeds, Session

__all__ = ["check_feeds", "check_same_interface", "in_own_types", "samples_first"]


def check_same_interface(
    reference: Session,
    candidate: Session,
    name: str,
    of: str = "the float network",
    *,
    shared_only: bool = False,
) -> tuple[str, ...]:
    """Check that both have the same inputs and outputs, by name and static dims.

    Args:
        reference: the float network.
        candidate: the network under test.
        name: the candidate's name in the error.
        of: the reference's name in the error.
        shared_only: compare only the outputs that both have, if there is at least one.

    Returns:
        The names of the outputs to compare, in the reference's order.

    Raises:
        ModelError: a name is missing or extra, or dims contradict each other.
    """
    _check_side("input", reference.inputs, candidate.inputs, name, of)
    ours, theirs = reference.outputs, candidate.outputs
    shared = {spec.name for spec in ours} & {spec.name for spec in theirs}
    if shared_only and shared:
        ours = [spec for spec in ours if spec.name in shared]
        theirs = [spec for spec in theirs if spec.name in shared]
    _check_side("output", ours, theirs, name, of)
    return tuple(spec.name for spec in ours)


def _check_side(
    side: str,
    reference: Sequence[TensorSpec],
    candidate: Sequence[TensorSpec],
    name: str,
    of: str,
) -> None:
    ours, theirs = {s.name: s for s in reference}, {s.name: s for s in candidate}
    if set(ours) != set(theirs):
        raise ModelError(
            f"'{name}' has the {side}s {_listed(theirs)}, {of} {_listed(ours)};"
            f" they cannot be compared. Were both made from the same network?"
        )
    for tensor, spec in ours.items():
        if not _compatible(spec.dims, theirs[tensor].dims):
            raise ModelError(
                f"{side} '{tensor}' of '{name}' has the shape {dims_text(theirs[tensor].dims)}, that of"
                f" {of} is {dims_text(spec.dims)}; they cannot be compared."
            )


def _listed(specs: Mapping[str, TensorSpec]) -> str:
    return ", ".join(f"'{name}'" for name in sorted(specs)) or "(none)"


def _compatible(a: Sequence[int | str | None], b: Sequence[int | str | None]) -> bool:
    if not a or not b:  # a scalar, or a shape that the file does not give
        return True
    return len(a) == len(b) and all(
        x == y or not isinstance(x, int) or not isinstance(y, int) for x, y in zip(a, b)
    )


def check_feeds(session: Session, feeds: Mapping[str, np.ndarray], name: str) -> None:
    """Check that the arrays of a batch fit the session's inputs.

    Raises:
        DataError: an input is missing or unknown, or its rank, a static dim or its dtype differs.
    """
    specs = {spec.name: spec for spec in session.inputs}
    if set(feeds) != set(specs):
        given = ", ".join(f"'{key}'" for key in sorted(feeds)) or "(none)"
        raise DataError(f"the data has the inputs {given}, '{name}' wants {_listed(specs)}.")
    for key, array in feeds.items():
        spec = specs[key]
        if spec.dims and not (array.ndim == len(spec.dims) and _compatible(array.shape, spec.dims)):
            raise DataError(
                f"the data for input '{key}' has the shape {dims_text(array.shape)},"
                f" '{name}' wants {dims_text(spec.dims)}. Check preprocessing and batch size."
            )
        if array.dtype != spec.dtype:
            raise DataError(
                f"the data for input '{key}' is {array.dtype}, '{name}' wants {spec.dtype}."
            )


def in_own_types(session: Session, reference: Session) -> Session:
    """Return a session that takes what `reference` takes: floats are cast where it has them in another type.

    A network in float64 is read as one in float32, and an engine may take float16; both are compared on the
    same samples.
    """
    own = {spec.name: spec.dtype for spec in session.inputs}
    differs = any(
        spec.dtype != own[spec.name] and spec.dtype.kind == own[spec.name].kind == "f"
        for spec in reference.inputs
    )
    return _Cast(session) if differs else session


class _Cast(SessionAround):
    """A session whose inputs are cast."""

    def run(self, feeds: Feeds) -> dict[str, np.ndarray]:
        """Run the session on `feeds` in its own types."""
        return super().run(in_own_floats(feeds, self.inputs))


def samples_first(
    outputs: Mapping[str, np.ndarray], specs: Sequence[TensorSpec]
) -> dict[str, np.ndarray]:
    """Return outputs with their batch axis, which `specs` give, moved to the front."""
    axes = {spec.name: spec.batch_axis or 0 for spec in specs}
    return {
        name: np.moveaxis(array, axes.get(name, 0), 0) if array.ndim else array
        for name, array in outputs.items()
    }
