"""onnx_ir, loaded without SymPy: all of trtbuild takes it from here.

onnx_ir imports SymPy at its top, which takes three quarters of its import, and needs it only where symbolic
dims are computed with (``batch * 2``), which no pass and no command does. Inside of onnx_ir a stand-in takes
its place, and the first thing that is asked of it loads SymPy. Nobody else sees the stand-in: the import
statement calls `builtins.__import__`, which alone learns who imports. Afterwards all is as before.
"""

from __future__ import annotations

import builtins
import contextlib
import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["ir"]

# Asked for when onnx_ir is loaded, for a table of functions, and called when a dim is read.
_IN_A_TABLE = ("Max", "Min", "Mod", "floor", "sqrt")


class _SymPyWhenAsked(ModuleType):
    """Stands for SymPy, and loads it for whatever is asked but functions for the table."""

    def __init__(self) -> None:
        super().__init__("sympy")
        self._fills_the_table = True

    def table_is_filled(self) -> None:
        """From now on all that is asked for is SymPy's own."""
        self._fills_the_table = False

    def __getattr__(self, name: str) -> Any:
        if self._fills_the_table and name in _IN_A_TABLE:
            return _when_called(name)
        return _of_sympy(name)


def _of_sympy(name: str) -> Any:
    return getattr(importlib.import_module("sympy"), name)


def _when_called(name: str) -> Callable[..., Any]:
    def function(*arguments: Any) -> Any:
        return _of_sympy(name)(*arguments)

    return function


@contextlib.contextmanager
def _sympy_when_asked() -> Iterator[None]:
    """Let ``import sympy`` give the stand-in inside of onnx_ir, and there only, while the block lasts."""
    before = builtins.__import__
    stand_in = _SymPyWhenAsked()

    def import_(
        name: str,
        globals: Mapping[str, Any] | None = None,  # noqa: A002 - the names of `__import__`
        locals: Mapping[str, Any] | None = None,  # noqa: A002
        fromlist: Any = (),
        level: int = 0,
    ) -> ModuleType:
        if name == "sympy" and not fromlist and _is_of_onnx_ir(globals):
            return stand_in
        return before(name, globals, locals, fromlist, level)

    builtins.__import__ = import_
    try:
        yield
    finally:
        stand_in.table_is_filled()
        if builtins.__import__ is import_:
            builtins.__import__ = before


def _is_of_onnx_ir(names: Mapping[str, Any] | None) -> bool:
    return str((names or {}).get("__name__")).partition(".")[0] == "onnx_ir"


def _onnx_ir_without_sympy() -> None:
    """Load onnx_ir, unless it cannot be done without SymPy, as another version may not."""
    loaded = set(sys.modules)
    try:
        with _sympy_when_asked():
            importlib.import_module("onnx_ir")
    except Exception:  # noqa: BLE001 - if it is no fault of the stand-in, the plain import fails likewise
        for name in set(sys.modules) - loaded:
            if name.partition(".")[0] == "onnx_ir":
                del sys.modules[name]


if not {"onnx_ir", "sympy"} & set(sys.modules):
    _onnx_ir_without_sympy()

import onnx_ir as ir  # noqa: E402 - the line above decides how
