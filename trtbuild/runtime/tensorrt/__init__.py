"""Run time of TensorRT 10, 11 and for RTX: opens, runs and refits plans, and lists their layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.options.tensorrt import OpenOptions
from trtbuild.runtime.tensorrt.engine import OpenedEngine
from trtbuild.runtime.tensorrt.session import TensorRTSession
from trtbuild.runtime.tensorrt.versions import TENSORRT

if TYPE_CHECKING:
    from pathlib import Path

    from trtbuild.runtime.tensorrt.versions import Product

__all__ = ["OpenOptions", "OpenedEngine", "TensorRTSession", "open_plan"]


def open_plan(
    path: Path, options: OpenOptions | None = None, product: Product = TENSORRT
) -> TensorRTSession:
    """Return a session of a plan; closing it closes the engine, too.

    Args:
        path: file of the plan.
        options: how to open it; None for the defaults of `OpenOptions`.
        product: the product that built it.

    Raises:
        InputError: the file is not a plan for this machine; the message says what it was built for.
        MissingError: TensorRT, the driver, a GPU or memory is missing.
    """
    engine = OpenedEngine(path, options or OpenOptions(), product)
    try:
        return TensorRTSession(engine)
    except BaseException:
        engine.close()
        raise
