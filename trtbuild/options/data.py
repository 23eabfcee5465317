"""Which data calibrates and which verifies."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from trtbuild.errors import OptionError
from trtbuild.options.fields import group, option
from trtbuild.options.preprocess import Preprocess

__all__ = ["FOLDERS", "DataRecipe"]

FOLDERS = "folders"
"""In the place of a file of labels: the folders that the data lies in, one a class."""


@dataclass(frozen=True)
class DataRecipe:
    """Which data calibrates, which verifies, and how it becomes the network's input."""

    data: str | None = option(
        None,
        "An .npz or .npy file, a folder of them, a folder, tar or list of images, or module:function.",
        is_path=True,
    )
    preprocess: Preprocess | None = group(
        Preprocess, "Preprocessing", optional=True,
        from_file="--preprocess", help="TOML file: how pixels become inputs.",
    )  # fmt: skip
    verify_data: str | None = option(
        None, "Data for verification.", is_path=True, when_absent="a part of --data"
    )
    labels: Path | None = option(
        None, "CSV, .txt, .npz or .npy with the class of each sample, or 'folders' for one folder a class.",
        words=(FOLDERS,),
    )  # fmt: skip
    skip_broken: bool = option(False, "Pass over images that cannot be read.")
    num_images: int | None = option(None, "How many samples calibrate.", low=1, when_absent="all")
    random_data: bool = option(False, "Random numbers instead of data; says nothing of accuracy.")
    seed: int = option(0, "Of every choice among samples.")

    def __post_init__(self) -> None:
        if self.random_data and self.data is not None:
            raise OptionError("--random-data and --data exclude each other.")

    @property
    def preprocess_text(self) -> str:
        """Identifies the preprocessing in a calibration's provenance."""
        if self.preprocess is None:
            return "none"
        return json.dumps(self.preprocess.as_dict(), sort_keys=True)
