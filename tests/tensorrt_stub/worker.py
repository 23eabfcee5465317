"""The other process of a build, with its own stand-in; it writes the calibration batches to a file.

With DIES in the environment, the library ends this process by a signal after calibrating; FOLDER is the
folder of that file, since the build runs in a folder of its own.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
from pathlib import Path

from tests.tensorrt_stub.world import install
from trtbuild.backends.tensorrt import apart_worker

DIES = "TRTBUILD_STANDIN_DIES"
FOLDER = "TRTBUILD_STANDIN_FOLDER"
LEFT = Path("handed_over.json")


def main() -> None:
    import tensorrt

    major, minor, patch = (int(part) for part in tensorrt.__version__.split(".")[:3])
    library = ctypes.CDLL(f"libnvinfer.so.{major}")
    left = Path(os.environ[FOLDER]) / LEFT
    world = install(library, major, major * 10000 + minor * 100 + patch)

    def at_step(step: int) -> None:
        if step == 0:  # it calibrates now
            return
        left.write_text(json.dumps(world.batches, default=list))
        if DIES in os.environ:
            os.kill(os.getpid(), signal.SIGSEGV)

    world.on_step = at_step
    apart_worker.main()
    library.standin_set_create(None)
    os._exit(0)


if __name__ == "__main__":
    main()
