"""Opens the data of a recipe: the samples that calibrate, and those that verify.

Except for arrays, readers are imported when they are used, because no run needs all of them.
"""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trtbuild.data.arrays import ArraySource, is_array_folder, open_folder
from trtbuild.data.batching import samples_per_batch
from trtbuild.data.constants import WithConstants, constant_feeds
from trtbuild.data.feeds import axes_of, image_input
from trtbuild.data.image_files import LIST_SUFFIXES, images_below
from trtbuild.data.skipped import grouped
from trtbuild.data.split import HELD_OUT_SHARE, choose_samples, split, without
from trtbuild.errors import DataError
from trtbuild.model import fixed_batch
from trtbuild.options.values import IN_MEMORY

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trtbuild.data.images import ImageFolder, ImageList, ImageTar
    from trtbuild.data.samples import Source
    from trtbuild.model.signature import TensorSpec
    from trtbuild.options.data import Data, DataRecipe
    from trtbuild.options.preprocess import Preprocess

__all__ = [
    "DataPlan",
    "calibration_source",
    "check_is_named",
    "open_data",
    "open_named",
    "open_source",
]


@dataclass(frozen=True)
class DataPlan:
    """The samples that calibrate (None if a calibration file does) and those that verify."""

    calibration: Source | None
    verification: Source


def open_data(
    recipe: DataRecipe,
    inputs: Sequence[TensorSpec],
    *,
    calibrates: bool = True,
    held_out: float = HELD_OUT_SHARE,
) -> DataPlan:
    """Open the data and keep samples apart for verification.

    Args:
        recipe: the user's data options.
        inputs: names, dtypes and dims of the network's inputs.
        calibrates: False if ranges come from a file; then all data may verify.
        held_out: share of the data that verifies, if no other data is given for that.

    Raises:
        DataError: no data was given, it does not fit, or there is too little.
    """
    check_is_named(recipe, calibrates=calibrates)
    source = _all_data(recipe, inputs)
    if recipe.verify_data is not None:
        kept = _labelled(open_named(recipe.verify_data, recipe, inputs), recipe)
        if source is None or not calibrates:
            return DataPlan(None, kept)
        chosen = without(source, kept)
        return DataPlan(
            choose_samples(chosen, num_images=recipe.num_images, seed=recipe.seed), kept
        )
    assert source is not None  # `check_is_named` has raised otherwise
    source = _labelled(source, recipe)
    if not calibrates:
        return DataPlan(None, source)
    _check_first_fits(source)
    at_least = samples_per_batch(source, fixed_batch(inputs) or 1)
    parts = split(
        source,
        num_images=recipe.num_images,
        seed=recipe.seed,
        at_least=at_least,
        share=held_out,
    )
    return DataPlan(parts.calibration, parts.verification)


def check_is_named(recipe: DataRecipe, *, calibrates: bool = True) -> None:
    """Check that data is given for everything that a build needs it for.

    Args:
        recipe: the user's data options.
        calibrates: False if ranges come from a file.

    Raises:
        DataError: some is missing.
    """
    if recipe.random_data or recipe.data is not None:
        return
    if recipe.verify_data is None:
        raise DataError(
            "no data was given: calibration and verification need some. Give --data, or ask for "
            "--random-data, which says nothing about accuracy."
        )
    if calibrates:
        raise DataError("calibration needs data: give --data, or --calibration FILE.")


def _check_first_fits(source: Source) -> None:
    """Load one sample, so that data that does not fit is reported before too little data is."""
    first = source.index.first
    if first is not None:
        first.load()


def calibration_source(recipe: DataRecipe, inputs: Sequence[TensorSpec]) -> Source:
    """Return all data that the user gave, for calibration alone.

    Args:
        recipe: the user's data options.
        inputs: names, dtypes and dims of the network's inputs.

    Raises:
        DataError: no data was given, it does not fit, or there is too little.
    """
    source = _all_data(recipe, inputs)
    if source is None:
        raise DataError("calibration needs data: give --data.")
    return choose_samples(source, num_images=recipe.num_images, seed=recipe.seed)


def _all_data(recipe: DataRecipe, inputs: Sequence[TensorSpec]) -> Source | None:
    if recipe.random_data:
        from trtbuild.data.random_data import RandomSource

        return _with_constants(
            recipe, inputs, lambda others: RandomSource(others, seed=recipe.seed)
        )
    return None if recipe.data is None else open_named(recipe.data, recipe, inputs)


def open_named(named: Data, recipe: DataRecipe, inputs: Sequence[TensorSpec]) -> Source:
    """Open `named` with the preprocessing and the constants of a recipe.

    Raises:
        DataError: as in `open_source`; or a constant does not fit.
    """

    def opened(others: Sequence[TensorSpec]) -> Source:
        if isinstance(named, str | Path):
            return open_source(
                str(named), others, recipe.preprocess, skip_broken=recipe.skip_broken
            )
        from trtbuild.data.callables import open_object

        return open_object(named, others, recipe.preprocess)

    return _with_constants(recipe, inputs, opened)


def _with_constants(
    recipe: DataRecipe,
    inputs: Sequence[TensorSpec],
    opened: Callable[[Sequence[TensorSpec]], Source],
) -> Source:
    """The source that `opened` makes for the inputs without a constant, combined with the constants."""
    constants = constant_feeds(recipe.constants, inputs)
    others = [spec for spec in inputs if spec.name not in constants]
    if not others:
        raise DataError(
            "every input has a constant; at least one input must come from the samples."
        )
    source = opened(others)
    if not constants:
        return source
    axes = axes_of([spec for spec in inputs if spec.name in constants])
    return WithConstants(source, constants, axes)


def _labelled(source: Source, recipe: DataRecipe) -> Source:
    if recipe.labels is None:
        return source
    from trtbuild.data.labels import read_labels

    return read_labels(recipe.labels, source)


def open_source(
    spec: str,
    inputs: Sequence[TensorSpec],
    preprocess: Preprocess | None,
    *,
    skip_broken: bool = False,
) -> Source:
    """Open `spec`: an ``.npz`` or ``.npy`` file, a folder of them, images, or Python code.

    Images are a folder, a tar file or a text file that lists them; code is ``module:name`` or
    ``script.py:name``.

    Args:
        spec: what the user gave.
        inputs: names, dtypes and dims of the network's inputs.
        preprocess: how pixels become the input that takes images.
        skip_broken: whether to skip images that cannot be read; else they are an error.

    Raises:
        DataError: it is none of these, unreadable, or does not fit the network's inputs.
    """
    if spec.startswith(IN_MEMORY):
        raise DataError(
            f"the data were a {spec} in memory, which no file records; give the data again."
        )
    path = Path(spec)
    is_list = path.suffix.lower() in LIST_SUFFIXES
    if path.is_dir() and is_array_folder(path) and not images_below(path).images:
        return open_folder(path, inputs, preprocess)
    if path.is_dir() or (path.is_file() and (is_list or _is_tar(path))):
        return _images(path, inputs, preprocess, skip_broken)
    if preprocess is not None:
        image_input(inputs, preprocess)  # raises if that is not clear
    if path.suffix.lower() in (".npz", ".npy"):
        return ArraySource.read(path, inputs, preprocess)
    if path.exists():
        raise DataError(
            f"cannot read the data '{spec}': not an .npz or .npy file, a tar or a list (.txt) of images, "
            "or a folder."
        )
    if ":" in spec:
        from trtbuild.data.callables import CallableSource, import_callable

        return CallableSource(spec, import_callable(spec), tuple(inputs), preprocess)
    raise DataError(f"the data '{spec}' does not exist.")


def _images(
    path: Path, inputs: Sequence[TensorSpec], preprocess: Preprocess | None, skip_broken: bool
) -> Source:
    if path.is_dir() and next(path.iterdir(), None) is None:
        raise DataError(f"the folder '{path}' is empty; give one with images or arrays.")
    if path.is_dir():
        _check_holds_images(path)
    if len(inputs) != 1:
        raise DataError(
            f"'{path}' holds images, and the network has {len(inputs)} inputs; "
            "give arrays or a Python callable, or --constant for all inputs but one."
        )
    if preprocess is None:
        raise DataError(
            f"'{path}' holds images: say how pixels become the input '{inputs[0].name}' with "
            "--preprocess FILE, or --resize, --crop, --color, --scale, --mean, --std."
        )
    image_input(inputs, preprocess)
    return _image_reader(path)(path, inputs[0], preprocess, skip_broken)


def _check_holds_images(folder: Path) -> None:
    """Refuse a folder of other files, before anything is asked of it that is for images."""
    found = images_below(folder)
    if found.images:
        return
    passed = "; ".join(map(str, grouped(found.others)))
    raise DataError(
        f"'{folder}' holds no image and no array (.npz, .npy) at its top"
        f"{f'; passed over: {passed}' if passed else ''}."
    )


def _image_reader(path: Path) -> type[ImageFolder | ImageList | ImageTar]:
    from trtbuild.data.images import ImageFolder, ImageList, ImageTar

    if path.is_dir():
        return ImageFolder
    return ImageTar if _is_tar(path) else ImageList


def _is_tar(path: Path) -> bool:
    """Whether a file is a tar; True for damaged compressed files, whose error appears when they are read."""
    try:
        return tarfile.is_tarfile(path)
    except Exception as error:  # decoders of damaged bytes raise anything
        if isinstance(error, OSError) and error.strerror:  # refused by the system
            raise DataError(f"cannot read the data '{path}': {error.strerror}.") from error
        return True
