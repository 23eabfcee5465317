"""Samples from a folder or a tar file of images."""

from __future__ import annotations

import hashlib
import io
import tarfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, UnidentifiedImageError

from trtbuild.data.feeds import as_feeds
from trtbuild.data.samples import Sample, Source
from trtbuild.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trtbuild.model.signature import TensorSpec
    from trtbuild.options.preprocess import Preprocess

__all__ = ["IMAGE_SUFFIXES", "ImageFolder", "ImageTar"]

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})


@dataclass(frozen=True)
class ImageFolder(Source):
    """Every image below a folder, in order of path; other files are passed over."""

    path: Path
    spec: TensorSpec
    preprocess: Preprocess

    @property
    def description(self) -> str:
        """Where the samples come from."""
        return str(self.path)

    def __iter__(self) -> Iterator[Sample]:
        for file in self._files():
            yield _sample(file.relative_to(self.path).as_posix(), file.read_bytes(), self)

    def _files(self) -> list[Path]:
        found = self.path.rglob("*")
        return sorted(f for f in found if f.suffix.lower() in IMAGE_SUFFIXES and f.is_file())


@dataclass(frozen=True)
class ImageTar(Source):
    """Every image in a tar file, compressed or not, in the file's order."""

    path: Path
    spec: TensorSpec
    preprocess: Preprocess

    @property
    def description(self) -> str:
        """Where the samples come from."""
        return str(self.path)

    def __iter__(self) -> Iterator[Sample]:
        try:
            with tarfile.open(self.path) as archive:
                for member in archive:
                    if Path(member.name).suffix.lower() not in IMAGE_SUFFIXES:
                        continue
                    stream = archive.extractfile(member)
                    if stream is not None:
                        yield _sample(member.name, stream.read(), self)
        except (tarfile.TarError, OSError, EOFError) as error:
            raise DataError(f"cannot read the tar file '{self.path}': {error}.") from error


def _sample(name: str, content: bytes, source: ImageFolder | ImageTar) -> Sample:
    key = hashlib.blake2b(content, digest_size=16).digest()
    return Sample(name, key, partial(_feeds, name, content, source))


def _feeds(name: str, content: bytes, source: ImageFolder | ImageTar) -> dict[str, np.ndarray]:
    pixels = {source.spec.name: _pixels(name, content, source.path)}
    return as_feeds(pixels, [source.spec], source.preprocess, name)


def _pixels(name: str, content: bytes, path: Path) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(content)) as image:
            return np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB"))
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(
            f"the image '{name}' in '{path}' cannot be read ({str(error).splitlines()[0]}); "
            "repair it or leave it out."
        ) from error
