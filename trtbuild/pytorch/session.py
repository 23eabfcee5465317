"""A PyTorch module as a session: the float reference itself, without an export in between."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from trtbuild.errors import ModelError
from trtbuild.pytorch.float64 import tensors_in
from trtbuild.pytorch.load import load_module

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from trtbuild.model.signature import TensorSpec
    from trtbuild.pytorch.spec import ModuleSource
    from trtbuild.runtime.session import Feeds, Session

__all__ = ["ModuleSession", "open_module"]


class ModuleSession:
    """A module in eval mode behind the names of an engine; satisfies `trtbuild.runtime.session.Session`.

    Args:
        module: the module.
        inputs: the engine's inputs, in the order of the module's positional arguments.
        outputs: the engine's outputs, in the order of the tensors that the module answers.
    """

    def __init__(
        self, module: nn.Module, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
    ) -> None:
        self._module: nn.Module | None = module
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)

    def run(self, feeds: Feeds) -> dict[str, np.ndarray]:
        """Run the module once, without gradients.

        Raises:
            ModelError: an input is missing, the module raises, or it answers other tensors than the
                engine: another number of them, or of a type that NumPy lacks.
        """
        if self._module is None:
            raise ModelError("this session has been closed; open the module again.")
        missing = [spec.name for spec in self.inputs if spec.name not in feeds]
        if missing:
            raise ModelError(f"the input '{missing[0]}' of the module is missing.")
        arguments = [
            torch.from_numpy(np.ascontiguousarray(feeds[spec.name])) for spec in self.inputs
        ]
        try:
            with torch.inference_mode():
                answers = [answer.numpy() for answer in tensors_in(self._module(*arguments))]
        except Exception as error:
            shapes = [tuple(argument.shape) for argument in arguments]
            raise ModelError(
                f"the module does not run on inputs of shapes {shapes}: {type(error).__name__}: {error}"
            ) from error
        if len(answers) != len(self.outputs):
            raise ModelError(
                f"the module answers {len(answers)} tensors, and the engine has {len(self.outputs)} outputs."
            )
        return {spec.name: answer for spec, answer in zip(self.outputs, answers)}

    def close(self) -> None:
        """Let the module go; safe to call twice."""
        self._module = None


def open_module(source: ModuleSource, engine: Session) -> Session:
    """Return a session of a module, as the float reference of `engine`.

    Raises:
        ModelError: it cannot be loaded; see `trtbuild.pytorch.load.load_module`.
    """
    return ModuleSession(load_module(source).module, engine.inputs, engine.outputs)
