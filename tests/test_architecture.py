"""The import rules and sizes of docs/architecture.md, read from the sources."""

from __future__ import annotations

import ast
import functools
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent

# Every package and loose file of trtbuild, the lowest first. Each may import those above it in this list and
# no others; imports for the type checker count, too.
LAYERS = (
    *(
        "enums",
        "errors",
        "exponential",
        "machine",
        "temporaries",
        "files",
        "progress",
        "whereabouts",
        "foreign_warnings",
        "visible",
        "wording",
        "titles",
        "json_codec",
        "toml_files",
        "plugins",
        "options",
    ),
    *("model", "runtime", "data"),
    "gradients",
    *("target", "plan", "artifact"),
    *("passes", "pytorch", "calibration", "quantization", "migration", "backends"),
    *("verification", "latency", "search"),
    *(
        "recipes",
        "manifest",
        "result",
        "diff",
        "plots",
    ),
    *(
        "jobs",
        "report",
        "api",
        "pytest_plugin",
        "cli",
        "__init__",
        "__main__",
    ),
)

# Package -> places that may import it, only inside functions.
OPTIONAL = {
    "torch": ("trtbuild/pytorch/", "trtbuild/runtime/cuda/torch.py"),
    "torch_pruning": ("trtbuild/pytorch/",),
    "safetensors": ("trtbuild/pytorch/",),
    "tensorrt": ("trtbuild/runtime/tensorrt/", "calibrators/tensorrt.py"),
    "tensorrt_bindings": (),
    "tensorrt_rtx": (),
    "tensorrt_rtx_bindings": (),
    "pycuda": ("trtbuild/runtime/cuda/",),
    "cuda": ("trtbuild/runtime/cuda/",),
    "ray": ("trtbuild/runtime/ray_cluster.py",),
}

# These may import torch at their top; other modules import them inside functions.
FOR_TORCH = "trtbuild/pytorch/"
WITHOUT_TORCH = ("trtbuild.pytorch", "trtbuild.pytorch.spec", "trtbuild.pytorch.installed")

# Facts that belong to one file: text -> the only file that may contain it.
IN_ONE_PLACE = {
    "ir.load(": "trtbuild/model/reading.py",
    "ir.save(": "trtbuild/model/writing.py",
    "InferenceSession(": "trtbuild/runtime/onnxruntime.py",
    "sched_getaffinity": "trtbuild/machine.py",
    "cpu_count": "trtbuild/machine.py",
    "PackageNotFoundError": "trtbuild/machine.py",
    "find_spec": "trtbuild/machine.py",
    "/proc/cpuinfo": "trtbuild/machine.py",
    "entry_points(": "trtbuild/plugins.py",
}

LARGEST_FILE = 500
LONGEST_FUNCTION = 60


@functools.cache
def sources():
    return sorted(
        path
        for package in ("trtbuild", "calibrators")
        for path in (PROJECT / package).rglob("*.py")
    )


def name_of(path):
    return path.relative_to(PROJECT).as_posix()


def module_of(path):
    parts = path.relative_to(PROJECT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def imports(path):
    """Return (module, whether at import time) of every import."""
    tree = tree_of(path)
    typing = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            typing |= {id(child) for child in ast.walk(node)}
    inside = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for child in ast.walk(node)
    }
    found = []
    for node in ast.walk(tree):
        at_import = id(node) not in inside and id(node) not in typing
        if isinstance(node, ast.Import):
            found += [(alias.name, at_import) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found += [(f"{node.module}.{alias.name}", at_import) for alias in node.names]
    return tuple(found)


def layer_of(path):
    return path.relative_to(PROJECT / "trtbuild").parts[0].removesuffix(".py")


def layer_named(module):
    """The layer that an import such as ``trtbuild.model.names`` names; None outside of trtbuild."""
    parts = module.split(".")
    if parts[0] != "trtbuild":
        return None
    return parts[1] if parts[1] in LAYERS else "__init__"


def test_every_package_and_loose_file_is_a_layer():
    assert {layer_of(path) for path in sources() if "trtbuild" in path.parts} <= set(LAYERS)
    there = {path.name.removesuffix(".py") for path in (PROJECT / "trtbuild").iterdir()}
    assert set(LAYERS) <= there


def test_layers_import_lower_layers_only():
    found = []
    for path in sources():
        if not name_of(path).startswith("trtbuild/"):
            continue
        own = layer_of(path)
        for module, _ in imports(path):
            other = layer_named(module)
            if other not in (None, own) and LAYERS.index(other) >= LAYERS.index(own):
                found.append(f"{name_of(path)} imports {module}")
    assert not found


def test_no_two_modules_import_each_other():
    paths = {module_of(path): path for path in sources()}
    graph = {module: imported_modules(path, paths) for module, path in paths.items()}
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' -> '.join(error.args[1])}")


def imported_modules(path, known):
    """The project's modules that `path` imports: a submodule where it names one, else the package."""
    found = {
        module if module in known else module.rpartition(".")[0] for module, _ in imports(path)
    }
    return {module for module in found if module in known and module != module_of(path)}


def test_calibrators_know_numbers_only():
    found = {
        (name_of(path), module)
        for path in sources()
        if name_of(path).startswith("calibrators/")
        for module, _ in imports(path)
        if module.split(".")[0]
        in {"trtbuild", "onnx", "onnx_ir", "onnxruntime", "onnxscript", "click"}
    }
    assert not found


def test_optional_packages_stay_in_their_places():
    found = []
    for path in sources():
        for module, at_import in imports(path):
            places = OPTIONAL.get(module.split(".")[0])
            if places is None:
                continue
            if not name_of(path).startswith(places):
                found.append(f"{name_of(path)} imports {module}")
            free = name_of(path).startswith(FOR_TORCH) and module_of(path) not in WITHOUT_TORCH
            if at_import and not free:
                found.append(f"{name_of(path)} imports {module} when it is imported itself")
    assert not found


@pytest.mark.parametrize("text", IN_ONE_PLACE)
def test_only_one_file_contains_the_text(text):
    found = {name_of(path) for path in sources() if text in path.read_text(encoding="utf-8")}
    assert found == {IN_ONE_PLACE[text]}


def test_onnx_ir_is_loaded_by_one_module():
    found = {
        name_of(path)
        for path in sources()
        for module, at_import in imports(path)
        if at_import and module.split(".")[0] == "onnx_ir"
    }
    assert found == {"trtbuild/model/graph_library.py"}


def test_importing_our_modules_loads_no_torch():
    found = [
        f"{name_of(path)} imports {module}"
        for path in sources()
        if not name_of(path).startswith(FOR_TORCH)
        for module, at_import in imports(path)
        if at_import and module.startswith("trtbuild.pytorch")
        if not module.startswith("trtbuild.pytorch.spec")
    ]
    assert not found


def test_files_and_functions_are_small():
    assert [told for path in sources() for told in large_parts_of(path)] == []


def large_parts_of(path):
    text = path.read_text(encoding="utf-8")
    if len(text.splitlines()) > LARGEST_FILE:
        yield f"{name_of(path)} has more than {LARGEST_FILE} lines"
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef) and not is_table(node):
            lines = node.end_lineno - node.lineno + 1
            docstring = node.body[0] if ast.get_docstring(node) else None
            if docstring is not None:
                lines -= docstring.end_lineno - docstring.lineno + 1
            if lines > LONGEST_FUNCTION:
                yield f"{node.name} of {name_of(path)} has {lines} lines"


def is_table(function):
    """Whether a function only returns a literal, such as the list of all passes."""
    body = [one for one in function.body if not isinstance(one, ast.Expr)]
    return len(body) == 1 and isinstance(body[0], ast.Return)


def test_the_page_names_every_place():
    page = (PROJECT / "docs" / "architecture.md").read_text(encoding="utf-8")
    packages = [path.parent for path in (PROJECT / "trtbuild").glob("*/__init__.py")]
    assert len(packages) > 8
    for package in packages:
        assert f"`trtbuild/{package.name}/`" in page


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_files_that_pages_for_developers_name_are_there(page):
    named = set(re.findall(r"`([\w/]+/\w+\.\w+)`", (PROJECT / page).read_text(encoding="utf-8")))
    assert len(named) > 30
    assert {name.partition("/")[0] for name in named} >= {"trtbuild", "tests"}
    roots = [PROJECT / root for root in ("", "trtbuild", "tests", "tests/trtbuild")]
    assert {one for one in named if not any((root / one).is_file() for root in roots)} == set()


def test_the_page_names_every_file_about_networks():
    page = (PROJECT / "docs" / "architecture.md").read_text(encoding="utf-8")
    [row] = re.findall(
        r"^\| `trtbuild/model/` \|.*one file a subject: (.*) \|$", page, re.MULTILINE
    )
    files = {path.stem for path in (PROJECT / "trtbuild" / "model").glob("*.py")} - {"__init__"}
    assert set(re.findall(r"`(\w+)`", row)) == files


def test_a_public_method_says_what_it_does_or_its_base_does():
    of_files = {path: classes_in(path) for path in sources()}
    classes = {one.name: one for found in of_files.values() for one in found}
    protocols = {}
    for path, found in of_files.items():
        for one in found:
            if "Protocol" in bases_of(one):
                protocols.setdefault(path.parent, set()).update(described_in(one))
    found = [
        f"{name_of(path)}: {one.name}.{method}"
        for path, own in of_files.items()
        for one in own
        for method in undescribed_in(one) - protocols.get(path.parent, set())
        if not inherits(one, method, classes)
    ]
    assert not found


def classes_in(path):
    return [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.ClassDef)]


def bases_of(cls):
    """Names of the bases, without their parameters; names from other packages have a dot."""
    return {ast.unparse(base).split("[")[0] for base in cls.bases}


def methods_of(cls):
    return [node for node in cls.body if isinstance(node, ast.FunctionDef)]


def described_in(cls):
    return {method.name for method in methods_of(cls) if ast.get_docstring(method)}


def undescribed_in(cls):
    public = {method.name for method in methods_of(cls) if not method.name.startswith("_")}
    return public - described_in(cls)


def inherits(cls, method, classes):
    """Whether a base describes `method`; bases of other packages count as documented."""
    for base in bases_of(cls) - {"ABC", "Generic", "Protocol", "object"}:
        if base not in classes or method in described_in(classes[base]):
            return True
        if inherits(classes[base], method, classes):
            return True
    return False
