"""The user's function or class that returns numbers: calls it and checks its answers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbuild.errors import OptionError
from trtbuild.plugins import in_one_line
from trtbuild.wording import counted

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["UserFunction"]


class UserFunction:
    """A metric or judge of the user's.

    A function returns one number per sample, or one for the batch. A class is for figures that are not an
    average over samples: an object of it is called the same way (return values are ignored), and asked for
    ``result()`` at the end.

    Args:
        kind: ``metric`` or ``judge``, for errors.
        name: its name.
        given: the function or class.
    """

    def __init__(self, kind: str, name: str, given: Callable[..., Any]) -> None:
        self.name = name
        self._kind = kind
        self.is_whole = isinstance(given, type)
        self._function: Any = given
        if self.is_whole:
            self._function = self._ask(given)

    def __call__(self, *arguments: Any) -> Any:
        """Call it.

        Raises:
            OptionError: it raised an error.
        """
        return self._ask(self._function, *arguments)

    def final(self) -> float:
        """Return the number that the class's ``result()`` gives.

        Raises:
            OptionError: it raised an error, or gave no finite number.
        """
        return float(self.scores(self._ask(self._function.result), 1)[0])

    def _ask(self, function: Any, *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except (Exception, SystemExit) as error:
            raise OptionError(
                f"the {self._kind} '{self.name}' raised {in_one_line(error)}{_called_with(arguments)}"
            ) from error

    def scores(self, answer: Any, num_samples: int) -> np.ndarray:
        """Return an answer as float64 numbers: one per sample, or a single one.

        Raises:
            OptionError: the answer is something else, or not finite.
        """
        try:
            scores = np.asarray(answer, np.float64)
        except (TypeError, ValueError):
            scores = np.full((), math.nan)
        if scores.size not in (1, num_samples) or not np.isfinite(scores).all():
            raise OptionError(
                f"the {self._kind} '{self.name}' returned {_short(answer)}; it should return one finite "
                f"number, or one for each sample ({num_samples})."
            )
        return scores.reshape(-1)


def _called_with(arguments: tuple[Any, ...]) -> str:
    """The arguments of a failed call, with the outputs' names: wrong functions ask for others."""
    if not arguments:
        return ""
    given = (
        f"a dict of {sorted(one)}" if isinstance(one, Mapping) else type(one).__name__
        for one in arguments
    )
    return f"; it was called with {counted(len(arguments), 'argument')}: {', '.join(given)}."


def _short(answer: Any) -> str:
    text = repr(answer)
    return text if len(text) <= 60 else text[:57] + "..."
