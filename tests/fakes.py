"""A session that calls a function, and batches without a reader."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trtbuild.model.signature import TensorSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from trtbuild.runtime.session import Feeds


@dataclass(frozen=True)
class FakeBatch:
    feeds: Mapping[str, np.ndarray]
    labels: np.ndarray | None
    names: Sequence[str]


class FunctionSession:
    """Runs `function` on one input; it returns the array of the only output, or a dict of several."""

    def __init__(
        self,
        function: Callable[[np.ndarray], np.ndarray | dict[str, np.ndarray]],
        outputs: Sequence[str] = ("y",),
        dims: tuple[int | str | None, ...] = (),
        input_name: str = "x",
    ) -> None:
        self._function = function
        self._input = input_name
        self.inputs = [TensorSpec(input_name, np.dtype(np.float32), dims)]
        self.outputs = [TensorSpec(name, np.dtype(np.float32), ()) for name in outputs]
        self.num_runs = 0
        self.closed = False

    def run(self, feeds: Feeds) -> dict[str, np.ndarray]:
        self.num_runs += 1
        result = self._function(feeds[self._input])
        return result if isinstance(result, dict) else {self.outputs[0].name: result}

    def close(self) -> None:
        self.closed = True


def batches_of(
    images: np.ndarray, labels: np.ndarray | None = None, batch_size: int = 4, name: str = "x"
) -> list[FakeBatch]:
    """Cut `images` into batches, named by index."""
    return [
        FakeBatch(
            {name: images[start : start + batch_size]},
            None if labels is None else labels[start : start + batch_size],
            [f"image {i}" for i in range(start, min(start + batch_size, len(images)))],
        )
        for start in range(0, len(images), batch_size)
    ]
