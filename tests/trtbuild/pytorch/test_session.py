"""A module as a session: the protocol of everything that runs a network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs torch")

import torch

from trtbuild.errors import ModelError
from trtbuild.model.signature import TensorSpec
from trtbuild.pytorch.load import ModuleSession

if TYPE_CHECKING:
    from trtbuild.runtime.session import Session

X = TensorSpec("x", np.dtype(np.float32), (None, 3))
Y = TensorSpec("y", np.dtype(np.float32), (None, 3))
FEEDS = {"x": np.ones((2, 3), np.float32)}


class Typed(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.to(torch.bfloat16)


def test_it_runs_as_any_session_does() -> None:
    session: Session = ModuleSession(torch.nn.ReLU(), [X], [Y])
    assert (list(session.inputs), list(session.outputs)) == ([X], [Y])
    assert np.array_equal(session.run(FEEDS)["y"], FEEDS["x"])
    session.close()
    session.close()
    with pytest.raises(ModelError, match="closed"):
        session.run(FEEDS)


def test_a_missing_input_is_named() -> None:
    with pytest.raises(ModelError, match="the input 'x' of the module is missing"):
        ModuleSession(torch.nn.ReLU(), [X], [Y]).run({"images": FEEDS["x"]})


def test_a_type_that_numpy_lacks_is_an_error_of_the_module() -> None:
    with pytest.raises(
        ModelError, match=r"does not run on inputs of shapes \[\(2, 3\)\].*BFloat16"
    ):
        ModuleSession(Typed(), [X], [Y]).run(FEEDS)
