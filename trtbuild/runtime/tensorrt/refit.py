"""A stripped plan gets its weights back, from the network that it was built from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trtbuild.errors import ModelError
from trtbuild.runtime.tensorrt.failures import explained

if TYPE_CHECKING:
    from pathlib import Path

    from trtbuild.runtime.tensorrt.logger import Log
    from trtbuild.runtime.tensorrt.versions import TensorRT

__all__ = ["refit", "weights_of"]


def weights_of(plan: Path) -> Path:
    """The network that lies beside a stripped plan."""
    return plan.with_suffix(".weights.onnx")


def refit(tensorrt: TensorRT, engine: Any, logger: Any, log: Log, network: Path) -> None:
    """Put the weights of `network` into an engine.

    Args:
        tensorrt: the installed version.
        engine: deserialized from a plan that was built refittable from this very network.
        logger: of the runtime.
        log: where the logger writes.
        network: ONNX file.

    Raises:
        ModelError: TensorRT refuses the weights; the message has its reasons.
    """
    what = f"the engine does not take the weights of '{network}'"
    remedy = "Keep the file that was written beside the plan, or build without --strip-plan."
    with explained(log, what, ModelError, remedy):
        refitter = tensorrt.module.Refitter(engine, logger)
        parser = tensorrt.module.OnnxParserRefitter(refitter, logger)
        if not parser.refit_from_file(str(network)) or not refitter.refit_cuda_engine():
            raise ModelError(f"{what}: {log.reason()}. {remedy}")
