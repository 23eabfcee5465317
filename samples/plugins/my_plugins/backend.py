"""A backend builds and runs engines; this one stores ONNX Runtime's engine as one compressed file."""

from __future__ import annotations

import gzip
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import trtbuild
from trtbuild.backends.base import Availability, BuildRequest, Engine
from trtbuild.runtime.onnxruntime import open_session

if TYPE_CHECKING:
    from trtbuild.runtime.session import Session


@dataclass(frozen=True)
class Archive:
    """Builds ``NAME.onnx.gz``; the methods are those of `trtbuild.backends.base.Backend`."""

    name: str = "archive"
    suffix: str = ".onnx.gz"

    def availability(self) -> Availability:
        """Return whether it works here, and its description."""
        return Availability(usable=True, detail="a compressed engine of ONNX Runtime")

    def check(self, options: trtbuild.TensorRTOptions, *, int8: bool, fp16: bool) -> None:
        """Refuse builds that it cannot do."""
        del options
        if fp16 or not int8:
            raise trtbuild.OptionError("the backend 'archive' builds INT8 alone; say --int8.")

    def build(self, request: BuildRequest) -> Engine:
        """Write the engine into ``request.directory``; `request.artifact` has the network with its ranges."""
        path = request.directory / f"{request.artifact.name}{self.suffix}"
        with tempfile.TemporaryDirectory() as folder:
            plain = Path(folder) / "network.onnx"
            trtbuild.write_model(trtbuild.portable_form(request.artifact), plain)
            path.write_bytes(gzip.compress(plain.read_bytes(), mtime=0))
        return Engine(self.name, path, {path.name: "a compressed engine of ONNX Runtime"})

    def open(self, path: Path) -> Session:
        """Open the file that `build` wrote."""
        with tempfile.TemporaryDirectory() as folder:
            plain = Path(folder) / "network.onnx"
            plain.write_bytes(gzip.decompress(path.read_bytes()))
            return open_session(plain)
