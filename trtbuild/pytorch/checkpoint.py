"""Matches a checkpoint's keys with a module's, and loads it strictly.

The weights are at the top of the file or under a key of it (``state_dict``, ``ema`` ...). Their names may
have a prefix (``module.``, ``_orig_mod.``), which is removed where the name then fits; loading itself is
strict. ``strict=False`` with a wrong prefix would silently load nothing. Of several sets of weights that fit,
such as raw and averaged ones, the averaged are loaded, and a warning names both.
"""

from __future__ import annotations

import difflib
from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import torch

from trtbuild.errors import ModelError, decoding
from trtbuild.json_codec import NOT_IN_JSON
from trtbuild.pytorch.weight_files import read_checkpoint
from trtbuild.pytorch.weight_forms import fitting_keys, plain_weights, with_computed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from torch import nn

__all__ = [
    "CheckpointReport",
    "load_tensors",
    "load_weights",
    "without_tied",
]

_AVERAGED = ("ema", "swa", "avg", "averag")
"""Parts of the keys of weights that are averaged over training steps, which trainers evaluate and publish."""
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "backbone.")
_TOLERATED = ("*num_batches_tracked", "num_batches_tracked")
"""Only count the training steps; torch itself tolerates their absence."""
_COUNTERS = ("n_averaged", "module.n_averaged")
"""Counters that ``torch.optim.swa_utils.AveragedModel`` stores beside the weights."""
_DEPTH = 4
"""How many levels of keys are searched for weights."""


@dataclass(frozen=True)
class CheckpointReport:
    """What was loaded, and how.

    Attributes:
        wrapper: the key that held the weights, or empty.
        prefix: the prefix removed from the names, or empty.
        num_loaded: number of loaded tensors.
        missing: allowed missing keys.
        unexpected: allowed unexpected keys.
        warnings: sentences for the user.
    """

    wrapper: str
    prefix: str
    num_loaded: int
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    warnings: tuple[str, ...] = field(default=(), metadata=NOT_IN_JSON)


@dataclass(frozen=True)
class _Candidate:
    """One set of weights in a file, fitted to the module.

    Attributes:
        key: its key in the file, with dots; empty at the top.
        weights: the tensors by the module's names, where they fit.
        cut: prefix -> number of names that it was removed from.
        told: sentences about weights that were computed.
    """

    key: str
    weights: dict[str, torch.Tensor]
    cut: Mapping[str, int]
    told: tuple[str, ...] = ()


def load_weights(
    module: nn.Module,
    path: Path,
    *,
    trust: bool = False,
    key: str | None = None,
    prefix: str | None = None,
    allow_missing: Iterable[str] = (),
    allow_unexpected: Iterable[str] = (),
) -> CheckpointReport:
    """Load the checkpoint `path` into `module`, strictly.

    Args:
        module: changed in place.
        path: see `trtbuild.pytorch.weight_files.read_checkpoint`.
        trust: unpickle everything.
        key: key of the weights in the file, such as ``ema`` or ``ema.state_dict``; None: the set that fits.
        prefix: the prefix to remove; names without it are ignored. None: the prefixes that fit.
        allow_missing: patterns of keys that the file may lack.
        allow_unexpected: patterns of keys that the module may lack.

    Raises:
        ModelError: the file is unreadable or unsafe, or keys or shapes do not match.
    """
    content = read_checkpoint(path, trust=trust)
    wanted = _wanted_shapes(module)
    chosen, warnings = _chosen(content, wanted, path, key, prefix)
    weights, dense = plain_weights(chosen.weights, path)
    missing = [name for name in wanted if name not in weights and not _matches(name, _TOLERATED)]
    missing = without_tied(module, missing, weights)
    unexpected = [name for name in weights if name not in wanted and name not in _COUNTERS]
    shapes = [n for n in weights if n in wanted and tuple(weights[n].shape) != wanted[n]]
    refused_missing = [name for name in missing if not _matches(name, allow_missing)]
    refused_unexpected = [name for name in unexpected if not _matches(name, allow_unexpected)]
    if refused_missing or refused_unexpected or shapes:
        text = _mismatch(path, wanted, weights, refused_missing, refused_unexpected, shapes)
        raise ModelError(text)
    fitting = {name: value for name, value in weights.items() if name in wanted}
    if wanted and not fitting:
        raise ModelError(
            f"the checkpoint '{path}' has no tensor of the module: nothing was loaded."
        )
    warnings += (*chosen.told, *dense, *_dtype_changes(module, fitting))
    with decoding(ModelError, f"the checkpoint '{path}' cannot be loaded into the module"):
        load_tensors(module, fitting)
    cut = ", ".join(chosen.cut)
    return CheckpointReport(
        chosen.key, cut, len(fitting), tuple(missing), tuple(unexpected), warnings
    )


def load_tensors(module: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Load `weights` into `module`, by its own names; names that the module lacks are ignored.

    Modules whose layout has changed ask for the version of the weights (torchvision's MNASNet does not
    load without it). Files store none, so the module's version is assumed. Expanded tensors, which torch
    cannot write into, get memory of their own.
    """
    for one in (*module.parameters(), *module.buffers()):
        if one.layout is torch.strided and _is_repeated(one):
            one.data = one.data.contiguous()
    state = OrderedDict(weights)
    state._metadata = module.state_dict()._metadata  # type: ignore[attr-defined]
    module.load_state_dict(state, strict=False)


def _is_repeated(tensor: torch.Tensor) -> bool:
    """Whether several elements share a place in memory, also where that is a part of a larger tensor."""
    is_expanded = any(size > 1 and step == 0 for size, step in zip(tensor.shape, tensor.stride()))
    return is_expanded or tensor.nbytes > tensor.untyped_storage().nbytes()


def _wanted_shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {
        key: tuple(value.shape)
        for key, value in module.state_dict().items()
        if isinstance(value, torch.Tensor)
    }


def _chosen(
    content: Any, wanted: Mapping[str, Any], path: Path, key: str | None, prefix: str | None
) -> tuple[_Candidate, tuple[str, ...]]:
    """The set of weights that fits best, and sentences about the choice."""
    sets = dict(_sets(content))
    if not sets:
        raise ModelError(
            f"'{path}' holds a {type(content).__name__} without weights by name; "
            "expected a dictionary of tensors, or one under a key such as state_dict or model."
        )
    if key is not None and key not in sets:
        raise ModelError(
            f"'{path}' has no weights under '{key}' (--weights-key); there are some under "
            f"{', '.join(repr(one) for one in sets)}."
        )
    chosen = {key: sets[key]} if key is not None else sets
    found = [_fitted(name, weights, wanted, prefix) for name, weights in chosen.items()]
    least = min(_misfit(one, wanted) for one in found)
    best = [one for one in found if _misfit(one, wanted) == least]
    averaged = [one for one in best if any(word in one.key.lower() for word in _AVERAGED)]
    taken = (averaged or best)[0]
    others = [one.key for one in best if not _equal(one.weights, taken.weights)]
    if not others or len(set(wanted) & set(taken.weights)) == 0:
        return taken, _cuts(taken)
    text = (
        f"'{path.name}' holds several sets of weights that fit: {_named(taken.key)} was loaded, and not "
        f"{', '.join(map(_named, others))}"
        + (f"; --weights-key {others[0]} takes another." if others[0] else ".")
    )
    return taken, (text, *_cuts(taken))


def _named(key: str) -> str:
    return f"'{key}'" if key else "what lies at the top"


def _sets(content: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, dict[str, Any]]]:
    """All dictionaries of tensors in a file, with their keys."""
    state = content.state_dict() if isinstance(content, torch.nn.Module) else content
    if not isinstance(state, dict) or depth > _DEPTH:
        return
    names = [key for key in state if isinstance(key, str)]
    tensors = {key: state[key] for key in names if isinstance(state[key], torch.Tensor)}
    if tensors:
        yield path, tensors
    for key in names:
        if key not in tensors:
            yield from _sets(state[key], f"{path}.{key}".lstrip("."), depth + 1)


def _fitted(
    key: str, weights: Mapping[str, torch.Tensor], wanted: Mapping[str, Any], prefix: str | None
) -> _Candidate:
    """The weights with prefixes removed, in the form that the module needs."""
    possible = fitting_keys(wanted)
    if prefix is not None:
        cut = {name[len(prefix) :]: v for name, v in weights.items() if name.startswith(prefix)}
        found, told = with_computed(cut, wanted)
        return _Candidate(key, found, {prefix: len(cut)} if prefix else {}, told)
    cuts = {name: _prefix_of(name, weights, possible) for name in weights}
    counts = Counter(one for one in cuts.values() if one)
    if len(counts) == 1 and not any(name in possible for name in weights):
        only = next(iter(counts))  # all fitting names have it, so the others lose it, too
        cuts = {name: only if name.startswith(only) else "" for name in weights}
    found, told = with_computed({n[len(cuts[n]) :]: value for n, value in weights.items()}, wanted)
    return _Candidate(key, found, counts, told)


def _prefix_of(name: str, weights: Mapping[str, Any], possible: Iterable[str]) -> str:
    """The prefix to remove from `name` so that it fits; empty if it fits or no prefix helps."""
    rest = name
    while rest not in possible:
        known = next((prefix for prefix in _PREFIXES if rest.startswith(prefix)), None)
        if known is None:
            return ""
        rest = rest[len(known) :]
    return "" if rest != name and rest in weights else name[: len(name) - len(rest)]


def _misfit(candidate: _Candidate, wanted: Mapping[str, Any]) -> int:
    different = set(wanted).symmetric_difference(candidate.weights)
    return sum(not _matches(name, (*_TOLERATED, *_COUNTERS)) for name in different)


def _equal(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    if one.keys() != other.keys():
        return False
    pairs = [(one[key], other[key]) for key in one]
    if any(a.layout is not torch.strided or a.is_quantized or a.is_meta for a, _ in pairs):
        return all(a is b for a, b in pairs)
    return all(a.shape == b.shape and torch.equal(a, b.to(a.dtype)) for a, b in pairs)


def _cuts(taken: _Candidate) -> tuple[str, ...]:
    """A sentence if a prefix was removed from some keys only, or several prefixes were."""
    total = len(taken.weights)
    parts = [f"'{prefix}' from {count} keys" for prefix, count in taken.cut.items()]
    if not parts or (len(parts) == 1 and next(iter(taken.cut.values())) >= total):
        return ()
    return (f"of {total} keys of the checkpoint a prefix was cut off: {', '.join(parts)}.",)


def _matches(key: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in patterns)


def without_tied(module: nn.Module, missing: list[str], weights: Mapping[str, Any]) -> list[str]:
    """Return `missing` without the names of tied tensors that the file has under another name.

    `safetensors.torch.save_model` stores a tied tensor under one of its names only.
    """
    tensors = module.state_dict(keep_vars=True)
    present = {_memory(tensors[key]) for key in weights if key in tensors}
    return [key for key in missing if _memory(tensors[key]) not in present]


def _memory(value: Any) -> tuple[Any, ...]:
    """A key that is equal for two tensors of the same shape at the same address."""
    if not isinstance(value, torch.Tensor) or value.is_meta or not value.numel():
        return (id(value),)
    return value.data_ptr(), value.shape, value.stride()


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
    owner = _common_owner(wanted, weights)
    if owner:
        lines.append(f"  All that is missing lies under '{owner}': --weights-prefix {owner}")
    lines.append(
        "  Check the factory's arguments; --allow-missing and --allow-unexpected take patterns of keys."
    )
    return "\n".join(lines)


def _names(keys: list[str], others: list[str], limit: int = 5) -> str:
    """The first keys, each with the most similar key of the other side."""
    parts = []
    for key in keys[:limit]:
        near = difflib.get_close_matches(key, others, n=1, cutoff=0.75)
        parts.append(f"'{key}' (nearest: '{near[0]}')" if near else f"'{key}'")
    if len(keys) > limit:
        parts.append(f"and {len(keys) - limit} more")
    return ", ".join(parts)


def _common_owner(wanted: Mapping[str, Any], weights: Mapping[str, torch.Tensor]) -> str:
    """The prefix of all wanted keys in the file; empty if there is none."""
    needed = [key for key in wanted if not _matches(key, _TOLERATED)]
    if not needed or needed[0] in weights:
        return ""
    ends = [key[: -len(needed[0])] for key in weights if key.endswith(f".{needed[0]}")]
    return next((owner for owner in ends if all(owner + key in weights for key in needed)), "")
