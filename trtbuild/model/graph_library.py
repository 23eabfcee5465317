"""onnx_ir, loaded without SymPy: all of trtbuild imports it from here.

onnx_ir imports SymPy at its top, which takes three quarters of its import time. It needs SymPy only for
arithmetic with symbolic dims (``batch * 2``), which no pass and no command does. While onnx_ir is imported,
its modules get a stand-in instead, which loads SymPy on first use. Other importers never see the stand-in:
`builtins.__import__` is told which module imports, and is restored afterwards.
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

# onnx_ir puts these into a table of functions when it is loaded, and calls them when it reads a dim.
_IN_A_TABLE = ("Max", "Min", "Mod", "floor", "sqrt")


class _SymPyWhenAsked(ModuleType):
    """Stands for SymPy; loads it on the first access, except to the functions for the table."""

    def __init__(self) -> None:
        super().__init__("sympy")
        self._fills_the_table = True

    def table_is_filled(self) -> None:
        """From now on return SymPy's own functions for every name."""
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
    """In the block, let ``import sympy`` give the stand-in to modules of onnx_ir, and only to them."""
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
    """Import onnx_ir without SymPy; undo it if that fails, as another version of onnx_ir may need SymPy."""
    loaded = set(sys.modules)
    try:
        with _sympy_when_asked():
            importlib.import_module("onnx_ir")
    except Exception:  # noqa: BLE001 - if the stand-in is not at fault, the plain import below fails likewise
        for name in set(sys.modules) - loaded:
            if name.partition(".")[0] == "onnx_ir":
                del sys.modules[name]


if not {"onnx_ir", "sympy"} & set(sys.modules):
    _onnx_ir_without_sympy()

import onnx_ir as ir  # noqa: E402 - the line above decides how
