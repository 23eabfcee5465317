"""Code of the user's own and of other packages, found by one mechanism for every kind.

What an option or a recipe names is

    package.module:name, folder/script.py:name    imported; the current folder is importable
    a plain name                                  what an installed package has under it in the kind's group
                                                  of entry points

docs/plugins.md says what each kind is called with.
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
    """A place where code of others goes.

    Attributes:
        what: it is called in messages.
        group: of the entry points of installed packages.
        option: that names one; empty where installed ones are used unasked.
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
    """What an installed package brings.

    Attributes:
        kind: of it.
        name: under which options know it.
        value: ``package.module:name``.
        package: that brings it, with its version.
    """

    kind: Kind
    name: str
    value: str
    package: str


def entry_points(group: str) -> Iterable[EntryPoint]:
    """Return the entry points of one group."""
    from importlib.metadata import entry_points as every  # here: it takes 20 ms to load

    return every(group=group)


def installed(kind: Kind) -> tuple[Installed, ...]:
    """Return everything of one kind that installed packages bring, by name; nothing is imported."""
    found = (Installed(kind, p.name, p.value, _package(p)) for p in entry_points(kind.group))
    return tuple(sorted(found, key=lambda one: (one.name, one.value)))


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else ""


def load(kind: Kind, named: str, error: type[InputError]) -> Any:
    """Return what `named` stands for.

    Args:
        kind: of it.
        named: ``package.module:name``, ``script.py:name``, or the name of an installed one.
        error: what is raised.

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
        f"there is no {kind.what} '{named}'; {known}. One of your own is named package.module:name or "
        "script.py:name."
    )


def load_installed(kind: Kind, error: type[InputError]) -> dict[str, Any]:
    """Return name -> object of everything of one kind that installed packages bring.

    Raises:
        error: one cannot be imported.
    """
    return {p.name: _loaded(kind, p, error) for p in entry_points(kind.group)}


def _loaded(kind: Kind, point: EntryPoint, error: type[InputError]) -> Any:
    brings = _package(point) or "its package"
    with foreign_code(
        error, f"the {kind.what} '{point.value}' cannot be loaded; repair or uninstall {brings}: "
    ):
        return point.load()


def reader_of(text: str) -> tuple[str, str] | None:
    """Return the installed reader and the place that ``reader:place`` names; None of any other text."""
    name, colon, place = text.partition(":")
    is_reader = colon and place and any(one.name == name for one in installed(READER))
    return (name, place) if is_reader else None


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
    with foreign_code(kind, f"importing '{name}' failed: "):
        try:
            return _script(Path(name).resolve()) if is_script else importlib.import_module(name)
        except FileNotFoundError as error:
            raise kind(f"cannot import '{name}' for '{spec}': {in_one_line(error)}.") from error
        except ImportError as error:
            raise kind(f"cannot import '{name}' for '{spec}': {error}.") from error


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


@contextlib.contextmanager
def foreign_code(kind: type[InputError], text: str) -> Iterator[None]:
    """Raise whatever a user's code raises in the block as one `kind`, but for a wish to stop.

    That may be `SystemExit`, or a panic of a library written in Rust, which is no `Exception` either.

    Args:
        kind: of the error that the user gets; of this kind, errors pass as they are.
        text: the error in one line follows.

    Raises:
        kind: anything was raised.
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
    """Whether an error comes from code of others; signals are raised by us, or are Python's."""
    stops = isinstance(error, KeyboardInterrupt | GeneratorExit)
    return isinstance(error, Exception) or not (stops or type(error).__module__.startswith(_OURS))


def in_one_line(error: BaseException) -> str:
    """Return an error's type and message in one line."""
    said = " ".join(says(error).split())
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
