"""Reading a checkpoint safely, and matching its keys with a module's.

A checkpoint is read with ``weights_only=True``: a pickle that would run code is refused and nothing of
it runs. A wrapper (``state_dict``, ``model``, ``ema``, ...) is opened and a prefix (``module.``,
``_orig_mod.``) cut off only when every key has it and the keys then fit; after that loading is strict.
Never loading loosely matters: ``strict=False`` with a wrong prefix loads nothing and says nothing.
"""

from __future__ import annotations

import difflib
import pickle
import re
import warnings
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import torch

from trtbuild.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from torch import nn

__all__ = ["CheckpointReport", "load_weights", "read_checkpoint"]

_WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model",
    "module",
    "net",
    "network",
    "ema",
    "ema_state_dict",
    "model_ema",
    "weights",
    "params",
)
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "backbone.")
_TOLERATED = ("*num_batches_tracked", "num_batches_tracked")
"""Only counts the training steps; torch itself tolerates its absence."""


@dataclass(frozen=True)
class CheckpointReport:
    """What was loaded, and what had to be done for it.

    Attributes:
        wrapper: key under which the weights lay, or empty.
        prefix: what was cut off from every key, or empty.
        num_loaded: tensors loaded.
        missing: keys that were allowed to be missing, and are.
        unexpected: keys that were allowed to be unexpected, and are.
        warnings: sentences for the user.
    """

    wrapper: str
    prefix: str
    num_loaded: int
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    warnings: tuple[str, ...]


def load_weights(
    module: nn.Module,
    path: Path,
    *,
    trust: bool = False,
    allow_missing: Iterable[str] = (),
    allow_unexpected: Iterable[str] = (),
) -> CheckpointReport:
    """Load the checkpoint `path` into `module`, strictly.

    Raises:
        ModelError: unreadable, unsafe, or keys or shapes that do not match.
    """
    content = read_checkpoint(path, trust=trust)
    wanted = _wanted_shapes(module)
    wrapper, prefix, weights = _best_match(content, wanted, path)
    missing = [key for key in wanted if key not in weights and not _matches(key, _TOLERATED)]
    missing = _without_tied(module, missing, weights)
    unexpected = [key for key in weights if key not in wanted]
    shapes = [key for key in weights if key in wanted and tuple(weights[key].shape) != wanted[key]]
    refused_missing = [key for key in missing if not _matches(key, allow_missing)]
    refused_unexpected = [key for key in unexpected if not _matches(key, allow_unexpected)]
    if refused_missing or refused_unexpected or shapes:
        raise ModelError(
            _mismatch(path, wanted, weights, refused_missing, refused_unexpected, shapes)
        )
    warnings = _dtype_changes(module, weights)
    module.load_state_dict({k: v for k, v in weights.items() if k in wanted}, strict=False)
    return CheckpointReport(
        wrapper, prefix, len(weights) - len(unexpected), tuple(missing), tuple(unexpected), warnings
    )


def read_checkpoint(path: Path, *, trust: bool = False) -> Any:
    """Read a checkpoint onto the CPU; nothing in it runs unless `trust` is set.

    Raises:
        ModelError: missing, damaged, no checkpoint, or in need of trust.
    """
    if not path.is_file():
        raise ModelError(f"the checkpoint '{path}' is not a file.")
    try:
        if path.suffix == ".safetensors":
            import safetensors.torch

            return safetensors.torch.load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # torch wonders at old pickles, which is not the user's concern
            return torch.load(path, map_location="cpu", weights_only=not trust)
    except pickle.UnpicklingError as error:
        if trust:
            raise ModelError(f"'{path}' is not a checkpoint: {_first_line(error)}") from error
        raise ModelError(_unsafe(path, error)) from error
    except Exception as error:
        raise ModelError(
            f"'{path}' cannot be read as a checkpoint (torch.save or safetensors): {_first_line(error)} "
            "It may be cut off, a TorchScript archive, or another kind of file."
        ) from error


def _unsafe(path: Path, error: Exception) -> str:
    wanted = re.search(r"GLOBAL (\S+)", str(error))
    reason = f"it wants to load '{wanted[1]}'" if wanted else "it is no pickle of weights"
    return (
        f"'{path}' holds more than weights ({reason}), so nothing of it was run. "
        "Save the weights alone (torch.save(model.state_dict(), ...)), or, if you trust whoever made "
        "the file, pass --trust-checkpoint: that runs any code the file holds."
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{lines[0].rstrip('.')}." if lines else f"{type(error).__name__}."


def _wanted_shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {
        key: tuple(value.shape)
        for key, value in module.state_dict().items()
        if isinstance(value, torch.Tensor)
    }


def _best_match(
    content: Any, wanted: Mapping[str, Any], path: Path
) -> tuple[str, str, dict[str, torch.Tensor]]:
    """The wrapper, the prefix, and the weights that fit best; as they are when several fit as well."""
    candidates = list(_candidates(content))
    if not candidates:
        raise ModelError(
            f"'{path}' holds a {type(content).__name__} without weights by name; "
            f"expected a dictionary of tensors, or one under {', '.join(_WRAPPERS[:4])}."
        )

    def misfit(candidate: tuple[str, str, dict[str, torch.Tensor]]) -> int:
        return len(set(wanted).symmetric_difference(candidate[2]))

    return min(candidates, key=misfit)


def _candidates(content: Any) -> Iterator[tuple[str, str, dict[str, torch.Tensor]]]:
    for wrapper, weights in _unwrapped(content):
        yield wrapper, "", weights
        for prefix in _cut_prefixes(weights):
            yield wrapper, prefix, {key[len(prefix) :]: value for key, value in weights.items()}


def _unwrapped(content: Any, path: str = "") -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
    state = content.state_dict() if isinstance(content, torch.nn.Module) else content
    if not isinstance(state, dict):
        return
    tensors = {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}
    if tensors:
        yield path, tensors
    for wrapper in _WRAPPERS:
        if wrapper in state and not isinstance(state[wrapper], torch.Tensor):
            yield from _unwrapped(state[wrapper], f"{path}.{wrapper}".lstrip("."))


def _cut_prefixes(weights: Mapping[str, Any], done: str = "") -> Iterator[str]:
    """Every prefix, or chain of prefixes, that all keys begin with."""
    for prefix in _PREFIXES:
        whole = done + prefix
        if weights and len(whole) < 64 and all(key.startswith(whole) for key in weights):
            yield whole
            yield from _cut_prefixes(weights, whole)


def _matches(key: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in patterns)


def _without_tied(module: nn.Module, missing: list[str], weights: Mapping[str, Any]) -> list[str]:
    """`missing` without the names of tensors that are there under another name.

    `safetensors.torch.save_model` keeps one name of each tied tensor.
    """
    tensors = module.state_dict(keep_vars=True)
    present = {id(tensors[key]) for key in weights if key in tensors}
    return [key for key in missing if id(tensors[key]) not in present]


def _dtype_changes(module: nn.Module, weights: Mapping[str, torch.Tensor]) -> tuple[str, ...]:
    tensors = module.state_dict()
    changed = [k for k, v in weights.items() if k in tensors and v.dtype != tensors[k].dtype]
    if not changed:
        return ()
    example = changed[0]
    text = (
        f"{len(changed)} tensors change their type on loading "
        f"('{example}': {weights[example].dtype} in the file, {tensors[example].dtype} in the module)."
    )
    return (text,)


def _mismatch(
    path: Path,
    wanted: Mapping[str, tuple[int, ...]],
    weights: Mapping[str, torch.Tensor],
    missing: list[str],
    unexpected: list[str],
    shapes: list[str],
) -> str:
    lines = [f"the checkpoint '{path}' does not fit the module."]
    if missing:
        lines.append(f"  missing in the file ({len(missing)}): {_names(missing, unexpected)}")
    if unexpected:
        lines.append(f"  unknown to the module ({len(unexpected)}): {_names(unexpected, missing)}")
    lines += [
        f"  '{key}': {list(weights[key].shape)} in the file, {list(wanted[key])} in the module"
        for key in shapes[:5]
    ]
    if len(shapes) > 5:
        lines.append(f"  and {len(shapes) - 5} more shapes that differ")
    lines.append(
        "  Check the factory's arguments; --allow-missing and --allow-unexpected take patterns of keys."
    )
    return "\n".join(lines)


def _names(keys: list[str], others: list[str], limit: int = 5) -> str:
    """The first keys, each with the nearest name on the other side."""
    parts = []
    for key in keys[:limit]:
        near = difflib.get_close_matches(key, others, n=1, cutoff=0.75)
        parts.append(f"'{key}' (nearest: '{near[0]}')" if near else f"'{key}'")
    if len(keys) > limit:
        parts.append(f"and {len(keys) - limit} more")
    return ", ".join(parts)
