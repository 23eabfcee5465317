"""Imports: all that is not optional works without optional packages, and nothing heavy is loaded early."""

from __future__ import annotations

import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import calibrators
import trtbuild

SAMPLE = Path(__file__).resolve().parent.parent / "samples" / "quickstart"
OPTIONAL = ("tensorrt", "tensorrt_bindings", "pycuda", "cuda", "torch", "ray")
BLOCK = f"""
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {OPTIONAL}:
            raise ModuleNotFoundError(f"No module named '{{name}}'", name=name)
sys.meta_path.insert(0, Blocked())
"""


def run(code, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", BLOCK + code, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_module_imports_without_optional_packages():
    modules = [
        module.name
        for package in (calibrators, trtbuild)
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + ".")
        if not module.name.endswith("__main__")
        if not module.name.startswith("trtbuild.pytorch.") or module.name.endswith(".spec")
    ]
    assert len(modules) > 100
    run("import importlib\nfor name in sys.argv[1:]: importlib.import_module(name)", *modules)


def test_importing_the_packages_loads_nothing_heavy():
    heavy = (*OPTIONAL, "onnxruntime", "llvmlite", "onnxscript", "onnx")
    loaded = run(
        f"import trtbuild, calibrators\nprint([name for name in {heavy} if name in sys.modules])"
    )
    assert loaded.strip() == "[]"


def test_onnxruntime_sends_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    for name in ("TMPDIR", "HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    run("import trtbuild, onnxruntime")
    assert list(tmp_path.iterdir()) == []


def test_the_process_that_runs_networks_apart_loads_no_graph_library():
    heavy = (*OPTIONAL, "llvmlite", "onnx", "onnx_ir", "sympy")
    loaded = run(
        "import sys, trtbuild.runtime.isolated_worker\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    assert loaded.strip() == "[]"


def test_help_loads_no_backend():
    loaded = run(
        "from trtbuild.cli.main import run\nassert run(['--help']) == 0\n"
        f"print([n for n in {(*OPTIONAL, 'onnxruntime', 'onnx')} if n in sys.modules])"
    )
    assert loaded.strip().endswith("[]")


def test_a_quiet_command_loads_nothing_that_prints():
    loaded = run(
        "from trtbuild.cli.main import run\n"
        "for words in (['--quiet'], []):\n"
        "    assert run(['optimize', '--list', *words]) == 0\n"
        "    print('rich' in sys.modules)"
    )
    assert loaded.splitlines()[0] == "False"
    assert loaded.splitlines()[-1] == "True"


# Commands whose help loads no heavy module; the others read caches and ranges at their top.
QUICK = (
    *("engine", "export", "prune", "optimize", "calibrate", "quantize", "verify", "bench"),
    *("inspect", "doctor", "cache", "crosscheck"),
)


def test_help_of_a_command_loads_nothing_heavy():
    heavy = (*OPTIONAL, "onnxruntime", "onnx", "onnx_ir", "sympy", "llvmlite")
    loaded = run(f"""
from trtbuild.cli.main import run
for command in {QUICK}:
    assert run([command, '--help']) == 0
    loaded = [name for name in {heavy} if name in sys.modules]
    if loaded:
        break
print(command, loaded)""")
    assert loaded.strip().endswith(f"{QUICK[-1]} []")


def test_a_command_makes_its_own_recipe_only():
    loaded = run(
        "import trtbuild.cli.calibrate\n"
        "print(sorted(name for name in sys.modules if name.startswith('trtbuild.recipes.')))"
    )
    assert loaded.strip() == "['trtbuild.recipes.calibration', 'trtbuild.recipes.texts']"


def test_arrays_calibrate_a_network_without_what_is_not_needed(tmp_path):
    network, data, recipe = (
        str(SAMPLE / name) for name in ("digits.onnx", "calibration.npz", "digits.toml")
    )
    commands = (
        ["optimize", network, str(tmp_path / "digits.onnx")],
        [
            "calibrate",
            network,
            "--data",
            data,
            "--preprocess",
            recipe,
            "-o",
            str(tmp_path / "digits.json"),
        ],
    )
    loaded = run(
        f"from trtbuild.cli.main import run\nassert not any(map(run, {commands}))\n"
        "print([name for name in ('onnx_ir', 'llvmlite', 'PIL', 'numba', 'sympy') if name in sys.modules])"
    )
    assert loaded.strip().endswith("['onnx_ir', 'llvmlite']")


def test_ctrl_c_while_the_command_line_is_imported_gives_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("raise KeyboardInterrupt")
    path = os.pathsep.join((str(tmp_path), *sys.path))
    done = subprocess.run(
        [sys.executable, "-m", "trtbuild", "--help"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (130, "")
