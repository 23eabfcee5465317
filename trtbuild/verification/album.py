"""Keeps the inputs and answers of the samples that an engine does worst on, for the report.

Only the worst so far are kept, with pictures no larger than
`trtbuild.verification.views.LONGEST_SIDE`, so memory does not grow with the data.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from trtbuild.verification.tasks.base import Seen
from trtbuild.verification.views import View, as_pixels

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from trtbuild.options.preprocess import Preprocess
    from trtbuild.verification.batch import LabelledBatch
    from trtbuild.verification.tasks.base import Outputs, SampleScore, Task, TaskScore
    from trtbuild.verification.views import Answer, Pixels

__all__ = ["Album"]


@dataclass
class Album:
    """The views of a task's worst samples.

    Attributes:
        preprocess: how pictures became inputs; None where inputs were given as they are.
        names: class index -> its name.
    """

    preprocess: Preprocess | None = None
    names: Mapping[int, str] = field(default_factory=dict)
    _views: dict[str, View] = field(default_factory=dict)

    def add(self, task: Task, batch: LabelledBatch, reference: Outputs, candidate: Outputs) -> None:
        """Look at one batch that `task` has taken."""
        wanted = {one.name for one in task.worst}
        self._views = {name: view for name, view in self._views.items() if name in wanted}
        for row, name in enumerate(batch.names):
            if name in wanted and name not in self._views:
                answers = task.answers(Seen(batch, reference, candidate, row, self.names))
                picture = _picture(batch, row, self.preprocess)
                if answers is not None and (picture is not None or any(map(_says, answers))):
                    self._views[name] = View(picture, *answers)

    def shown(self, score: TaskScore) -> TaskScore:
        """Return a score with the views of its worst samples added; views that it already has stay."""
        return replace(score, worst=self.viewed(score.worst))

    def viewed(self, worst: Iterable[SampleScore]) -> tuple[SampleScore, ...]:
        """Return samples with their views."""
        return tuple(replace(one, view=self._of(one.name, one.view)) for one in worst)

    def _of(self, name: str, own: View | None) -> View | None:
        found = self._views.get(name)
        if own is None or found is None:
            return own or found
        return replace(own, picture=found.picture)


def _says(answer: Answer) -> bool:
    return bool(answer.text or answer.boxes or answer.picture is not None)


def _picture(batch: LabelledBatch, row: int, preprocess: Preprocess | None) -> Pixels | None:
    """The input that `preprocess` names, as a picture; without a name the first input that looks like one."""
    for name, array in batch.feeds.items():
        named = preprocess is not None and preprocess.input is not None
        if array.ndim != 4 or len(array) != len(batch.names):
            continue
        if preprocess is not None and named and preprocess.input != name:
            continue
        found = as_pixels(array[row], preprocess)
        if found is not None:
            return found
    return None
