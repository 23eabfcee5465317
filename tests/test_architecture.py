"""The import rules and sizes of docs/architecture.md, read from the sources."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent

# Stages in the order of the pipeline: each may import those before it.
STAGES = (
    *("pytorch", "model", "graph", "data", "calibration", "quantization", "migration"),
    *("verification", "latency", "report"),
)
# What every stage may import besides.
SHARED = ("artifact", "errors", "files", "progress", "backends.base")

# Package -> where it may be imported, and only inside functions.
OPTIONAL = {
    "torch": ("trtbuild/pytorch/", "trtbuild/cuda/torch.py"),
    "torch_pruning": ("trtbuild/pytorch/",),
    "safetensors": ("trtbuild/pytorch/",),
    "tensorrt": ("trtbuild/backends/tensorrt/", "calibrators/tensorrt.py"),
    "tensorrt_bindings": ("trtbuild/backends/tensorrt/",),
    "pycuda": ("trtbuild/cuda/",),
    "cuda": ("trtbuild/cuda/",),
    "ray": ("trtbuild/calibration/",),
    "matplotlib": ("calibrators/plots.py",),
}

# These may import torch at their top; who imports them does it inside a function.
FOR_TORCH = "trtbuild/pytorch/"
WITHOUT_TORCH = ("trtbuild.pytorch", "trtbuild.pytorch.spec")

LARGEST_FILE = 500
LONGEST_FUNCTION = 60


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


def imports(path, *, runtime_only=False):
    """Give (module, whether at import time) of every import; of modules only for the type checker: none
    with `runtime_only`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            typing |= {id(child) for child in ast.walk(node)}
    inside = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in typing and runtime_only:
            continue
        at_import = id(node) not in inside and id(node) not in typing
        if isinstance(node, ast.Import):
            yield from ((alias.name, at_import) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names = [alias.name for alias in node.names]
            yield from ((f"{node.module}.{name}", at_import) for name in names)


def stage_of(module):
    parts = module.split(".")
    return parts[1] if parts[0] == "trtbuild" and len(parts) > 1 and parts[1] in STAGES else None


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


def test_stages_import_earlier_stages_only():
    found = []
    for path in sources():
        importer = stage_of(module_of(path))
        for module, _ in imports(path, runtime_only=True):
            imported = stage_of(module)
            if importer and imported and STAGES.index(imported) > STAGES.index(importer):
                found.append(f"{name_of(path)} imports {module}")
    assert not found


def test_stages_know_neither_pipeline_nor_command_line():
    above = ("cli", "pipeline", "manifest", "recipe", "bench", "verify")
    found = [
        f"{name_of(path)} imports {module}"
        for path in sources()
        if stage_of(module_of(path)) or module_of(path).startswith("trtbuild.backends")
        for module, _ in imports(path)
        if module.startswith("trtbuild.") and module.split(".")[1] in above
    ]
    assert not found


def test_nothing_imports_the_command_line_but_itself():
    found = [
        f"{name_of(path)} imports {module}"
        for path in sources()
        if not name_of(path).startswith("trtbuild/cli/") and path.name != "__main__.py"
        for module, _ in imports(path)
        if module.startswith("trtbuild.cli")
    ]
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


def test_nobody_loads_torch_by_importing_our_own_modules():
    found = [
        f"{name_of(path)} imports {module}"
        for path in sources()
        if not name_of(path).startswith(FOR_TORCH)
        for module, at_import in imports(path)
        if at_import and module.startswith("trtbuild.pytorch")
        if not module.startswith("trtbuild.pytorch.spec")
    ]
    assert not found


@pytest.mark.parametrize("path", sources(), ids=name_of)
def test_files_and_functions_are_small(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LARGEST_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and not is_table(node):
            lines = node.end_lineno - node.lineno + 1
            docstring = node.body[0] if ast.get_docstring(node) else None
            if docstring is not None:
                lines -= docstring.end_lineno - docstring.lineno + 1
            assert lines <= LONGEST_FUNCTION, f"{node.name} has {lines} lines"


def is_table(function):
    """Whether a function only gives a literal, such as the list of all passes."""
    body = [one for one in function.body if not isinstance(one, ast.Expr)]
    return len(body) == 1 and isinstance(body[0], ast.Return)


def test_the_page_names_every_place():
    page = (PROJECT / "docs" / "architecture.md").read_text(encoding="utf-8")
    packages = [path.parent for path in (PROJECT / "trtbuild").glob("*/__init__.py")]
    assert len(packages) > 8
    for package in packages:
        assert f"`trtbuild/{package.name}/`" in page
