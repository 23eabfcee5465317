"""The items of Python code: which arrays and which label each of them has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from trtbuild.data.pixels import image_pixels
from trtbuild.errors import DataError
from trtbuild.plugins import foreign_code
from trtbuild.wording import counted

__all__ = ["ItemReader", "as_array", "gives_items", "is_array", "items_of", "labels_of"]

# Key of the optional labels in a dict.
_LABEL_KEY = "label"


def gives_items(found: Any) -> bool:
    """Return whether an object that is not a function gives items."""
    if isinstance(found, Iterable) or hasattr(found, "get_next"):
        return True
    return hasattr(found, "__getitem__") and hasattr(found, "__len__")


def items_of(found: Any, spec: str) -> Iterator[Any]:
    """Yield all items of a function's result, or of a loader.

    Raises:
        DataError: it gives no items.
    """
    if isinstance(found, Mapping) or is_array(found):
        yield found
    elif hasattr(found, "get_next"):
        if hasattr(found, "rewind"):
            found.rewind()
        while (item := found.get_next()) is not None:
            yield item
    elif isinstance(found, Iterable) and not isinstance(found, str | bytes):
        yield from found
    elif hasattr(found, "__getitem__") and hasattr(found, "__len__"):
        yield from (found[number] for number in range(len(found)))
    else:
        raise DataError(
            f"'{spec}' returned something {_kind(found)}; it must yield or return batches: dicts of arrays, "
            "(inputs, label), arrays, or an object with get_next."
        )


@dataclass(frozen=True)
class ItemReader:
    """Splits an item into inputs and label.

    Attributes:
        where: name of the item, for messages.
        inputs: names of the network's inputs.
        image_key: key of the images in a dict; empty for the only key besides the label; None without
            preprocessing, when every key must be an input's name.
    """

    where: str
    inputs: tuple[str, ...]
    image_key: str | None = None

    def parts_of(self, item: Any) -> tuple[dict[str, Any], Any]:
        """Return input name -> values, and the label or None."""
        names = list(self.inputs)
        if isinstance(item, Mapping):
            return self._of_mapping(item, names)
        if (
            is_array(item)
            or _is_image(item)
            or (isinstance(item, list) and not any(map(_is_part, item)))
        ):
            return self._in_order([item], names, item), None
        if isinstance(item, tuple | list):
            return self._of_sequence(item, names)
        raise self._refused(item, names)

    def _of_mapping(self, item: Mapping[Any, Any], names: list[str]) -> tuple[dict[str, Any], Any]:
        if not set(names) <= set(item):
            only = self._only_key(item, names)
            if only is None:
                raise self._refused(item, names)
            return {names[0]: item[only]}, item.get(_LABEL_KEY)
        label = None if _LABEL_KEY in names else item.get(_LABEL_KEY)
        return {name: item[name] for name in names}, label

    def unused_in(self, item: Any) -> list[str]:
        """Return the keys of values that are not inputs, images, labels or text."""
        if isinstance(item, tuple | list) and item and isinstance(item[0], Mapping):
            item = item[0]
        if not isinstance(item, Mapping):
            return []
        names = list(self.inputs)
        taken = {*names, _LABEL_KEY, self.image_key}
        if not set(names) <= set(item):
            taken.add(self._only_key(item, names))
        return [str(key) for key in item if key not in taken and not _is_text(item[key])]

    def _only_key(self, item: Mapping[Any, Any], names: list[str]) -> Any:
        """The key of the only input's images in a dict that names them otherwise; None if not clear."""
        if len(names) != 1 or self.image_key is None:
            return None
        if self.image_key:
            return self.image_key if self.image_key in item else None
        others = [key for key in item if key != _LABEL_KEY]
        return others[0] if len(others) == 1 else None

    def _of_sequence(
        self, item: tuple[Any, ...] | list[Any], names: list[str]
    ) -> tuple[dict[str, Any], Any]:
        nested = bool(item) and isinstance(item[0], Mapping | tuple)
        if nested and len(item) <= 2:
            inputs, label = self.parts_of(item[0])
            return inputs, item[1] if len(item) == 2 else label
        if not nested and len(item) == len(names) + 1:
            return self._in_order(item[:-1], names, item), item[-1]
        return self._in_order(item, names, item), None

    def _in_order(self, values: Any, names: list[str], item: Any) -> dict[str, Any]:
        if len(values) != len(names):
            raise self._refused(item, names)
        return dict(zip(names, values))

    def _refused(self, item: Any, names: list[str]) -> DataError:
        return DataError(
            f"{self.where}, is {_kind(item)}; a dict with arrays for {names} is needed, or "
            "(inputs, label), or the arrays in this order."
        )


def _kind(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"a dict of {sorted(map(str, value))}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}: {[type(entry).__name__ for entry in value[:4]]}"
    return f"of the type {type(value).__name__}"


def is_array(value: Any) -> bool:
    """Return whether a value is an array: NumPy's, PyTorch's or alike."""
    return hasattr(value, "dtype") and hasattr(value, "shape")


def _is_text(value: Any) -> bool:
    """Whether a value is text or a list of texts, such as file names."""
    entries = value if isinstance(value, list | tuple) else [value]
    return bool(entries) and all(isinstance(entry, str | bytes) for entry in entries)


def _is_part(value: Any) -> bool:
    """Whether an entry of a list is part of an item, rather than a number."""
    return is_array(value) or _is_image(value) or isinstance(value, Mapping | tuple)


def _is_image(value: Any) -> bool:
    from PIL import Image  # imported here: files of arrays do not need it

    return isinstance(value, Image.Image)


def as_array(value: Any, where: str, name: str) -> np.ndarray:
    """Copy a value from the user's code; PyTorch tensors are moved to the CPU, without gradients.

    Raises:
        DataError: NumPy makes no array of numbers of it, or some of them are masked.
    """
    with foreign_code(DataError, f"{where}, gave no array for the input '{name}': "):
        if _is_image(value):
            return image_pixels(value)
        if hasattr(value, "detach") and hasattr(value, "cpu"):
            value = value.detach().cpu()
            if str(value.dtype) == "torch.bfloat16":
                # NumPy lacks this type; float32 holds all its values
                value = value.float()
            value = value.resolve_conj().resolve_neg().numpy()
        array = np.array(value)
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise DataError(
            f"{where}, gave masked values for the input '{name}'; replace them with values, with .filled()."
        )
    if array.dtype.hasobject:
        raise DataError(
            f"{where}, gave Python objects for the input '{name}' ({_kind(value)}); give numbers, with "
            "rows of one length."
        )
    return array


def labels_of(label: Any, num_rows: int, where: str) -> list[int]:
    """Return the class of each row; a single label holds for the whole batch.

    Raises:
        DataError: it is not one whole number, nor one for each row.
    """
    labels = as_array(label, where, _LABEL_KEY).squeeze()
    numbers = labels.dtype.kind in "iuf" and bool((labels == np.floor(labels)).all())
    if not numbers or labels.ndim > 1 or labels.size not in (1, num_rows):
        raise DataError(
            f"{where}, has labels of the shape {list(labels.shape)} and type {labels.dtype} for "
            f"{counted(num_rows, 'row')}; a label is one integer per row, the class. Leave out anything else."
        )
    return [int(number) for number in np.broadcast_to(labels, (num_rows,))]
