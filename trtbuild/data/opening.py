"""Find the reader for what the user named."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

from trtbuild.data.arrays import ArraySource
from trtbuild.data.callables import CallableSource, import_callable
from trtbuild.data.images import ImageFolder, ImageTar
from trtbuild.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trtbuild.data.preprocess import Preprocess
    from trtbuild.data.samples import Source
    from trtbuild.model.signature import TensorSpec

__all__ = ["open_source"]


def open_source(spec: str, inputs: Sequence[TensorSpec], preprocess: Preprocess | None) -> Source:
    """Open `spec`: an ``.npz`` or ``.npy`` file, a folder or tar of images, or ``module:function``.

    Raises:
        DataError: nothing of these, unreadable, or not fitting the network's inputs.
    """
    path = Path(spec)
    if path.is_dir() or (path.is_file() and tarfile.is_tarfile(path)):
        return _images(path, inputs, preprocess)
    if preprocess is not None and len(inputs) != 1:
        raise DataError(
            f"preprocessing takes a network with one image input; this one has {len(inputs)}."
        )
    if path.suffix.lower() in (".npz", ".npy"):
        return ArraySource.read(path, inputs, preprocess)
    if path.exists():
        raise DataError(
            f"cannot read the data '{spec}': not an .npz or .npy file, a tar of images, or a folder."
        )
    if ":" in spec:
        return CallableSource(spec, import_callable(spec), tuple(inputs), preprocess)
    raise DataError(f"the data '{spec}' does not exist.")


def _images(path: Path, inputs: Sequence[TensorSpec], preprocess: Preprocess | None) -> Source:
    if len(inputs) != 1:
        raise DataError(
            f"'{path}' holds images, and the network has {len(inputs)} inputs; "
            "give arrays or a Python callable."
        )
    if preprocess is None:
        raise DataError(
            f"'{path}' holds images: say how pixels become the input '{inputs[0].name}' with "
            "--preprocess FILE, or --resize, --crop, --color, --scale, --mean, --std."
        )
    reader = ImageFolder if path.is_dir() else ImageTar
    return reader(path, inputs[0], preprocess)
