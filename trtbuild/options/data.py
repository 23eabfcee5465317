"""Which data calibrates and which verifies."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from trtbuild.errors import OptionError
from trtbuild.options.fields import group, option
from trtbuild.options.preprocess import Preprocess
from trtbuild.plugins import READER

__all__ = ["FOLDERS", "Data", "DataRecipe"]

Data: TypeAlias = str | Path | Iterable[Any] | Callable[[], Any]
"""What samples come from: a path, ``module:function``, or in Python what gives batches."""

FOLDERS = "folders"
"""In the place of a file of labels: the folders that the data lies in, one a class."""


def _place(given: object) -> str:
    if not isinstance(given, str):
        raise ValueError(f"is a text, not {given!r}")  # noqa: TRY004 - as every value of a file
    return given


def _constant(text: object) -> tuple[str, list[float]] | object:
    if not isinstance(text, str):
        return text
    name, equals, numbers = text.rpartition("=")
    try:
        values = [float(number) for number in numbers.split(",")]
    except ValueError:
        values = []
    if not equals or not name or not values:
        raise ValueError(f"cannot be '{text}'; write INPUT=NUMBERS, such as scale_factor=1,1")
    return name, values


def _batch_axis(text: object) -> tuple[str, int | str] | object:
    if not isinstance(text, str):
        return text
    name, _, axis = text.rpartition(":")
    if not name or not (axis.isdecimal() or axis == "none"):
        raise ValueError(f"cannot be '{text}'; write TENSOR:AXIS, such as state:1 or state:none")
    return name, axis if axis == "none" else int(axis)


@dataclass(frozen=True)
class DataRecipe:
    """Which data calibrates, which verifies, and how it becomes the network's input.

    From Python, `data` and `verify_data` may also be what gives batches: a list, a ``DataLoader``, a data set
    whose items are single samples, a function that is called anew for every pass
    (`trtbuild.data.callables`).
    """

    data: Data | None = option(
        None,
        "An .npz or .npy file, a folder of them, a folder, tar or list of images, or module:function.",
        is_path=True,
        plugin=READER,
        takes_objects=True,
        parse=_place,
        metavar="TEXT",
        essential=True,
    )
    preprocess: Preprocess | None = group(
        Preprocess, "Preprocessing", optional=True,
        from_file="--preprocess", help="TOML file: how pixels become inputs.", essential=True,
    )  # fmt: skip
    verify_data: Data | None = option(
        None,
        "Data for verification.",
        is_path=True,
        plugin=READER,
        takes_objects=True,
        parse=_place,
        metavar="TEXT",
        when_absent="a part of --data",
        essential=True,
    )
    labels: Path | None = option(
        None, "CSV, .txt, .json, .jsonl, .npz or .npy with the class of each sample, or 'folders' for one "
            "folder a class.",
        words=(FOLDERS,), essential=True,
    )  # fmt: skip
    constants: Mapping[str, object] = option(
        {}, "Values of an input that are the same for every sample, such as scale_factor=1,1. Repeatable.",
        flag="--constant", metavar="INPUT=NUMBERS", parse=_constant, example='["scale_factor=1,1"]',
    )  # fmt: skip
    batch_axes: Mapping[str, object] = option(
        {}, "Batch axis of an input or output, such as state:1, or state:none if it has none. "
            "Repeatable; otherwise found by the dim's name, else 0.",
        flag="--batch-axis", metavar="TENSOR:AXIS", parse=_batch_axis, example='["state:1"]',
    )  # fmt: skip
    skip_broken: bool = option(False, "Skip images that cannot be read.", essential=True)
    num_images: int | None = option(
        None,
        "Number of samples to use; in a build, for calibration.",
        low=1,
        when_absent="all",
        essential=True,
    )
    random_data: bool = option(
        False, "Random numbers instead of data; accuracy figures then mean nothing.", essential=True
    )
    seed: int = option(0, "Seed of every random choice of samples.")

    def __post_init__(self) -> None:
        for name in ("data", "verify_data"):
            if isinstance(getattr(self, name), Path):
                object.__setattr__(self, name, str(getattr(self, name)))
        if self.random_data and self.data is not None:
            raise OptionError("--random-data and --data exclude each other.")

    @property
    def preprocess_text(self) -> str:
        """Identifies the preprocessing, and constant inputs, in a calibration's provenance."""
        given = {"constants": dict(self.constants)} if self.constants else {}
        if self.preprocess is None and not given:
            return "none"
        settings = {} if self.preprocess is None else self.preprocess.as_dict()
        return json.dumps({**settings, **given}, sort_keys=True)
