"""Samples from Python: a function, a loader or a reader, ``package.module:name`` or ``script.py:name``."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from trtbuild.data.batched_arrays import BatchedArrays, with_batch_axes
from trtbuild.data.feeds import as_feeds, axes_of, image_input
from trtbuild.data.items import (
    ItemReader,
    as_array,
    gives_items,
    is_array,
    items_of,
    labels_of,
)
from trtbuild.data.pixels import images_as_rows
from trtbuild.data.replay import MOST_HELD_BYTES, Replay
from trtbuild.data.samples import Sample, Source, array_key
from trtbuild.data.skipped import without_input
from trtbuild.errors import DataError
from trtbuild.plugins import READER, foreign_code, import_named, load, reader_of
from trtbuild.whereabouts import fetching

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from trtbuild.data.replay import Sized
    from trtbuild.data.skipped import Skipped
    from trtbuild.model.signature import TensorSpec
    from trtbuild.options.preprocess import Preprocess

__all__ = [
    "CallableSource",
    "ObjectSource",
    "first_item",
    "import_callable",
    "open_object",
    "repeatable",
]

_RANK_OF_IMAGES = 4

# After this many items a source may be endless; calibration rarely needs as many.
_MANY = 20_000

_END = object()

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CallableSource(Source):
    """Batches from Python code, or complete feeds, which run as they are: of any length, with states.

    An item is a dict, input name -> array, in which the key ``label`` holds the class of each row; or
    ``(inputs, label)``; or arrays in the order of the network's inputs; or one bare array. Arrays may be
    NumPy's, PyTorch's, Pillow images, lists of numbers, or anything that NumPy converts. An item may be one
    sample without a batch axis. With preprocessing, the images of a single input may have another key than
    the input's name: the preprocessing's `array`, or the only key besides ``label``.

    Attributes:
        spec: what the user gave.
        function: called for every pass that reads (`trtbuild.data.replay`); or what it would return: an
            iterable of items (a ``torch.utils.data.DataLoader``), or an object whose ``get_next``
            returns items and then None (``onnxruntime.quantization.CalibrationDataReader``).
        inputs: the network's inputs.
        preprocess: applied to every row of the image input; None uses rows as they are.
        unused: keys that belong to no input, in the passes so far.
    """

    spec: str
    function: Any
    inputs: tuple[TensorSpec, ...]
    preprocess: Preprocess | None = None
    unused: set[str] = field(default_factory=set, init=False, compare=False, repr=False)

    @property
    def description(self) -> str:
        """Where the samples come from."""
        return self.spec

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """The arrays that belong to no input."""
        return without_input(sorted(self.unused))

    def __reduce__(self) -> tuple[object, ...]:
        # another process imports the code itself: pickle cannot find a function of a script by name
        return _opened, (self.spec, self.inputs, self.preprocess)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self._replay)

    @cached_property
    def _replay(self) -> Replay:
        return Replay(self._samples)

    def _samples(self) -> Iterator[Sized]:
        """Start a pass over the items of the user's code."""
        names = tuple(spec.name for spec in self.inputs)
        key = None if self.preprocess is None else self.preprocess.array or ""
        for number, item in enumerate(self._items()):
            if number == _MANY:
                _log.warning(
                    "'%s' gave %d items so far and continues; it is read to its end. If it never ends, "
                    "as a loop for training, give the first items: itertools.islice(..., 500).",
                    *(self.spec, _MANY),
                )
            where = f"'{self.spec}', item {number}"
            taken = ItemReader(where, names, key)
            given, label = taken.parts_of(item)
            self.unused.update(taken.unused_in(item))
            # copies: samples wait in queues, and the function may overwrite its arrays meanwhile
            arrays = {name: as_array(value, where, name) for name, value in given.items()}
            arrays = self._with_samples(arrays)
            rows = BatchedArrays.of(arrays, self.inputs, where, may_be_whole=True)
            labels = None if label is None else labels_of(label, len(rows), where)
            for row in range(len(rows)):
                values = rows[row]
                name = f"{self.spec}[{number}][{row}]"
                load = partial(as_feeds, values, self.inputs, self.preprocess, name)
                digest = array_key(values.values())
                known = None if labels is None else labels[row]
                num_bytes = sum(array.nbytes for array in values.values())
                axes = axes_of(self.inputs)
                yield Sample(name, digest, load, known, axes, num_bytes=num_bytes), num_bytes

    def _with_samples(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Add the axis of samples to arrays that are one sample; return images as rows of images."""
        if self.preprocess is None:
            return with_batch_axes(arrays, self.inputs)
        spec = image_input(self.inputs, self.preprocess)
        images = arrays[spec.name]
        if len(spec.dims) != _RANK_OF_IMAGES or images.ndim == _RANK_OF_IMAGES:
            return with_batch_axes(arrays, self.inputs)
        rows = images_as_rows(images)
        if len(rows) != len(images):  # a single image: the other inputs are one sample, too
            others = [one for one in self.inputs if one is not spec]
            arrays = {
                **with_batch_axes({n: a for n, a in arrays.items() if n != spec.name}, others)
            }
        return {**arrays, spec.name: rows}

    def _items(self) -> Iterator[Any]:
        with foreign_code(DataError, f"'{self.spec}' failed: "):
            with fetching(self.spec):
                found = self.function() if callable(self.function) else self.function
            items = items_of(found, self.spec)
            while True:
                with fetching(self.spec):
                    item = next(items, _END)
                if item is _END:
                    return
                yield item


class ObjectSource(CallableSource):
    """The same for an object of this process; another process gets a copy, if the object can be pickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.spec, self.function, self.inputs, self.preprocess)


def open_object(
    given: Any, inputs: Sequence[TensorSpec], preprocess: Preprocess | None
) -> ObjectSource:
    """Open an object that gives batches or single samples; see `CallableSource`.

    An object that can be read only once (a running generator, a reader without ``rewind``) is read now and
    kept in memory, up to `MOST_HELD_BYTES`.

    Raises:
        DataError: it gives nothing, or can be read only once and is large, or has been read already.
    """
    name = f"{type(given).__qualname__} in memory"
    if not callable(given) and not gives_items(given):
        raise DataError(
            f"the data are of the type {type(given).__qualname__}, which is neither a path nor a function "
            "nor iterable."
        )
    given = repeatable(given, tuple(spec.name for spec in inputs))
    return ObjectSource(name, given, tuple(inputs), preprocess)


def repeatable(given: Any, names: tuple[str, ...]) -> Any:
    """Return an object that gives the items of `given` any number of times; see `open_object`.

    Args:
        given: an object that gives batches or single samples.
        names: names of the inputs, in order.

    Raises:
        DataError: it can be read only once and is large, or has been read already.
    """
    if isinstance(given, tuple) and _is_one_item(given, len(names)):
        return [given]
    return _held(given, names) if _is_read_once(given) else given


def first_item(given: Any, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Return input name -> array for the first item of an object; see `CallableSource`.

    Args:
        given: an object that gives its items any number of times.
        names: names of the inputs, in order.

    Raises:
        DataError: it gives nothing, or the item does not fit the names.
    """
    name = f"{type(given).__qualname__} in memory"
    item = next(iter(items_of(given() if callable(given) else given, name)), None)
    if item is None:
        raise DataError(f"the data, a {name}, yields nothing.")
    arrays, _ = ItemReader(f"'{name}', item 0", tuple(names)).parts_of(item)
    return {key: as_array(value, name, key) for key, value in arrays.items()}


def _is_one_item(given: tuple[Any, ...], num_inputs: int) -> bool:
    """Whether a tuple is all samples and their classes, as ``(x, y)``; else its entries are batches."""
    if len(given) != num_inputs + 1 or not all(map(is_array, given)):
        return False
    first, last = given[0].shape, given[-1].shape
    return len(first) > 1 and len(last) == 1 and first[0] == last[0]


def _is_read_once(given: Any) -> bool:
    if hasattr(given, "get_next"):
        return not hasattr(given, "rewind")
    return isinstance(given, Iterator)


def _held(given: Any, names: tuple[str, ...]) -> list[Any]:
    """All items, copied into arrays."""
    name = f"{type(given).__qualname__} in memory"
    held: list[Any] = []
    num_bytes = 0
    for number, item in enumerate(items_of(given, name)):
        where = f"'{name}', item {number}"
        taken = ItemReader(where, names)
        parts, label = taken.parts_of(item)
        arrays = {key: as_array(value, where, key) for key, value in parts.items()}
        num_bytes += sum(array.nbytes for array in arrays.values())
        if num_bytes > MOST_HELD_BYTES:
            raise DataError(
                f"the data, a {name}, can be read once, several passes are needed, and it gives more than "
                f"{MOST_HELD_BYTES // 2**20} MiB to hold in memory; give the function that makes it."
            )
        # keep the keys of unused values, which are reported later, without the values
        kept = {**arrays, **dict.fromkeys(taken.unused_in(item))}
        held.append(kept if label is None else (kept, label))
    if not held:
        raise DataError(
            f"the data, a {name}, yields nothing: it can be read only once, and it was; give a list, or "
            "the function that makes it."
        )
    return held


def _opened(
    spec: str, inputs: tuple[TensorSpec, ...], preprocess: Preprocess | None
) -> CallableSource:
    return CallableSource(spec, import_callable(spec), inputs, preprocess)


def import_callable(spec: str) -> Any:
    """Import ``package.module:name`` or ``folder/script.py:name``; the current folder is importable.

    ``reader:place`` gives the function of an installed reader, bound to the place.

    Raises:
        DataError: it does not have that form, cannot be imported, or gives no data.
    """
    reader = reader_of(spec)
    if reader is not None:
        name, place = reader
        return partial(load(READER, name, DataError), place)
    found = import_named(spec, DataError)
    if not callable(found) and not gives_items(found):
        raise DataError(f"'{spec}' is not a function, nor an object that gives batches.")
    return found
