"""The protocol of every backend: is it available, can it do that, build, open.

Everything else (timing, comparing, choosing) is above it and knows no backend by name.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from trtbuild.options.tensorrt import TensorRTOptions
from trtbuild.progress import Progress, silent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from trtbuild.artifact import Artifact
    from trtbuild.runtime.session import Feeds, Session

__all__ = ["Availability", "Backend", "BuildRequest", "Engine"]


@dataclass(frozen=True)
class Availability:
    """Whether a backend works on this machine; if not, the cause and the remedy."""

    usable: bool
    detail: str
    remedy: str = ""


@dataclass(frozen=True)
class BuildRequest:
    """A request to a backend to build an engine.

    Attributes:
        artifact: the network with its calibration and its Q/DQ form.
        directory: existing folder for the files.
        calibration_batches: starts a new pass over the calibration data, for backends that calibrate by
            themselves (TensorRT 10). None if ranges came from a file.
        fp16: whether layers that are not INT8 run in FP16.
        options: TensorRT's options; other backends report which of them have no effect.
        progress: called during a long build.
        sample_batches: starts a pass over all samples, including those for verification; the values of an
            input that holds a shape are bounded by them. None if there are none.
    """

    artifact: Artifact
    directory: Path
    calibration_batches: Callable[[], Iterable[Feeds]] | None = None
    fp16: bool = False
    options: TensorRTOptions = field(default_factory=TensorRTOptions)
    progress: Progress = silent
    sample_batches: Callable[[], Iterable[Feeds]] | None = None


@dataclass(frozen=True)
class Engine:
    """An engine that a backend built.

    Attributes:
        backend: name of the backend that opens `path`.
        path: the file to open.
        files: every file that was written, name -> description, for the manifest.
        without_effect: names of given options that this backend does not use.
        not_opened: why it cannot be opened on this machine; empty if it can.
        notes: sentences for the user.
        details: the backend's own entries for the manifest (versions, device, layers), JSON types only.
    """

    backend: str
    path: Path
    files: Mapping[str, str]
    without_effect: tuple[str, ...] = ()
    not_opened: str = ""
    notes: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)


class Backend(Protocol):
    """Something that builds and runs engines."""

    @property
    def name(self) -> str:
        """The name that ``--backend`` and the manifest use."""
        ...

    @property
    def suffix(self) -> str:
        """The end of an engine's file name, after the network's name."""
        ...

    def availability(self) -> Availability:
        """Say whether this backend works here. Never raises an error."""
        ...

    def check(self, options: TensorRTOptions, *, int8: bool, fp16: bool) -> None:
        """Raise an OptionError if the options alone show that it cannot build what is asked for."""
        ...

    def build(self, request: BuildRequest) -> Engine:
        """Build an engine; all files are written completely or not at all."""
        ...

    def open(self, path: Path) -> Session:
        """Open an engine (or, for a backend that can, a plain ONNX file)."""
        ...
