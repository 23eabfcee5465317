"""A network or an engine wrapped as a module, for the user's own evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.utils import _pytree

from trtbuild.errors import ModelError
from trtbuild.model import fixed_batch

if TYPE_CHECKING:
    from trtbuild.pytorch.inputs import BoundInputs
    from trtbuild.runtime.session import Feeds, Session

__all__ = ["SessionModule"]


class SessionModule(nn.Module):  # type: ignore[misc]
    """A module that runs a session, and returns the outputs in the original module's containers.

    If the session has a fixed batch size, larger batches are run in parts. It has no weights; its one
    parameter, empty and on the CPU, tells callers where to put the inputs.

    Args:
        session: the session to run.
        inputs: of the original module, in the order of its forward.
        like: the original module's output for a sample.
    """

    def __init__(self, session: Session, inputs: BoundInputs, like: Any) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.empty(0), requires_grad=False)
        self._session = session
        self._names = inputs.names
        self._wanted = {spec.name for spec in session.inputs}  # exporters drop unread inputs
        leaves, self._spec = _pytree.tree_flatten(like)
        self._leaves = [None if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        self._is_tensor = [isinstance(leaf, torch.Tensor) for leaf in leaves]
        self.eval()

    def forward(self, *arguments: Any, **keywords: Any) -> Any:
        """Run the session on tensors, passed by position or name as to the original module.

        Raises:
            ModelError: an input is missing, or there are too many.
        """
        named = {**dict(zip(self._names, arguments)), **keywords}
        if len(arguments) > len(self._names) or set(named) != set(self._names):
            raise ModelError(f"the network takes the inputs {', '.join(self._names)}.")
        feeds = {
            name: np.ascontiguousarray(torch.as_tensor(named[name]).detach().cpu().numpy())
            for name in self._names
            if name in self._wanted
        }
        answers = _in_parts(self._session, feeds)
        tensors = iter(torch.from_numpy(answers[spec.name]) for spec in self._session.outputs)
        leaves = [next(tensors) if is_one else leaf
                  for leaf, is_one in zip(self._leaves, self._is_tensor)]  # fmt: skip
        return _pytree.tree_unflatten(leaves, self._spec)


def _in_parts(session: Session, feeds: Feeds) -> dict[str, np.ndarray]:
    """Run a session on a batch of any size; the last part is padded with its first sample."""
    fixed = fixed_batch(session.inputs)
    split = {spec.name for spec in session.inputs if spec.batch_axis == 0}
    sizes = {feeds[name].shape[0] for name in split}
    if fixed is None or len(sizes) != 1 or sizes == {fixed}:
        return dict(session.run(feeds))
    size = sizes.pop()
    parts = [
        session.run(
            {
                name: _part(values, start, fixed) if name in split else values
                for name, values in feeds.items()
            }
        )
        for start in range(0, size, fixed)
    ]
    return {name: np.concatenate([part[name] for part in parts])[:size] for name in parts[0]}


def _part(values: np.ndarray, start: int, size: int) -> np.ndarray:
    rows = values[start : start + size]
    lacking = size - len(rows)
    return np.concatenate([rows, np.repeat(rows[:1], lacking, axis=0)]) if lacking else rows
