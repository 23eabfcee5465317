"""One process for one TensorRT version: everything is imported once, every scenario runs in a fork.

Test modules are imported once, too: importing one, and pytest with it, took longer than a small build.

Reads a line of JSON for each scenario from standard input (module, function, arguments, folder for the
answer) and writes a line when it has ended. A crash of a scenario is also an answer.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import importlib
import io
import json
import os
import sys
import traceback
import warnings
from contextlib import redirect_stderr, suppress
from pathlib import Path
from typing import Any

warnings.filterwarnings("ignore", category=DeprecationWarning)

# What scenarios import; paid once instead of in every fork.
PRELOADED = (
    "calibrators.kernels",
    "cuda.bindings.driver",
    "numpy.random",
    "onnx.parser",
    "onnx_ir",
    "onnxruntime",
    "tests.tensorrt_stub.runtime",
    "tests.trtbuild.backends.tensorrt.networks",
    "trtbuild.backends.tensorrt.backend",
    "trtbuild.cli.engine",
    "trtbuild.jobs.engine",
    "trtbuild.report.engine",
)


def main() -> None:
    faulthandler.enable()
    for module in PRELOADED:
        importlib.import_module(module)
    import tensorrt

    major, minor, patch = (int(part) for part in tensorrt.__version__.split(".")[:3])
    number = major * 10000 + minor * 100 + patch
    library = ctypes.CDLL(f"libnvinfer.so.{major}")
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a native logger prints to standard output, which is for answers only
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        importlib.invalidate_caches()  # packages may have been built since this process began
        with suppress(BaseException):  # the fork imports it again, and reports the error
            importlib.import_module(request["module"])
        gc.freeze()  # a collection in the fork would copy the pages of all that is imported
        child = os.fork()
        if child == 0:
            _scenario(request, library, major, number)
        _, status = os.waitpid(child, 0)
        print(json.dumps({"status": status}), file=answers, flush=True)


def _scenario(request: dict[str, Any], library: ctypes.CDLL, major: int, number: int) -> None:
    """Run one scenario and leave the process without any clean-up of native objects."""
    from tests.tensorrt_stub.world import install

    answer: dict[str, Any] = {}
    noise = io.StringIO()
    os.chdir(request["folder"])
    world = install(library, major, number)
    try:
        function = getattr(importlib.import_module(request["module"]), request["function"])
        with redirect_stderr(noise):
            answer["value"] = function(world, **request["arguments"])
    except BaseException as error:  # noqa: BLE001  every way to end is an answer
        answer["error"] = {
            "type": type(error).__name__,
            "message": str(error),
            "exit_code": getattr(error, "exit_code", None),
            "trace": traceback.format_exc(),
        }
    answer |= {"calls": world.calls, "native_errors": world.errors, "stderr": noise.getvalue()}
    Path("answer.json").write_text(json.dumps(answer, default=str))
    library.standin_set_create(None)
    os._exit(0)


if __name__ == "__main__":
    main()
