"""Runs a module repeatedly up to a layer, without computing again what does not change between runs.

Layers get new weights in the order of their calls, so everything computed before a layer is final when it is
that layer's turn. The results of whole modules are kept, in a bounded amount of memory, and copied when they
are stored and returned, since forward may write into them.
"""

from __future__ import annotations

import contextlib
import types
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn

__all__ = ["Replay"]

_LIMIT = 1 << 30
"""Bytes of kept results."""


class _Reached(Exception):  # noqa: N818 - no error
    """The requested layer is called; the rest of the run is not needed."""


@dataclass
class _Frame:
    """One call in progress: whether its result may be kept, and the kept results inside it."""

    inside: list[tuple[Any, ...]] = field(default_factory=list)
    pure: bool = True


class Replay:
    """Returns the inputs of a module's layers, one layer after the other.

    Args:
        module: the module to run; between two calls of `read`, weights may only change in layers already
            read.
        limit: total bytes of kept results.
    """

    def __init__(self, module: nn.Module, limit: int = _LIMIT) -> None:
        self._module, self._left = module, limit
        self._kept: dict[tuple[Any, ...], Any] = {}
        self._calls: Counter[nn.Module] = Counter()
        self._frames: list[_Frame] = []
        self._batch = 0

    def read(self, path: str, batch: int, run: Callable[[], object]) -> torch.Tensor:
        """Return the input of the layer at `path`.

        Args:
            path: of a layer that is called after those of earlier requests.
            batch: number of the samples that `run` uses.
            run: runs the module on them.
        """
        read: list[torch.Tensor] = []

        def reached(
            _: nn.Module, given: tuple[torch.Tensor, ...], named: dict[str, torch.Tensor]
        ) -> None:
            read.append(given[0] if given else named["input"])
            raise _Reached

        self._batch = batch
        self._calls.clear()
        self._frames = [_Frame()]
        layer = self._module.get_submodule(path)
        with (
            layer.register_forward_pre_hook(reached, with_kwargs=True),
            self._remembering(),
            contextlib.suppress(_Reached),
        ):
            run()
        return read.pop()

    @contextlib.contextmanager
    def _remembering(self) -> Iterator[None]:
        """In this block every module below the top one returns its kept results."""
        own = [child for child in self._module.modules() if child is not self._module]
        before = {child: child.__dict__.get("forward") for child in own}
        for child in own:
            child.__dict__["forward"] = self._wrapped(child, child.forward)
        try:
            yield
        finally:
            for child, forward in before.items():
                del child.__dict__["forward"]
                if forward is not None:
                    child.__dict__["forward"] = forward

    def _wrapped(self, child: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
        def replayed(*given: Any, **named: Any) -> Any:
            key = (self._batch, child, self._calls[child])
            self._calls[child] += 1
            if key in self._kept:
                self._frames[-1].inside.append(key)
                return _copied(self._kept[key])
            frame = _Frame()
            before = _leaves(child, given, named)
            self._frames.append(frame)
            try:
                result = forward(*given, **named)
            finally:
                self._frames.pop()
            frame.pure &= _are_the_same(before, _leaves(child, given, named))
            self._keep(key, result, frame)
            return result

        return replayed

    def _keep(self, key: tuple[Any, ...], result: Any, frame: _Frame) -> None:
        """Keep a result in place of those inside it; if it cannot be kept, those stay."""
        outer = self._frames[-1]
        outer.pure &= frame.pure
        size = _size(result)
        freed = sum(_size(self._kept[inner]) for inner in frame.inside)
        if not frame.pure or not _is_of_tensors(result) or size > self._left + freed:
            outer.inside += frame.inside
            return
        for inner in frame.inside:
            del self._kept[inner]
        self._left += freed - size
        self._kept[key] = _copied(result)
        outer.inside.append(key)


def _tensors(values: Any) -> list[torch.Tensor]:
    leaves = torch.utils._pytree.tree_leaves(values)
    return [one for one in leaves if isinstance(one, torch.Tensor)]


def _leaves(module: nn.Module, *arguments: Any) -> list[tuple[Any, int]]:
    """Everything that a module stores and gets as arguments, and how often each tensor was written to.

    Lists, dicts and objects of other classes, such as a cache of keys and values, are searched too. Tensors
    made in inference mode have no count. Holding all objects keeps their memory from being reused by new
    objects, which would look like the old ones.
    """
    kept = {name: value for name, value in vars(module).items() if name != "forward"}
    found, waiting, seen = [], torch.utils._pytree.tree_leaves((kept, arguments)), set[int]()
    while waiting:
        one = waiting.pop()
        is_written = isinstance(one, torch.Tensor) and not one.is_inference()
        found.append((one, one._version if is_written else 0))
        if _is_looked_into(one) and id(one) not in seen:
            seen.add(id(one))
            waiting += torch.utils._pytree.tree_leaves(vars(one))
    return found


def _is_looked_into(value: Any) -> bool:
    """Whether a value is an object with attributes, but not a tensor, module, class or function."""
    others = torch.Tensor | torch.nn.Module | type | types.ModuleType
    return hasattr(value, "__dict__") and not isinstance(value, others) and not callable(value)


def _are_the_same(before: list[tuple[Any, int]], after: list[tuple[Any, int]]) -> bool:
    """Whether both lists hold the same objects, and no tensor was written to in between."""
    return len(before) == len(after) and all(
        old is new and then == now for (old, then), (new, now) in zip(before, after)
    )


def _is_of_tensors(result: Any) -> bool:
    leaves = torch.utils._pytree.tree_leaves(result)
    return all(one is None or isinstance(one, torch.Tensor) for one in leaves)


def _size(result: Any) -> int:
    """Bytes of the tensors of a result."""
    return sum(int(one.nbytes) for one in _tensors(result))


def _copied(result: Any) -> Any:
    return torch.utils._pytree.tree_map_only(torch.Tensor, torch.clone, result)
