"""The options that name data, shared by every command that reads some."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trtbuild.data import DataRecipe, Preprocess, read_preprocess
from trtbuild.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["data_options", "preprocess_options"]

_PREPROCESS = ("layout", "color", "scale", "mean", "std", "resize", "crop", "array")


def preprocess_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--preprocess`` and its single settings; the command gets ``preprocess``."""

    @click.option(
        "--preprocess",
        "file",
        type=click.Path(path_type=Path),
        help="TOML file: how pixels become inputs.",
    )
    @click.option(
        "--layout", type=click.Choice(["NCHW", "NHWC"]), help="Layout that the network takes."
    )
    @click.option(
        "--color", type=click.Choice(["RGB", "BGR", "GRAY"]), help="Colour order it takes."
    )
    @click.option("--scale", type=float, help="Factor on every pixel, before mean and std.")
    @click.option("--mean", help="One number or one a channel: 0.485,0.456,0.406.")
    @click.option("--std", help="One number or one a channel.")
    @click.option("--resize", help="Short side in pixels, or HEIGHTxWIDTH.")
    @click.option("--crop", help="Side of the centre square, or HEIGHTxWIDTH.")
    @click.option("--array", help="Array of images in an .npz file.")
    @functools.wraps(command)
    def wrapped(*args: Any, file: Path | None, **kwargs: Any) -> Any:
        given = {name: kwargs.pop(name) for name in _PREPROCESS}
        return command(*args, preprocess=_preprocess(file, given), **kwargs)

    return wrapped


def data_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add every option about data; the command gets one `DataRecipe` named ``data``."""

    @click.option(
        "--data",
        "data_",
        help="An .npz or .npy file, a folder or tar of images, or module:function.",
    )
    @click.option("--verify-data", help="Data for verification; else a few percent of --data.")
    @click.option(
        "--labels",
        type=click.Path(path_type=Path),
        help="CSV, .npz or .npy with the class of each sample.",
    )
    @click.option(
        "--num-images", type=click.IntRange(min=1), help="How many samples calibrate; else all."
    )
    @click.option(
        "--random-data",
        is_flag=True,
        help="Random numbers instead of data; says nothing of accuracy.",
    )
    @click.option(
        "--seed", type=int, default=0, show_default=True, help="Of every choice among samples."
    )
    @preprocess_options
    @functools.wraps(command)
    def wrapped(*args: Any, preprocess: Preprocess | None, **kwargs: Any) -> Any:
        recipe = DataRecipe(
            data=kwargs.pop("data_"),
            preprocess=preprocess,
            verify_data=kwargs.pop("verify_data"),
            labels=kwargs.pop("labels"),
            num_images=kwargs.pop("num_images"),
            random_data=kwargs.pop("random_data"),
            seed=kwargs.pop("seed"),
        )
        if recipe.random_data and recipe.data is not None:
            raise OptionError("--random-data and --data exclude each other.")
        return command(*args, data=recipe, **kwargs)

    return wrapped


def _preprocess(file: Path | None, given: dict[str, Any]) -> Preprocess | None:
    for name in ("mean", "std"):
        given[name] = _numbers(name, given[name], ",")
    for name in ("resize", "crop"):
        given[name] = _numbers(name, given[name], "x")
    return read_preprocess(file, given)


def _numbers(name: str, text: str | None, separator: str) -> Sequence[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(separator)]
    except ValueError as error:
        raise OptionError(
            f"--{name} cannot be '{text}'; write for example {_EXAMPLES[name]}."
        ) from error


_EXAMPLES = {"mean": "0.485,0.456,0.406", "std": "0.5", "resize": "256", "crop": "224x224"}
