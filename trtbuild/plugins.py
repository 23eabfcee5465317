"""Code of the user and of other packages, found in the same way for every kind.

An option or a recipe names it as

    package.module:name, folder/script.py:name    imported; the current folder is importable
    a plain name                                  an entry point of an installed package, in the kind's
                                                  group

docs/plugins.md describes the calls of each kind.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtbuild.errors import says

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from importlib.metadata import EntryPoint
    from types import ModuleType

    from trtbuild.errors import InputError

__all__ = [
    "BACKEND",
    "BLOCK_REWRITE",
    "CALIBRATOR",
    "JUDGE",
    "KINDS",
    "METRIC",
    "PASS",
    "READER",
    "Installed",
    "Kind",
    "foreign_code",
    "import_named",
    "in_one_line",
    "installed",
    "load",
    "load_installed",
    "reader_of",
]

_OURS = "trtbuild."


@dataclass(frozen=True)
class Kind:
    """A kind of foreign code.

    Attributes:
        what: its name in messages.
        group: its group of entry points of installed packages.
        option: the option that names one; empty if installed ones are always used.
    """

    what: str
    group: str
    option: str = ""


CALIBRATOR = Kind("calibrator", "trtbuild.calibrators", "--calibrator")
JUDGE = Kind("judge", "trtbuild.judges", "--judge")
METRIC = Kind("metric", "trtbuild.metrics", "--metric")
READER = Kind("reader", "trtbuild.readers", "--data")
BACKEND = Kind("backend", "trtbuild.backends", "--backend")
PASS = Kind("graph pass", "trtbuild.graph_passes", "--enable")
BLOCK_REWRITE = Kind("block rewrite", "trtbuild.block_rewrites")

KINDS = (CALIBRATOR, JUDGE, METRIC, READER, BACKEND, PASS, BLOCK_REWRITE)


@dataclass(frozen=True)
class Installed:
    """A plug-in of an installed package.

    Attributes:
        kind: its kind.
        name: its name in options.
        value: ``package.module:name``.
        package: the package, with its version.
    """

    kind: Kind
    name: str
    value: str
    package: str


def entry_points(group: str) -> Iterable[EntryPoint]:
    """Return the entry points of one group."""
    from importlib.metadata import entry_points as every  # imported here: it takes 20 ms to load

    return every(group=group)


def installed(kind: Kind) -> tuple[Installed, ...]:
    """Return all plug-ins of one kind from installed packages, sorted by name; nothing is imported."""
    found = (Installed(kind, p.name, p.value, _package(p)) for p in entry_points(kind.group))
    return tuple(sorted(found, key=lambda one: (one.name, one.value)))


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else ""


def load(kind: Kind, named: str, error: type[InputError]) -> Any:
    """Return the object that `named` names.

    Args:
        kind: its kind.
        named: ``package.module:name``, ``script.py:name``, or the name of an installed one.
        error: the error to raise.

    Raises:
        error: there is none of that name, or it cannot be imported.
    """
    if ":" in named:
        return import_named(named, error)
    for point in entry_points(kind.group):
        if point.name == named:
            return _loaded(kind, point, error)
    names = [one.name for one in installed(kind)]
    near = difflib.get_close_matches(named, names, 1)
    known = f"did you mean '{near[0]}'?" if near else f"installed are {', '.join(names) or 'none'}"
    raise error(
        f"there is no {kind.what} '{named}'; {known}. Name one of your own as package.module:name or "
        "script.py:name."
    )


def load_installed(kind: Kind, error: type[InputError]) -> dict[str, Any]:
    """Return name -> object for all plug-ins of one kind from installed packages.

    Raises:
        error: a plug-in cannot be imported.
    """
    return {p.name: _loaded(kind, p, error) for p in entry_points(kind.group)}


def _loaded(kind: Kind, point: EntryPoint, error: type[InputError]) -> Any:
    brings = _package(point) or "its package"
    with foreign_code(
        error, f"the {kind.what} '{point.value}' cannot be loaded; repair or uninstall {brings}: "
    ):
        return point.load()


def reader_of(text: str) -> tuple[str, str] | None:
    """Return the installed reader and the place that ``reader:place`` names; None for any other text."""
    name, colon, place = text.partition(":")
    is_reader = colon and place and any(one.name == name for one in installed(READER))
    return (name, place) if is_reader else None


def import_named(spec: str, kind: type[InputError]) -> Any:
    """Import ``package.module:name`` or ``folder/script.py:name``; the current folder is importable.

    Args:
        spec: the name.
        kind: the error to raise.

    Raises:
        kind: it does not have that form, cannot be imported, or does not exist.
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
    with foreign_code(kind, f"importing '{name}' failed: "):
        try:
            return _script(Path(name).resolve()) if is_script else importlib.import_module(name)
        except FileNotFoundError as error:
            raise kind(f"cannot import '{name}' for '{spec}': {in_one_line(error)}.") from error
        except ImportError as error:
            raise kind(f"cannot import '{name}' for '{spec}': {error}.") from error


def _script(path: Path) -> ModuleType:
    """Run a script once per process, under a name that cannot be the name of a module."""
    # with a dot, `pickle` would look for a package around it, and a user's pool of processes uses `pickle`
    name = f"script {path}".replace("%", "%25").replace(".", "%2E")
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


@contextlib.contextmanager
def foreign_code(kind: type[InputError], text: str) -> Iterator[None]:
    """Turn any error of a user's code in the block into one `kind`, except requests to stop.

    The error may be `SystemExit`, or a panic of a Rust library, which is not an `Exception` either.

    Args:
        kind: the error for the user; errors of this kind pass unchanged.
        text: beginning of the message; the error follows in one line.

    Raises:
        kind: any error occurred.
    """
    try:
        yield
    except kind:
        raise
    except BaseException as error:
        if not _is_foreign(error):
            raise
        raise kind(f"{text}{in_one_line(error)}.") from error


def _is_foreign(error: BaseException) -> bool:
    """Whether an error comes from foreign code; stop requests are raised by us or by Python."""
    stops = isinstance(error, KeyboardInterrupt | GeneratorExit)
    return isinstance(error, Exception) or not (stops or type(error).__module__.startswith(_OURS))


def in_one_line(error: BaseException) -> str:
    """Return an error's type and message in one line."""
    said = " ".join(says(error).split())
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
