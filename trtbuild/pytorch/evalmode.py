"""Eval mode everywhere, modules hidden in Python containers included.

Exporting in train mode makes a model that is random (Dropout) or silently another one (BatchNorm).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from trtbuild.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["enforce_eval", "hidden_modules", "in_train_mode"]

_MODULE_INTERNALS = frozenset(nn.Module().__dict__)


def enforce_eval(module: nn.Module) -> list[str]:
    """Put `module` and what it hides into eval mode, and check every flag.

    Returns:
        Sentences about what had to be done beyond ``module.eval()``.

    Raises:
        ModelError: a module stays in train mode, for example because it overrides ``train``.
    """
    module.eval()
    notes = []
    for path, hidden in hidden_modules(module).items():
        if hidden.training:
            notes.append(
                f"'{path}' was not reached by eval(); it was put into eval mode on its own."
            )
        hidden.eval()
    stubborn = in_train_mode(module)
    if stubborn:
        raise ModelError(
            f"{', '.join(stubborn[:5])}: still in train mode after eval(). A class that overrides "
            "train() keeps it there; an export in train mode would be another model."
        )
    return notes


def in_train_mode(module: nn.Module) -> list[str]:
    """Paths of the modules, hidden ones included, whose ``training`` flag is set."""
    found = [path or "the module" for path, child in module.named_modules() if child.training]
    for path, hidden in hidden_modules(module).items():
        found += [
            f"{path}.{inner}".rstrip(".") for inner, m in hidden.named_modules() if m.training
        ]
    return found


def hidden_modules(module: nn.Module) -> dict[str, nn.Module]:
    """Modules in lists, tuples, sets or dicts of `module`, which torch itself does not see."""
    registered = {id(child) for child in module.modules()}
    found: dict[str, nn.Module] = {}
    for path, owner in module.named_modules():
        for name, value in vars(owner).items():
            if name in _MODULE_INTERNALS:
                continue
            for where, child in _modules_in(value, f"{path}.{name}".lstrip(".")):
                if id(child) not in registered and all(
                    child is not other for other in found.values()
                ):
                    found[where] = child
    return found


def _modules_in(value: Any, where: str, depth: int = 0) -> Iterator[tuple[str, nn.Module]]:
    if isinstance(value, nn.Module):
        yield where, value
    elif isinstance(value, dict) and depth < 4:
        for key, item in value.items():
            yield from _modules_in(item, f"{where}[{key!r}]", depth + 1)
    elif isinstance(value, list | tuple | set | frozenset) and depth < 4:
        for index, item in enumerate(value):
            yield from _modules_in(item, f"{where}[{index}]", depth + 1)
