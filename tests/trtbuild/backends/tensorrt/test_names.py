"""Every name of TensorRT's Python interface that the sources use exists, on 10 and on 11."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.tensorrt_stub.fixtures import Server
    from tests.tensorrt_stub.world import World
    from trtbuild.runtime.tensorrt.versions import TensorRT

PROJECT = Path(__file__).resolve().parents[4]
SOURCES = [
    *sorted((PROJECT / "trtbuild" / "backends" / "tensorrt").glob("*.py")),
    *sorted((PROJECT / "trtbuild" / "runtime" / "tensorrt").glob("*.py")),
    PROJECT / "calibrators" / "tensorrt.py",
]

# Names in one version only; the code checks for them before use.
ONLY_10 = {"int8_calibrator", "set_calibration_profile", "IInt8EntropyCalibrator2"}
ONLY_11 = {"build_route"}
# Attributes of the project with the name of an old member of ILayer or of an algorithm.
OUR_OWN = {"precision", "tactic"}
ONLY_10_MEMBERS = {("BuilderFlag", "INT8"), ("BuilderFlag", "FP16")}


def attributes() -> set[str]:
    """Every attribute that the sources read or set, as text or as a literal of getattr or setattr."""
    found = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                found.add(node.attr)
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                takes_a_name = node.func.id in ("_set_and_read_back", "hasattr", "getattr")
                if takes_a_name and isinstance(node.args[1], ast.Constant):
                    found.add(node.args[1].value)
    return found


def enum_members() -> set[tuple[str, str]]:
    """Every ``tensorrt.member("Enum", "NAME")`` with literal names."""
    found = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and ast.unparse(node.func).endswith("member")):
                continue
            words = tuple(a.value for a in node.args if isinstance(a, ast.Constant))
            if len(words) == len(node.args):
                found.add(words)
    return found


def surface(world: World) -> dict[str, Any]:
    """All members of all classes, and all enums, of the installed bindings."""
    import tensorrt

    members: set[str] = set(dir(tensorrt))
    enums = {}
    for name in dir(tensorrt):
        kind = getattr(tensorrt, name)
        if isinstance(kind, type):
            members |= set(dir(kind))
            if hasattr(kind, "__members__"):
                enums[name] = sorted(kind.__members__)
    python = set(dir(object)) | set(dir(dict)) | set(dir(list)) | set(dir(str)) | set(dir(type))
    return {"members": sorted(members - python), "enums": enums}


def test_names_are_in_both_bindings(tensorrt10: Server, tensorrt11: Server) -> None:
    of_10, of_11 = tensorrt10.value(surface), tensorrt11.value(surface)
    used = attributes()
    assert {"execute_async_v3", "set_timing_cache", "tiling_optimization_level"} <= used
    members_10, members_11 = set(of_10["members"]), set(of_11["members"])
    assert used & (members_10 - members_11) <= ONLY_10 | OUR_OWN
    assert used & (members_11 - members_10) <= ONLY_11


def test_enum_members_are_in_both_bindings(tensorrt10: Server, tensorrt11: Server) -> None:
    used = enum_members()
    assert ("TensorIOMode", "INPUT") in used or ("DeviceType", "DLA") in used
    for server, missing in ((tensorrt10, set()), (tensorrt11, ONLY_10_MEMBERS)):
        enums = server.value(surface)["enums"]
        absent = {(e, name) for e, name in used if name not in enums.get(e, ())}
        assert absent <= missing | {("NetworkDefinitionCreationFlag", "STRONGLY_TYPED")}


def test_names_are_in_the_bindings_for_rtx(tensorrt11: Server, rtx: TensorRT) -> None:
    of_11 = set(tensorrt11.value(surface)["members"])
    kinds = [kind for kind in vars(rtx.module).values() if isinstance(kind, type)]
    of_rtx = set(dir(rtx.module)).union(*(dir(kind) for kind in kinds))
    assert attributes() & (of_11 - of_rtx) <= OUR_OWN | {"allocate", "tensorrt"}
    enums = {kind.__name__: kind.__members__ for kind in kinds if hasattr(kind, "__members__")}
    absent = {(enum, name) for enum, name in enum_members() if name not in enums.get(enum, ())}
    assert absent <= ONLY_10_MEMBERS


@pytest.mark.parametrize("version", ["10.16", "11.4"])
def test_flags_of_the_options_are_in_the_published_surface(shared: Path, version: str) -> None:
    """Names built at run time from options: flags, levels, verbosities."""
    from trtbuild.backends.tensorrt.config import flag_names
    from trtbuild.options import tensorrt as options

    listed = json.loads((shared / "tensorrt-api" / f"{version}.json").read_text())["enums"]
    everything = options.TensorRTOptions(
        version_compatible=True, exclude_lean_runtime=True, sparse=True, strip_plan=True,
        weight_streaming=True, strict_nans=True, editable_timing_cache=True, lock="x", dla=0,
        timing_cache=Path("timing.cache"),
    )  # fmt: skip
    flags = set(flag_names(everything)) | {"TF32", "REFIT", "REFIT_IDENTICAL", "REFIT_INDIVIDUAL"}
    assert flags <= listed["BuilderFlag"]["values"].keys()
    for enum, kind in {
        "ProfilingVerbosity": options.Verbosity,
        "TilingOptimizationLevel": options.Tiling,
        "HardwareCompatibilityLevel": options.HardwareCompatibility,
        "RuntimePlatform": options.RuntimePlatform,
    }.items():
        assert {str(member).upper() for member in kind} == listed[enum]["values"].keys()


@pytest.mark.parametrize("version", ["10.16", "11.4"])
def test_names_are_in_the_published_surface(shared: Path, version: str) -> None:
    listed = json.loads((shared / "tensorrt-api" / f"{version}.json").read_text())
    other = "11.4" if version == "10.16" else "10.16"
    elsewhere = json.loads((shared / "tensorrt-api" / f"{other}.json").read_text())

    def names(surface: dict[str, Any]) -> set[str]:
        kinds = surface["classes"].values()
        return {n for k in kinds for n in (*k.get("methods", ()), *k.get("properties", ()))}

    absent = attributes() & names(elsewhere) - names(listed)
    assert absent <= (ONLY_11 if version == "10.16" else ONLY_10 | OUR_OWN)
