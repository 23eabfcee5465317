"""What a user names as ``package.module:name`` or ``folder/script.py:name``, imported."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import ModuleType

    from trtbuild.errors import InputError

__all__ = ["FOREIGN_ERRORS", "import_named", "in_one_line"]

FOREIGN_ERRORS = (Exception, SystemExit)
"""What a user's code may raise."""


def import_named(spec: str, kind: type[InputError]) -> Any:
    """Import ``package.module:name`` or ``folder/script.py:name``; the current folder is importable.

    Args:
        spec: the name.
        kind: of the error.

    Raises:
        kind: it is not of that form, cannot be imported, or there is no such name.
    """
    module_name, _, attribute = spec.rpartition(":")
    if not module_name or not attribute:
        raise kind(f"'{spec}' should be given as 'package.module:name' or 'script.py:name'.")
    found: Any = _imported(module_name, spec, kind)
    try:
        for part in attribute.split("."):
            found = getattr(found, part)
    except AttributeError as error:
        raise kind(f"'{module_name}' has no '{attribute}'.") from error
    return found


def _imported(name: str, spec: str, kind: type[InputError]) -> ModuleType:
    is_script = name.lower().endswith(".py")
    folder = str(Path(name).resolve().parent if is_script else Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return _script(Path(name).resolve()) if is_script else importlib.import_module(name)
    except FileNotFoundError as error:
        raise kind(f"cannot import '{name}' for '{spec}': {in_one_line(error)}.") from error
    except ImportError as error:
        raise kind(f"cannot import '{name}' for '{spec}': {error}.") from error
    except FOREIGN_ERRORS as error:
        raise kind(f"importing '{name}' failed: {in_one_line(error)}") from error


def _script(path: Path) -> ModuleType:
    """Run a script once a process, under a name that no module of its stem has."""
    name = f"script {path}"
    if name in sys.modules:
        return sys.modules[name]
    found = importlib.util.spec_from_file_location(name, path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    try:
        found.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def in_one_line(error: BaseException) -> str:
    """Return an error's type and message in one line."""
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
