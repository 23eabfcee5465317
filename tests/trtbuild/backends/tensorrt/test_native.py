"""Tests of every builder: the stand-in under NVIDIA's bindings 10 and 11, and the real one for RTX."""

from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx.parser
import onnx_ir as ir
import pytest

from tests.trtbuild.backends.tensorrt import networks
from tests.trtbuild.backends.tensorrt.test_shape_inputs import GIVEN, feeds, resizing
from trtbuild.artifact import Artifact
from trtbuild.backends.tensorrt import TensorRTBackend
from trtbuild.backends.tensorrt.network import parse_network
from trtbuild.backends.tensorrt.open_builder import OpenBuilder
from trtbuild.backends.tensorrt.profiles import add_profiles
from trtbuild.backends.tensorrt.refusals import find_refusals
from trtbuild.backends.tensorrt.timing_cache import load_timing_cache
from trtbuild.model import write_model
from trtbuild.options.tensorrt import TensorRTOptions
from trtbuild.runtime.tensorrt.engine import ShapeRange
from trtbuild.runtime.tensorrt.logger import Log, make_logger
from trtbuild.runtime.tensorrt.plugins import load_plugins
from trtbuild.runtime.tensorrt.versions import installed

if TYPE_CHECKING:
    from tests.tensorrt_stub.fixtures import Answer, Server
    from tests.tensorrt_stub.real import RealBuilder
    from tests.tensorrt_stub.world import World

    Native = Server | RealBuilder

STRANGE = """<ir_version: 10, opset_import: ["" : 21, "of.nobody" : 1]>
    net (float[1, 3, 8, 8] images) => (float[1, 3, 8, 8] a, float[1, 3, 8, 8] b) {
        [one] r = Relu(images)
        [two] a = of.nobody.Strange(r)
        [three] s = Sigmoid(r)
        [four] b = of.nobody.Strange(s)
    }"""


def _error(answer: Answer) -> dict[str, Any]:
    assert answer.error is not None, "the scenario ended well"
    return answer.error


def builds(world: World, form: str = "int8", batch: Any = 1, **settings: Any) -> dict[str, Any]:
    """Build one form of the small network; return its record."""
    artifact = networks.float_artifact(batch) if form == "float" else networks.calibrated(batch)
    if form == "fp16":
        artifact = networks.float_artifact(batch)
    request = networks.request(
        artifact, None, fp16="fp16" in form, quantization="explicit", **settings
    )
    engine = TensorRTBackend(product=world.product).build(request)
    names = ("quantization", "profiles", "flags", "kept_fp32", "profile_values")
    return {
        "files": sorted(path.name for path in Path().iterdir()),
        "bytes": engine.path.stat().st_size,
        "errors": list(engine.details["errors"]),
        **{name: engine.details[name] for name in names},
    }


@pytest.mark.parametrize("form", ["float", "fp16", "int8", "int8 fp16"])
def test_every_form_is_built(native: Native, form: str) -> None:
    built = native.value(builds, form=form)
    assert len(built["files"]) == 1
    assert built["bytes"] > 1000
    assert built["errors"] == []
    assert built["quantization"] == ("explicit" if "int8" in form else "none")


def test_dynamic_shapes_are_built_with_their_profiles(native: Native) -> None:
    shapes = ["images=1x3x8x8", "images=2x3x8x8:4x3x8x8:8x3x8x8"]
    built = native.value(builds, batch="N", shapes=shapes)
    assert [one["images"]["max"][0] for one in built["profiles"]] == [1, 8]


def makes_a_wrong_profile(world: World) -> None:
    """Bypasses the options, which refuse this themselves."""
    builder = OpenBuilder.start(installed(world.product))
    shapes = ShapeRange((4, 3, 8, 8), (1, 3, 8, 8), (8, 3, 8, 8))
    add_profiles(builder, [{"images": shapes}])


def test_a_profile_out_of_order_is_refused(native: Native) -> None:
    message = _error(native.run(makes_a_wrong_profile))["message"]
    assert message.startswith("TensorRT refuses optimization profile 0")


def makes_odd_profiles(world: World) -> dict[str, list[Any]]:
    """Bypasses the options: whether a native profile takes a call, is valid then, and can be added."""
    world.shape_inputs.add("size")
    builder = OpenBuilder.start(installed(world.product))
    calls = {
        "nothing": (),
        "shapes": ("set_shape", "images", (1, 3), (2, 3), (4, 3)),
        "no extent": ("set_shape", "images", (0, 3), (2, 3), (4, 3)),
        "out of order": ("set_shape", "images", (4, 3), (2, 3), (1, 3)),
        "ranks": ("set_shape", "images", (1,), (2, 3), (4, 3)),
        "negative": ("set_shape", "images", (-1, 3), (2, 3), (4, 3)),
        "too large": ("set_shape", "images", (1, 3), (2, 3), (2**31, 3)),
        "values": ("set_shape_input", "size", [1], [2], [4]),
        "values of no input": ("set_shape_input", "images", [1], [2], [4]),
        "values out of order": ("set_shape_input", "size", [4], [2], [1]),
        "no values": ("set_shape_input", "size", [], [], []),
        "negative values": ("set_shape_input", "size", [-1], [-1], [4]),
    }
    found = {}
    for what, call in calls.items():
        profile, taken = builder.native.create_optimization_profile(), True
        try:
            if call:
                getattr(profile, call[0])(*call[1:])
        except RuntimeError:
            taken = False
        added = builder.config.add_optimization_profile(profile) >= 0
        found[what] = [taken, bool(profile), added]
    return found


def test_every_library_judges_profiles_alike(native: Native) -> None:
    """Whether a call is accepted, the profile is valid afterwards, and it can be added."""
    fine, later, partly, at_once = (
        [True] * 3,
        [True, False, False],
        [False] * 3,
        [False, True, True],
    )
    assert native.value(makes_odd_profiles) == {
        "nothing": fine,
        "shapes": fine,
        "no extent": fine,
        "out of order": later,
        "ranks": later,
        "negative": at_once,
        "too large": partly,
        "values": fine,
        "values of no input": fine,
        "values out of order": partly,
        "no values": at_once,
        "negative values": fine,
    }


def builds_with_profile(world: World, shape: Any, values: Any) -> bool:
    """Bypasses the options: a network with an input of sizes, and a profile with their values."""
    world.shape_inputs.add("size")
    write_model(resizing().model, Path("net.onnx"))
    builder = OpenBuilder.start(installed(world.product))
    network, parser = parse_network(
        builder, Path("net.onnx"), strongly_typed=True, native_instance_norm=False
    )
    profile = builder.native.create_optimization_profile()
    profile.set_shape("x", *[shape] * 3)
    if values:
        profile.set_shape_input("size", *[values] * 3)
    assert builder.config.add_optimization_profile(profile) == 0
    plan = builder.native.build_serialized_network(network, builder.config)
    del parser
    return plan is not None


@pytest.mark.parametrize(
    ("shape", "values", "built"),
    [
        ((1, 2, 4, 4), (1, 2, 8, 8), True),
        ((1, 2, 4, 4), (8, 8), False),
        ((1, 2, 4, 4), (), False),
        ((2, 2, 4, 4), (1, 2, 8, 8), False),
    ],
    ids=["fits", "too few values", "no values", "another shape"],
)
def test_every_library_builds_with_the_same_profiles(
    native: Native, shape: Any, values: Any, built: bool
) -> None:
    assert native.value(builds_with_profile, shape=shape, values=values) == built


def builds_strange(world: World) -> None:
    world.unsupported.add("Strange")
    model: ir.Model = ir.from_proto(onnx.parser.parse_model(STRANGE))
    request = networks.request(Artifact("net", model, model), None)
    TensorRTBackend(product=world.product).build(request)


def test_the_build_names_what_the_parser_refuses(native: Native) -> None:
    error = _error(native.run(builds_strange))
    assert error["exit_code"] == 2
    assert "does not take 2 nodes of the network" in error["message"]
    for name in ("two", "four"):
        assert f"node '{name}' (Strange)" in error["message"]


def refuses(world: World) -> list[list[str]]:
    world.unsupported.add("Strange")
    onnx.save(onnx.parser.parse_model(STRANGE), "net.onnx")
    found = find_refusals(installed(world.product), Path("net.onnx"))
    return [[one.node, one.operator] for one in found.refused]


def test_the_check_names_the_same_nodes(native: Native) -> None:
    wanted = [["two", "of.nobody:Strange"], ["four", "of.nobody:Strange"]]
    assert native.value(refuses) == wanted


def takes(world: World) -> int:
    write_model(networks.calibrated().quantized, Path("net.onnx"))
    return len(find_refusals(installed(world.product), Path("net.onnx")).refused)


def test_our_form_is_taken(native: Native) -> None:
    assert native.value(takes) == 0


def fails_and_lists(world: World) -> list[str]:
    with pytest.raises(Exception, match="does not take"):
        builds_strange(world)
    return [path.name for path in Path().iterdir()]


def test_nothing_is_written_when_a_build_fails(native: Native) -> None:
    assert native.value(fails_and_lists) == []


def test_settings_are_taken_and_read_back(native: Native) -> None:
    settings = {
        "workspace": 1 << 28,
        "optimization_level": 1,
        "max_tactics": 8,
        "aux_streams": 0,
        "tf32": False,
        "strict_nans": True,
        "sparse": True,
    }
    built = native.value(builds, **settings)
    assert {"STRICT_NANS", "SPARSE_WEIGHTS"} <= set(built["flags"])
    assert "TF32" not in built["flags"]


SETTINGS = {
    "profiling_verbosity": "ProfilingVerbosity",
    "hardware_compatibility_level": "HardwareCompatibilityLevel",
    "runtime_platform": "RuntimePlatform",
    "tiling_optimization_level": "TilingOptimizationLevel",
    "default_device_type": "DeviceType",
}


def sets_beyond_enumerations(world: World, value: int) -> dict[str, Any]:
    """Bypasses the options: values outside of an enumeration."""
    builder = OpenBuilder.start(installed(world.product))
    module, config = installed(world.product).module, builder.config
    mask, found = config.flags, {}
    for name, enumeration in SETTINGS.items():
        before = getattr(config, name)
        setattr(config, name, getattr(module, enumeration)(value))
        found[name] = getattr(config, name) == before
        with pytest.raises(TypeError):
            setattr(config, name, value)
        with pytest.raises(TypeError):
            setattr(config, name, module.BuilderFlag.TF32)
    config.set_flag(module.BuilderFlag(value))
    found["flag"] = not config.get_flag(module.BuilderFlag(value)) and config.flags == mask
    config.clear_flag(module.BuilderFlag(value))
    config.flags = 2**32 - 1
    found["mask"] = config.flags == mask
    pool = module.MemoryPoolType(value)
    config.set_memory_pool_limit(pool, 8192)
    found["pool"] = config.get_memory_pool_limit(pool) == 0
    found["errors"] = len(builder.log.errors) >= len(SETTINGS) + 6
    parser = module.OnnxParser(builder.native.create_network(0), builder.logger)
    parser.set_flag(module.OnnxParserFlag(value))
    found["parser accepts it"] = parser.flags == 1 | 1 << value % 32
    found["network"] = builder.native.create_network(1 << 20) is None
    return found


@pytest.mark.parametrize("value", [-1, 40, 99])
def test_every_library_refuses_values_outside_of_enumerations(native: Native, value: int) -> None:
    found = native.value(sets_beyond_enumerations, value=value)
    assert [what for what, right in found.items() if not right] == []


def test_a_pool_that_is_silently_refused_is_noticed(native: Native) -> None:
    message = _error(native.run(builds, pools={"DLA_LOCAL_DRAM": 5}))["message"]
    assert "5 bytes for the memory pool DLA_LOCAL_DRAM" in message


def test_a_member_that_the_version_lacks_is_named(native: Native) -> None:
    message = _error(native.run(builds, pools={"NO_SUCH_POOL": 4096}))["message"]
    assert "has no MemoryPoolType NO_SUCH_POOL" in message


def shows(world: World) -> list[Any]:
    seen: list[Any] = []
    request = networks.request(networks.calibrated(), None, quantization="explicit")
    request = showing(request, lambda *step: seen.append(step))
    TensorRTBackend(product=world.product).build(request)
    return seen


def showing(request: Any, progress: Any) -> Any:
    return dataclasses.replace(request, progress=progress)


def test_phases_are_shown_with_their_steps(native: Native) -> None:
    seen = native.value(shows)
    assert seen[0][1] == 0
    ends = [step for step in seen if step[0] == seen[0][0] and step[1] == step[2]]
    assert ends
    assert len({phase for phase, _, _ in seen}) > 1
    assert all(0 <= done <= total for _, done, total in seen)


def is_interrupted(world: World) -> list[str]:
    """Ctrl-C at the first displayed step; Python handles it in a callback of the bindings."""
    asked: list[bool] = []

    def interrupt(*step: Any) -> None:
        if not asked:
            asked.append(True)
            os.kill(os.getpid(), signal.SIGINT)

    # background jobs of a shell ignore Ctrl-C, and their children inherit that
    before = signal.default_int_handler
    signal.signal(signal.SIGINT, before)
    request = networks.request(networks.calibrated(), None, quantization="explicit")
    try:
        TensorRTBackend(product=world.product).build(showing(request, interrupt))
    except KeyboardInterrupt:
        restored = signal.getsignal(signal.SIGINT) is before
        return [*(path.name for path in Path().iterdir()), f"handler restored: {restored}"]
    return ["not interrupted"]


def test_ctrl_c_cancels_the_build(native: Native) -> None:
    assert native.value(is_interrupted) == ["handler restored: True"]


def breaks(world: World) -> None:
    def fail(*step: Any) -> None:
        raise ZeroDivisionError("a bug in what shows progress")

    request = networks.request(networks.calibrated(), None, quantization="explicit")
    TensorRTBackend(product=world.product).build(showing(request, fail))


def test_an_error_in_the_display_is_not_swallowed(native: Native) -> None:
    assert _error(native.run(breaks))["type"] == "ZeroDivisionError"


def resizes(world: World, sizes: Any = None, **settings: Any) -> list[Any]:
    world.shape_inputs.add("size")
    data = None if sizes is None else [feeds(*extents) for extents in sizes]
    request = networks.request(resizing(), data, **settings)
    return list(TensorRTBackend(product=world.product).build(request).details["profile_values"])


def test_values_of_a_shape_input_reach_the_builder(native: Native) -> None:
    bounds = {"min": [1, 2, 2, 2], "opt": [1, 2, 4, 4], "max": [1, 2, 8, 8]}
    assert native.value(resizes, shape_values=list(GIVEN)) == [{"size": bounds}]


def test_samples_bound_the_values_of_a_shape_input(native: Native) -> None:
    bounds = {"min": [1, 2, 2, 2], "opt": [1, 2, 4, 4], "max": [1, 2, 8, 6]}
    given = {"sizes": [(2, 6), (4, 4), (8, 2), (4, 4)], "shapes": ["x=1x2x4x4", "x=1x2x4x4"]}
    assert native.value(resizes, **given) == [{"size": bounds}]


def test_a_shape_input_without_bounds_is_named(native: Native) -> None:
    message = _error(native.run(resizes))["message"]
    assert "the input 'size' holds a shape" in message


def reads_a_damaged_cache(world: World) -> list[Any]:
    builder = OpenBuilder.start(installed(world.product))
    path = Path("timing.cache")
    path.write_bytes(b"no timing cache " * 50)
    options = TensorRTOptions(timing_cache=path)
    try:
        load_timing_cache(builder.config, options, builder.log)
    except Exception as error:  # noqa: BLE001  its kind is looked at
        return [type(error).__name__, str(error), path.read_bytes() == b"no timing cache " * 50]
    return []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_damaged_timing_cache_is_an_error_and_stays(native: Native) -> None:
    kind, message, unchanged = native.value(reads_a_damaged_cache)
    assert kind == "InputError"
    assert "Failed to deserialize timing cache" in message
    assert unchanged


def loads_no_library(world: World) -> None:
    tensorrt, log = installed(world.product), Log()
    logger = make_logger(tensorrt, log)
    builder = tensorrt.module.Builder(logger)
    Path("libnone.so").write_text("text")
    load_plugins(tensorrt, logger, log, [Path("libnone.so")])
    del builder


def test_a_plugin_library_that_does_not_load_is_an_error(native: Native) -> None:
    message = _error(native.run(loads_no_library))["message"]
    assert "does not load the plugin library 'libnone.so': " in message
    assert "Unable to load library" in message
