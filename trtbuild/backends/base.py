"""The protocol that every backend speaks: available?, can it do that?, build, open.

Everything else (timing, comparing, choosing) lives above it and knows no backend by name.
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
    """Whether a backend works on this machine; if not, the cause and what mends it."""

    usable: bool
    detail: str
    remedy: str = ""


@dataclass(frozen=True)
class BuildRequest:
    """What a backend is asked to build.

    Attributes:
        artifact: the network with its calibration and its Q/DQ form.
        directory: where the files go; it exists.
        calibration_batches: starts a new pass over the calibration data; for backends that calibrate
            by themselves (TensorRT 10). None when ranges came from a file.
        sample_batches: starts a pass over all samples, those that verify as well: values of an input that
            holds a shape bound it. None where there are none.
        fp16: what is not INT8 runs in FP16.
        options: of TensorRT; other backends name those that have no effect on them.
        progress: shown how far a long build is.
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
    """What a backend built.

    Attributes:
        backend: name of the backend that opens `path`.
        path: the file to open.
        files: every file that was written, name -> what it is, for the manifest.
        without_effect: names of options that were given and that this backend has no use for.
        not_opened: why it cannot be opened on this machine; empty where it can.
        notes: sentences for the user.
        details: what the backend wants recorded (versions, device, layers), JSON types only.
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
        """What stands behind a network's name in the name of its engine."""
        ...

    def availability(self) -> Availability:
        """Say whether this backend works here. Never raises."""
        ...

    def check(self, options: TensorRTOptions, *, int8: bool, fp16: bool) -> None:
        """Raise an OptionError if it cannot build what is asked for, as far as that is known by options."""
        ...

    def build(self, request: BuildRequest) -> Engine:
        """Build an engine; all files appear whole or not at all."""
        ...

    def open(self, path: Path) -> Session:
        """Open an engine (or, for a backend that can, a plain ONNX file)."""
        ...
