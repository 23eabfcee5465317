"""Samples from a Python callable, ``package.module:function``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbuild.data.feeds import as_feeds
from trtbuild.data.samples import Sample, Source, array_key
from trtbuild.errors import DataError

if TYPE_CHECKING:
    from trtbuild.model.signature import TensorSpec
    from trtbuild.options.preprocess import Preprocess

__all__ = ["CallableSource", "import_callable"]

# The optional label of each row travels in the dict under this name.
LABEL_KEY = "label"


@dataclass(frozen=True)
class CallableSource(Source):
    """Batches from a function that yields dicts: input name -> array with a batch axis.

    The function is called anew for every pass. A key ``label`` holds the class of each row.
    """

    spec: str
    function: Callable[[], Iterable[Mapping[str, Any]]]
    inputs: tuple[TensorSpec, ...]
    preprocess: Preprocess | None = None

    @property
    def description(self) -> str:
        """Where the samples come from."""
        return self.spec

    def __iter__(self) -> Iterator[Sample]:
        names = [spec.name for spec in self.inputs]
        for number, item in enumerate(self._items()):
            if not isinstance(item, Mapping) or not set(names) <= set(item):
                found = sorted(item) if isinstance(item, Mapping) else type(item).__name__
                raise DataError(
                    f"'{self.spec}' yielded {found} as item {number}; a dict with arrays for "
                    f"{names} is needed."
                )
            # copies: samples wait for each other, and the function may write over its arrays meanwhile
            arrays = {name: np.array(item[name]) for name in names}
            labels = None if LABEL_KEY not in item else np.atleast_1d(item[LABEL_KEY])
            yield from self._rows(number, arrays, labels)

    def _items(self) -> Iterator[Mapping[str, Any]]:
        try:
            yield from self.function()
        except (DataError, GeneratorExit):
            raise
        except Exception as error:
            raise DataError(f"'{self.spec}' failed: {type(error).__name__}: {error}") from error

    def _rows(
        self, number: int, arrays: Mapping[str, np.ndarray], labels: np.ndarray | None
    ) -> Iterator[Sample]:
        lengths = {array.shape[0] if array.ndim else 0 for array in arrays.values()}
        if len(lengths) != 1 or lengths == {0}:
            shapes = {name: array.shape for name, array in arrays.items()}
            raise DataError(
                f"'{self.spec}' yielded arrays that do not share a batch axis as item {number}: {shapes}."
            )
        for row in range(lengths.pop()):
            rows = {name: array[row] for name, array in arrays.items()}
            label = None if labels is None else int(labels[row])
            name = f"{self.spec}[{number}][{row}]"
            load = partial(as_feeds, rows, self.inputs, self.preprocess, name)
            yield Sample(name, array_key(rows.values()), load, label)


def import_callable(spec: str) -> Callable[..., Any]:
    """Import ``package.module:name``; the current folder is importable.

    Raises:
        DataError: it is not of that form, cannot be imported, or is not callable.
    """
    module_name, _, attribute = spec.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except ImportError as error:
        raise DataError(f"cannot import '{module_name}' for '{spec}': {error}.") from error
    except AttributeError as error:
        raise DataError(f"'{module_name}' has no '{attribute}'.") from error
    except Exception as error:
        raise DataError(
            f"importing '{module_name}' failed: {type(error).__name__}: {error}"
        ) from error
    if not callable(found):
        raise DataError(f"'{spec}' is not a function.")
    return found  # type: ignore[no-any-return]
