"""Open an engine file with the backend that it belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.artifact import Artifact
from trtbuild.backends import AUTO, choose_backend
from trtbuild.backends.base import BuildRequest
from trtbuild.files import check_is_file
from trtbuild.model.file_kinds import check_is_plan
from trtbuild.model.qdq import is_qdq
from trtbuild.options.tensorrt import OpenOptions, Quantization, TensorRTOptions
from trtbuild.runtime.tensorrt.versions import RTX, TENSORRT, check_product, product_of
from trtbuild.temporaries import temporary_folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import onnx_ir as ir

    from trtbuild.backends.base import Backend
    from trtbuild.runtime.session import Feeds, Session

__all__ = ["built_by", "open_engine"]


def _backend_of(path: Path, backend: str | Backend = AUTO) -> str | Backend:
    """Return the backend that opens `path`: as asked for, else by the file."""
    if backend != AUTO:
        return backend
    return "onnxruntime" if path.suffix == ".onnx" else product_of(path).backend


def open_engine(
    path: Path, backend: str | Backend = AUTO, options: OpenOptions | None = None
) -> Session:
    """Open an ONNX file in ONNX Runtime, or a plan in the TensorRT product that wrote it.

    Args:
        path: the engine.
        backend: the backend that opens it, as for `choose_backend`; ``auto`` decides by the file.
        options: TensorRT's options for opening plans.

    Raises:
        InputError: there is no such file.
        OptionError: there is no backend of that name, or the plan is of another one.
        MissingError: the backend does not work on this machine.
        ModelError: the file is damaged, or made for another version or device.
    """
    check_is_file("the engine", path)
    chosen = _backend_of(path, backend)
    asked = next((one for one in (TENSORRT, RTX) if chosen == one.backend), None)
    if asked is not None:  # first: a wrong file matters even if TensorRT is not installed
        check_is_plan(path)
        check_product(path, asked)
    return choose_backend(chosen, options)[0].open(path)


def built_by(
    backend: str, example: Feeds, options: OpenOptions | None = None
) -> Callable[[ir.Model], Session]:
    """Return a function that builds an engine of a network, float or Q/DQ, and opens it; no files stay.

    Args:
        backend: ``tensorrt``; it must use the Q/DQ as they are in the network.
        example: a batch; dynamic inputs are built for its shapes.
        options: TensorRT's options for opening plans.

    Raises:
        OptionError: there is no backend of that name.
        MissingError: the backend does not work on this machine.
    """
    chosen, _ = choose_backend(backend, options)
    shapes = [f"{name}={'x'.join(map(str, array.shape))}" for name, array in example.items()]

    def build(model: ir.Model) -> Session:
        """Return a session of an engine built from `model`, which may exist in memory only."""
        dynamic = any(
            not isinstance(dim, int) for value in model.graph.inputs for dim in value.shape or ()
        )
        int8 = any(map(is_qdq, model.graph))
        building = TensorRTOptions(
            quantization=Quantization.EXPLICIT if int8 else Quantization.AUTO,
            shapes=tuple(shapes) if dynamic else (),
            **vars(options or OpenOptions()),
        )
        artifact = Artifact("candidate", model, model, quantized=model if int8 else None)
        with temporary_folder() as folder:
            request = BuildRequest(
                artifact, folder, options=building, sample_batches=lambda: [example]
            )
            engine = chosen.build(request)
            return chosen.open(engine.path)

    return build
