"""The settings of the native side for one scenario, and its record of the calls."""

from __future__ import annotations

import ctypes
import json
from dataclasses import dataclass, field
from typing import Any

from tests.tensorrt_stub import slots
from tests.tensorrt_stub.native import Native, i32, invoke, ptr, text
from trtbuild.runtime.tensorrt.versions import TENSORRT, Product

CREATE = ctypes.CFUNCTYPE(ptr, ctypes.c_int, ptr, ptr, ctypes.c_int)
MAGIC = b"STANDIN PLAN "
SEVERITIES = ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE")


@dataclass
class World:
    """The native TensorRT that a scenario meets.

    Attributes:
        major: 10 or 11.
        number: version as TensorRT writes it, 101601 for 10.16.1.
        calls: every virtual call, ``(interface.member, arguments...)``, oldest first.
        failing: members that do nothing -> their return value (0 is also null and false).
        says: members that log when they are called -> severity and text.
        unsupported: op types that the parser refuses.
        device: name of the GPU that plans are built for.
        errors: tracebacks of bugs in the stand-in itself; must stay empty.
        batches: the calibrator's batches, read from the device memory, in order.
        on_step: called before each step of the build; may raise or call back.
        loses: precisions ("int8", "fp16") that engines lack although they were requested.
        dla_cores: how many DLA cores there are.
        early_end: number of batches after which the build stops reading, or None.
        shape_inputs: inputs whose values are shapes, which TensorRT reads on the host.
        product: the product that this stand-in replaces.
    """

    major: int
    number: int
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    failing: dict[str, int] = field(default_factory=dict)
    says: dict[str, tuple[str, str]] = field(default_factory=dict)
    unsupported: set[str] = field(default_factory=set)
    device: str = "Stand-in GPU 0"
    errors: list[str] = field(default_factory=list)
    batches: list[dict[str, Any]] = field(default_factory=list)
    on_step: Any = None
    early_end: int | None = None
    loses: set[str] = field(default_factory=set)
    shape_inputs: set[str] = field(default_factory=set)
    dla_cores: int = 0
    logger: int = 0
    product: Product = TENSORRT

    def log(self, severity: str, message: str) -> None:
        if self.logger:
            number = SEVERITIES.index(severity)
            invoke(
                self.logger, slots.LOG[self.major], None, (i32, number), (text, message.encode())
            )

    def holds(self, enumeration: str, value: int) -> bool:
        """Whether a value is in the range of an enumeration; if not, writes a line to the log."""
        import tensorrt

        members = getattr(tensorrt, enumeration).__members__.values()
        if 0 <= value <= max(int(member) for member in members):
            return True
        self.log("ERROR", f"Parameter check failed, condition: {value} is a {enumeration}")
        return False

    def called(self, member: str) -> list[tuple[Any, ...]]:
        """The arguments of every call of a member."""
        return [call[1:] for call in self.calls if call[0] == member]


def install(library: ctypes.CDLL, major: int, number: int) -> World:
    """Connect `library`, the stand-in libnvinfer, to a new world."""
    import tensorrt

    from tests.tensorrt_stub.builder import Builder
    from tests.tensorrt_stub.network import OnnxParser, PluginRegistry
    from tests.tensorrt_stub.runtime import OnnxParserRefitter, Refitter, Runtime

    world = World(major, number)
    kinds: list[Any] = [Builder, Runtime, OnnxParser, Refitter, OnnxParserRefitter, PluginRegistry]

    def create(kind: int, first: int | None, logger: int, version: int) -> int:
        if kind == len(kinds):
            world.calls.append(("initLibNvInferPlugins",))
            return 0
        world.logger = logger or world.logger
        name = kinds[kind].interface
        world.calls.append((f"create.{name}", version))
        # The real library makes a Runtime without a driver, too; it fails when it is first used.
        if f"create.{name}" in world.failing and name != "Runtime":
            world.log("ERROR", f"CUDA initialization failure with error: 35 while making {name}")
            return 0
        made: Native = kinds[kind](world, first) if kind in (2, 3, 4) else kinds[kind](world)
        return made.address

    kept = CREATE(create)
    Native._kept.append(kept)
    library.standin_set_create(kept)
    library.standin_set_library_version(number)
    tensorrt.__spec__ = None  # the stand-in works in this process only, so builds stay here
    return world


def plan_of(header: dict[str, Any], model: bytes) -> bytes:
    """Pack a plan: a line with its kind and length, a line of JSON, the ONNX file."""
    content = json.dumps(header).encode() + b"\n" + model
    return MAGIC + b"%012d\n" % len(content) + content


def read_plan(plan: bytes) -> tuple[dict[str, Any], bytes]:
    magic, _, rest = plan.partition(b"\n")
    if not magic.startswith(MAGIC):
        raise ValueError("not a plan")
    header, _, model = rest.partition(b"\n")
    return json.loads(header), model
