"""onnx_ir without SymPy: it computes the same, and other modules see no difference."""

from __future__ import annotations

import subprocess
import sys

import pytest

TAKEN = "from trtbuild.model.graph_library import ir\n"

COMPUTED = """
import math, sys
print("sympy" in sys.modules)
n, text = ir.SymbolicDim("N"), ir.SymbolicDim("N*2 + max(a, b)")
print("sympy" in sys.modules)
for dim in (
    n + 1, 1 + n, n - 1, 3 - n, n * 2, n // 2, n / 2, 6 / n, n % 4, -n, n + text, n - text, n * text,
    text // n, text / n, text % n, math.ceil(n / 2), math.floor(n / 2), math.trunc(n / 2),
    (n + n - n).simplify(),
    *(ir.SymbolicDim(one) + 0 for one in (
        "Max(a, 3)", "min(a, b)", "Min(a, b)", "floor(N / 2)", "sqrt(N)", "mod(N, 2)", "Mod(N, 2)", "2**N",
    )),
):
    print(dim, sorted(dim.free_symbols()), dim.evaluate({"N": 7}), dim.evaluate({"N": 7, "a": 2, "b": 5}))
import sympy
print(ir.SymbolicDim(sympy.Symbol("x") + 1), ir.SymbolicDim(None) + 1)
for wrong in (lambda: ir.SymbolicDim(1.5), lambda: ir.SymbolicDim("f(N)") + 1, lambda: ir.SymbolicDim(3)):
    try:
        wrong()
    except (TypeError, ValueError) as error:
        print(error)
"""


def run(code, folder):
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\nsys.path.insert(0, {str(folder)!r})\n{code}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def onnx_ir_of(folder, text):
    """Write a fake onnx_ir into `folder`, and `user`, which imports SymPy, in a thread, too."""
    (folder / "onnx_ir").mkdir()
    (folder / "onnx_ir" / "__init__.py").write_text(text)
    (folder / "user.py").write_text("""
import threading
import sympy
seen = [sympy]
def work():
    import sympy
    from sympy import Max
    import sympy.core
    seen.extend([sympy, Max, sympy.core])
thread = threading.Thread(target=work)
thread.start()
thread.join()
""")


def test_dims_are_computed_as_with_sympy(tmp_path):
    first, then, *lines = run(TAKEN + COMPUTED, tmp_path)
    assert (first, then) == ("False", "False")
    plain = run("import onnx_ir as ir\n" + COMPUTED, tmp_path)
    assert plain[:2] == ["True", "True"]
    assert lines == plain[2:]
    assert len(lines) == 28 + 1 + 3


def test_all_is_as_before_once_it_is_loaded(tmp_path):
    code = f"import builtins\nbefore = builtins.__import__\n{TAKEN}import sympy, onnx_ir\n"
    code += (
        "print(before is builtins.__import__, sympy is sys.modules['sympy'], ir is onnx_ir,"
        " ir._core.sympy.Max is sympy.Max, sympy.Max(2, 3))"
    )
    assert run(code, tmp_path) == ["True True True True 3"]


@pytest.mark.parametrize("before", ["import sympy", "import onnx_ir"])
def test_what_is_loaded_already_stays(before, tmp_path):
    code = f"{before}\n{TAKEN}import sympy, onnx_ir\nprint(ir is onnx_ir, ir._core.sympy is sympy)"
    assert run(code, tmp_path) == ["True True"]


def test_other_modules_and_threads_get_the_real_sympy(tmp_path):
    onnx_ir_of(tmp_path, "import sympy\nmax_ = sympy.Max\nimport user\n")
    code = (
        f"{TAKEN}import sympy, user\n"
        "print(user.seen == [sympy, sympy, sympy.Max, sympy.core], ir.sympy is sympy, ir.max_(2, 3))"
    )
    assert run(code, tmp_path) == ["True False 3"]


@pytest.mark.parametrize(
    ("use", "gives"),
    [
        ("from sympy import Max\ngives = Max(2, 3)", "3"),
        ("import sympy\ngives = sympy.Integer(1) + sympy.sqrt(4)", "3"),
        (
            "import sympy\nclass Largest(sympy.Max): pass\ngives = issubclass(Largest, sympy.Expr)",
            "True",
        ),
    ],
)
def test_a_version_that_does_more_with_sympy_at_its_import_is_loaded_with_it(tmp_path, use, gives):
    onnx_ir_of(tmp_path, use)
    assert run(f"{TAKEN}print(ir.gives)", tmp_path) == [gives]


def test_a_version_that_cannot_be_loaded_says_why(tmp_path):
    onnx_ir_of(tmp_path, "import sympy\nraise ImportError('made for another Python')")
    code = f"try:\n    {TAKEN}except ImportError as error:\n    print(error)"
    assert run(code, tmp_path) == ["made for another Python"]
