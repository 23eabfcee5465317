"""Plugins are loaded before a network is parsed or a plan is opened; large plans are streamed in parts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.trtbuild.backends.tensorrt import networks
from trtbuild.backends.tensorrt import TensorRTBackend
from trtbuild.files import file_digest
from trtbuild.options.tensorrt import TensorRTOptions
from trtbuild.runtime.tensorrt import streams

if TYPE_CHECKING:
    from tests.tensorrt_stub.fixtures import Server
    from tests.tensorrt_stub.world import World


def loads(world: World, content: str = "PLUGIN", absent: bool = False) -> dict[str, Any]:
    library = Path("libmine.so")
    if not absent:
        library.write_bytes(content.encode("latin-1"))
    request = networks.request(networks.float_artifact(), None, plugins=["libmine.so"])
    built = TensorRTBackend().build(request)
    TensorRTBackend(TensorRTOptions(plugins=(library,))).open(built.path).close()
    return {"recorded": built.details["plugins"], "digest": file_digest(library)}


def test_plugins_are_registered_before_parsing_and_opening(tensorrt: Server) -> None:
    answer = tensorrt.run(loads)
    assert answer.error is None, answer.error["trace"]
    calls = [call[0] for call in answer.calls]
    at = [index for index, name in enumerate(calls) if name == "initLibNvInferPlugins"]
    assert at[0] < calls.index("OnnxParser.parse_from_file") < at[1]
    assert at[1] < calls.index("Runtime.deserialize_cuda_engine")
    (loaded,) = answer.called(
        "IPluginRegistry.load_library"
    )  # the registry refuses to load it twice
    assert loaded[0].endswith("/libmine.so")
    assert calls.index("IPluginRegistry.load_library") < calls.index("OnnxParser.parse_from_file")
    recorded = {"file": "libmine.so", "digest": answer.value["digest"]}
    assert answer.value["recorded"] == [recorded]


def test_a_library_that_does_not_load_is_an_error(tensorrt: Server) -> None:
    error = tensorrt.run(loads, content="text").error
    assert error["exit_code"] == 2
    assert (
        "does not load the plugin library 'libmine.so': Unable to load library" in error["message"]
    )
    if sys.platform == "linux":
        assert error["message"].endswith("It is not a shared library of this system.")
        of_another = "\x7fELF\x01\x02\x01" + 11 * "\0" + "\xff\xff"
        message = tensorrt.run(loads, content=of_another).error["message"]
        assert message.endswith("It is built for another processor than this machine's.")
    assert "cannot be read" in tensorrt.run(loads, absent=True).error["message"]


def streams_plans(world: World) -> list[float]:
    """With every plan treated as large."""
    streams.LARGE = 0
    artifact = networks.float_artifact()
    built = TensorRTBackend().build(networks.request(artifact))
    session = TensorRTBackend().open(built.path)
    feeds = networks.batches(1, 1, seed=4)[0]
    difference = session.run(feeds)["scores"] - networks.reference(artifact).run(feeds)["scores"]
    session.close()
    return [float(abs(difference).max()), built.path.stat().st_size]


def test_large_plans_are_read_in_parts(tensorrt: Server) -> None:
    answer = tensorrt.run(streams_plans)
    assert answer.error is None, answer.error["trace"]
    difference, size = answer.value
    assert difference < 1e-5
    assert size > 2 * 4096  # so it took several parts
    assert answer.called("Runtime.deserialize_from_stream")
    assert not answer.called("Runtime.deserialize_cuda_engine")


def fills_the_disk(world: World) -> list[str]:
    """A part cannot be written; TensorRT does not notice."""
    written = []

    class Full:
        def __init__(self, stream: Any) -> None:
            self.stream = stream

        def write(self, data: bytes) -> int:
            written.append(len(data))
            raise OSError(28, "No space left on device")

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *error: object) -> None:
            self.stream.close()

    opened = Path.open

    def open_full(path: Path, mode: str = "r", **options: Any) -> Any:
        stream = opened(path, mode, **options)
        return Full(stream) if path.suffix == ".plan" and mode == "wb" else stream

    Path.open = open_full  # type: ignore[method-assign]
    try:
        TensorRTBackend().build(networks.request(networks.float_artifact()))
    finally:
        Path.open = opened  # type: ignore[method-assign]
    return []


def test_a_plan_that_cannot_be_written_is_an_error(tensorrt: Server) -> None:
    error = tensorrt.run(fills_the_disk).error
    assert error["exit_code"] == 2, error["trace"]
    assert "the plan cannot be written: No space left on device" in error["message"]
