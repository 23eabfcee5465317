"""Labels from the folders that samples lie in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from trtbuild.data.samples import SourceOf
from trtbuild.data.shown import shown
from trtbuild.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from trtbuild.data.samples import Sample

__all__ = ["ClassFolders"]


@dataclass(frozen=True)
class ClassFolders(SourceOf):
    """A source whose samples lie in one folder a class; classes count from 0 in order of name.

    Attributes:
        source: images of a folder or a tar file.
        root: the folder whose subfolders are the classes; None for those that the samples lie in.
    """

    root: Path | None

    def __iter__(self) -> Iterator[Sample]:
        """Start a new pass.

        Raises:
            DataError: a sample lies in no class folder, or there are fewer than two of them.
        """
        for sample in self.source:
            yield replace(sample, label=self._classes[self._folder(sample.name)])

    @cached_property
    def _classes(self) -> Mapping[str, int]:
        folders = self.source.folders if self.root is None else _subfolders(self.root)
        if folders is None:
            raise DataError(
                f"'{self.description}' has no class folders: '--labels folders' takes a folder or a tar "
                "file of images, one folder a class."
            )
        if len(folders) < 2:
            raise DataError(
                f"'{shown(self.root or self.description)}' has {len(folders)} class folder(s); labels "
                "from folders need one folder for every class."
            )
        return {name: number for number, name in enumerate(sorted(folders))}

    def _folder(self, name: str) -> str:
        parts = PurePosixPath(name).parts[:-1]
        # other folders may stand above the class folders
        found = [part for part in parts if part in self._classes]
        if not found or (self.root is not None and len(found) > 1):
            why = "no class folder" if not found else f"the class folders {found}"
            raise DataError(f"the image '{name}' lies in {why}; its label cannot be told.")
        return found[0]


def _subfolders(root: Path) -> frozenset[str]:
    try:
        entries = list(root.iterdir())
    except OSError as error:
        raise DataError(f"cannot read the folder '{shown(root)}': {error.strerror}.") from error
    return frozenset(shown(e.name) for e in entries if e.is_dir() and not e.name.startswith("."))
