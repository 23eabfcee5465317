"""Samples from a folder of images, a tar file of images, or a text file that lists images."""

from __future__ import annotations

import hashlib
import tarfile
from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from trtbuild.data.feeds import as_feeds, channels_of
from trtbuild.data.image_files import images_below, listed_images, why_not
from trtbuild.data.pixels import decode_image, image_facts
from trtbuild.data.samples import Sample, Source
from trtbuild.data.skipped import Skipped, grouped
from trtbuild.errors import DataError, first_line
from trtbuild.visible import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np

    from trtbuild.data.image_files import Found
    from trtbuild.model.signature import TensorSpec
    from trtbuild.options.preprocess import Preprocess

__all__ = ["ImageFolder", "ImageList", "ImageTar"]

_MORE = "more than one image in the file, of which the first is used"


@dataclass(frozen=True)
class _Images(Source):
    """Images for one input.

    Attributes:
        path: where they are.
        spec: the input.
        preprocess: how pixels become the input.
        skip_broken: whether to skip images that cannot be read; else they are an error.
    """

    path: Path
    spec: TensorSpec
    preprocess: Preprocess
    skip_broken: bool = False

    @property
    def description(self) -> str:
        """Where the samples come from."""
        return visible(self.path)

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """What was not read, and why."""
        return grouped((*self._others(), *((name, "broken") for name in sorted(self._broken))))

    def __iter__(self) -> Iterator[Sample]:
        """Start a new pass.

        Raises:
            DataError: a file cannot be read, or there is no image.
        """
        found = False
        for name, read in self._contents():
            if name in self._broken:
                continue
            content = read()
            key = hashlib.blake2b(content, digest_size=16).digest()
            found = True
            depth, has_more = image_facts(content)
            unused = _MORE if has_more else ""
            load = partial(self._feeds, name, content)
            yield Sample(
                name, key, load, is_encoded=True, unused=unused, depth=depth, num_bytes=len(content)
            )
        if not found:
            others = "; ".join(map(str, self.skipped))
            passed = f"; passed over: {others}" if others else ""
            raise DataError(f"'{self.description}' holds no image that can be read{passed}.")

    @abstractmethod
    def _contents(self) -> Iterator[tuple[str, Callable[[], bytes]]]:
        """Yield the name of each image and a function that reads it; call it before taking the next."""

    @abstractmethod
    def _others(self) -> tuple[tuple[str, str], ...]:
        """Return the name of every file that is not an image, and the reason."""

    @cached_property
    def _broken(self) -> frozenset[str]:
        """Names of images that cannot be read, if they are to be skipped."""
        if not self.skip_broken:
            return frozenset()
        return frozenset(name for name, read in self._contents() if not self._is_whole(name, read))

    def _is_whole(self, name: str, read: Callable[[], bytes]) -> bool:
        try:
            self._pixels(name, read())
        except DataError:
            return False
        return True

    def _feeds(self, name: str, content: bytes) -> dict[str, np.ndarray]:
        pixels = {self.spec.name: self._pixels(name, content)}
        return as_feeds(pixels, [self.spec], self.preprocess, name)

    def _pixels(self, name: str, content: bytes) -> np.ndarray:
        try:
            return decode_image(content, channels_of(self.spec, self.preprocess))
        except ValueError as error:
            raise self._unreadable(name, str(error)) from error

    def _read_file(self, name: str, path: Path) -> bytes:
        try:
            return path.read_bytes()
        except OSError as error:
            raise self._unreadable(name, str(error.strerror)) from error

    def _unreadable(self, name: str, why: str) -> DataError:
        return DataError(
            f"the image '{name}' in '{self.description}' cannot be read ({visible(why)}); repair it, "
            "leave it out, or skip all such images with --skip-broken."
        )


@dataclass(frozen=True)
class ImageFolder(_Images):
    """Every image below a folder, sorted by path; links to folders are followed, hidden files left out."""

    @property
    def folders(self) -> frozenset[str]:
        """The class folders: those directly below the folder."""
        found = (p for p in self.path.iterdir() if p.is_dir() and not p.name.startswith("."))
        return frozenset(visible(path.name) for path in found)

    @cached_property
    def _found(self) -> Found:
        return images_below(self.path)

    def _others(self) -> tuple[tuple[str, str], ...]:
        return self._found.others

    def _contents(self) -> Iterator[tuple[str, Callable[[], bytes]]]:
        for file in self._found.images:
            name = visible(file.relative_to(self.path).as_posix())
            yield name, partial(self._read_file, name, file)


@dataclass(frozen=True)
class ImageList(_Images):
    """Every image that a text file lists, one path per line, in its order."""

    @cached_property
    def _files(self) -> tuple[tuple[str, Path], ...]:
        return listed_images(self.path)

    def _others(self) -> tuple[tuple[str, str], ...]:
        return ()

    def _contents(self) -> Iterator[tuple[str, Callable[[], bytes]]]:
        for name, file in self._files:
            yield visible(name), partial(self._read_file, visible(name), file)


@dataclass(frozen=True)
class ImageTar(_Images):
    """Every image in a tar file, compressed or not, in the file's order."""

    @property
    def folders(self) -> frozenset[str]:
        """The class folders; a folder that contains all images is not one of them."""
        paths = [PurePosixPath(name).parts for name in self._names[0]]
        while paths and len({path[0] for path in paths}) == 1 and all(len(p) > 2 for p in paths):
            paths = [path[1:] for path in paths]
        return frozenset(path[0] for path in paths if len(path) > 1)

    @cached_property
    def _names(self) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
        """Names of the images, and names of the other files with the reason."""
        images, others = [], []
        for member, _ in self._members():
            why = why_not(member.name)
            if not why and not (member.isfile() or member.islnk() or member.issym()):
                why = "no regular file"
            if not why:
                images.append(visible(member.name))
            elif not member.isdir():
                others.append((visible(member.name), why))
        return tuple(images), tuple(others)

    def _others(self) -> tuple[tuple[str, str], ...]:
        return self._names[1]

    def _contents(self) -> Iterator[tuple[str, Callable[[], bytes]]]:
        for member, archive in self._members():
            if not why_not(member.name) and (member.isfile() or member.islnk() or member.issym()):
                yield visible(member.name), partial(self._read_member, archive, member)

    def _members(self) -> Iterator[tuple[tarfile.TarInfo, tarfile.TarFile]]:
        try:
            with tarfile.open(self.path) as archive:
                for member in archive:
                    yield member, archive
                self._check_closed(archive)
        except (DataError, GeneratorExit):
            raise
        except Exception as error:  # decoders of damaged bytes raise anything
            raise self._damaged(error) from error

    def _check_closed(self, archive: tarfile.TarFile) -> None:
        """A tar file ends with blocks of zeros; tarfile does not notice a file cut off between members."""
        assert archive.fileobj is not None
        archive.fileobj.seek(archive.offset)
        if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise DataError(
                f"the tar file '{self.description}' was cut off: the blocks that close it are missing. Copy "
                "or pack it again."
            )
        # read to the very end, to check the checksums of compressed files and to find a second archive
        while block := archive.fileobj.read(tarfile.BLOCKSIZE):
            if block[257:262] == b"ustar":
                raise DataError(
                    f"the tar file '{self.description}' continues after its end: several archives were "
                    "joined. Unpack them into one folder (tar --ignore-zeros), and give that."
                )

    def _read_member(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
        try:
            stream = archive.extractfile(member)
            if stream is not None:
                return stream.read()
        except (KeyError, RecursionError) as error:  # a link to nothing, or to itself
            raise self._unreadable(visible(member.name), "it is a link to nothing") from error
        except Exception as error:  # decoders of damaged bytes raise anything
            raise self._damaged(error) from error
        raise self._unreadable(visible(member.name), "it is not a regular file")

    def _damaged(self, error: Exception) -> DataError:
        why = visible(first_line(error))
        return DataError(f"cannot read the tar file '{self.description}': {why}.")
