"""Saves a pruned module without pickle: the cuts as JSON, the weights as safetensors.

Loading constructs the module as usual, repeats the cuts and then loads the weights strictly.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch

from trtbuild.errors import ModelError, decoding
from trtbuild.files import atomic_path, make_directory, write_text
from trtbuild.json_codec import dumps, encode
from trtbuild.pytorch.checkpoint import load_tensors, without_tied
from trtbuild.pytorch.copies import (
    copy_module,
    make_weights_plain,
    share_again,
    shared_parameters,
    unwrapped,
)
from trtbuild.pytorch.inputs import bind_inputs
from trtbuild.pytorch.prune.dependency import build_graph, tracing
from trtbuild.pytorch.prune.key_groups import cut_key_groups, find_key_groups
from trtbuild.pytorch.prune.rewrites import rewrite_again
from trtbuild.pytorch.spec import HISTORY_FILE, WEIGHTS_FILE, InputSpec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import nn

    from trtbuild.pytorch.prune.rewrites import BlockRewrite

__all__ = [
    "PruneHistory",
    "apply_history",
    "history_of",
    "load_pruned",
    "remember",
    "save_pruned",
]

_FORMAT = 5
_KNOWN = (2, 3, 4, _FORMAT)
"""Format 2 lacks earlier histories, 3 heads that share keys, 4 their row order in one layer."""
_ATTRIBUTE = "_pruning_history"


@dataclass(frozen=True)
class PruneHistory:
    """All changes from the dense module to the pruned one.

    Attributes:
        inputs: the inputs of the trace.
        rewritten: path of each block that was rewritten first, and its plug-in.
        cuts: layer path, whether output channels were cut (else input channels), and their indices at that
            moment.
        attributes: module path -> attribute -> value, of attention blocks and norms.
        key_groups: path of an attention block whose heads share keys, the removed groups of heads, by their
            indices at that moment, and the order of its rows if one layer makes queries, keys and values.
        before: the earlier history, if a pruned module was pruned again.
    """

    inputs: tuple[InputSpec, ...]
    rewritten: tuple[tuple[str, str], ...]
    cuts: tuple[tuple[str, bool, list[int]], ...]
    attributes: dict[str, dict[str, Any]]
    key_groups: tuple[tuple[str, list[int], str], ...] = ()
    before: PruneHistory | None = None

    def to_json(self) -> str:
        """Return the history as text."""
        return dumps({"format": _FORMAT, **encode(self)})

    @classmethod
    def from_json(cls, text: str) -> PruneHistory:
        """Read what `to_json` wrote.

        Raises:
            ModelError: it is not such a text, or has an unknown format.
        """
        with decoding(ModelError, "the pruning history is damaged"):
            data = json.loads(text)
            if data["format"] not in _KNOWN:
                raise ModelError(
                    f"the pruning history has format {data['format']}; {_FORMAT} is known."
                )
            return cls._decoded(data)

    @classmethod
    def _decoded(cls, data: Mapping[str, Any]) -> PruneHistory:
        inputs = tuple(
            InputSpec(**{**given, "dims": tuple(given["dims"]),
                         "dynamic": {int(axis): name for axis, name in given["dynamic"].items()}})
            for given in data["inputs"]
        )  # fmt: skip
        cuts = tuple(
            (str(path), bool(out), [int(index) for index in indices])
            for path, out, indices in data["cuts"]
        )
        rewritten = tuple((str(path), str(name)) for path, name in data["rewritten"])
        before = data.get("before")
        earlier = None if before is None else cls._decoded(before)
        groups = tuple(
            (str(path), [int(one) for one in gone], str(*order))
            for path, gone, *order in data.get("key_groups", ())
        )
        return cls(inputs, rewritten, cuts, data["attributes"], groups, earlier)


def save_pruned(module: nn.Module, history: PruneHistory, folder: Path) -> None:
    """Write history and weights into `folder`, which is made if absent.

    Raises:
        OutputError: the folder cannot be written.
    """
    folder, module = make_directory(folder), _with_own_memory(unwrapped(module))
    with atomic_path(folder / WEIGHTS_FILE) as temporary:
        safetensors.torch.save_model(module, str(temporary))
    write_text(folder / HISTORY_FILE, history.to_json())


def _with_own_memory(module: nn.Module) -> nn.Module:
    """A copy in which no tensor is part of a larger one, or expanded, which safetensors refuses to save."""
    tensors = [*module.parameters(), *module.buffers()]
    plain = [one for one in tensors if one.layout is torch.strided]
    if all(one.nbytes == one.untyped_storage().nbytes() for one in plain):
        return module
    module = copy_module(module)
    for one in (*module.parameters(), *module.buffers()):
        one.data = one.data.clone(memory_format=torch.contiguous_format)
    return module


def remember(module: nn.Module, history: PruneHistory) -> None:
    """Store on `module` how it was pruned; copies of it, trained or not, keep that."""
    setattr(unwrapped(module), _ATTRIBUTE, history)


def history_of(module: nn.Module) -> PruneHistory | None:
    """Return how `module` was pruned, for `save_pruned` after fine-tuning; None for a dense module."""
    found = getattr(unwrapped(module), _ATTRIBUTE, None)
    return found if isinstance(found, PruneHistory) else None


def load_pruned(
    module: nn.Module, folder: Path, *, rewrites: Sequence[BlockRewrite] = ()
) -> nn.Module:
    """Prune the freshly constructed dense `module` again, in place, and load the weights.

    Args:
        module: as the factory makes it.
        folder: from `save_pruned`.
        rewrites: the plug-ins passed to `prune_channels`; installed ones are found.

    Raises:
        ModelError: it is not such a folder, or belongs to another module.
    """
    with decoding(ModelError, f"'{folder}' holds no pruned module: {HISTORY_FILE} cannot be read"):
        history = PruneHistory.from_json((folder / HISTORY_FILE).read_text(encoding="utf-8"))
    inner = unwrapped(module)
    apply_history(inner, history, rewrites)
    with decoding(ModelError, f"the weights in '{folder}' do not fit the pruned module"):
        _load_all(inner, safetensors.torch.load_file(folder / WEIGHTS_FILE))
    remember(module, history)
    return module


def _load_all(module: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Load weights, which must be exactly those of the module.

    Raises:
        ValueError: some are missing or unexpected.
    """
    here = module.state_dict()
    missing = without_tied(module, [name for name in here if name not in weights], weights)
    unexpected = [name for name in weights if name not in here]
    if missing or unexpected:
        names = ", ".join(map(repr, (missing or unexpected)[:3]))
        raise ValueError(f"{'the file lacks' if missing else 'the module lacks'} {names}")
    load_tensors(module, weights)


def apply_history(
    module: nn.Module, history: PruneHistory, rewrites: Sequence[BlockRewrite] = ()
) -> None:
    """Cut `module` in place as `history` says.

    Raises:
        ModelError: it names a layer or a channel that this module does not have.
    """
    if history.before is not None:
        apply_history(module, history.before, rewrites)
    make_weights_plain(module)
    shared = shared_parameters(module)
    with decoding(ModelError, "the pruning history belongs to another module"):
        rewrite_again(module, history.rewritten, rewrites)
        bound = bind_inputs(module, history.inputs)
        with tracing(module, bound):
            graph = build_graph(module, bound)
            for path, out, indices in history.cuts:
                _cut_again(graph, module, path, out=out, indices=indices)
        for path, gone, order in history.key_groups:
            _cut_keys_again(module, path, gone, order)
        share_again(module, shared)
        for path, values in history.attributes.items():
            for name, value in values.items():
                given = tuple(value) if isinstance(value, list) else value
                setattr(module.get_submodule(path), name, given)


def _cut_keys_again(module: nn.Module, path: str, gone: list[int], order: str) -> None:
    blocks = (one for block in find_key_groups(module) for one in block.orders)
    block = next((one for one in blocks if (one.path, one.order) == (path, order)), None)
    if block is None or not 0 <= min(gone) <= max(gone) < block.groups(module) > len(set(gone)):
        raise ModelError(f"the pruning history cuts heads that '{path}' has not.")
    cut_key_groups(module, block, gone)


def _cut_again(graph: Any, module: nn.Module, path: str, *, out: bool, indices: list[int]) -> None:
    layer = module.get_submodule(path)
    pruner = graph.get_pruner_of_module(layer)
    width = (pruner.get_out_channels if out else pruner.get_in_channels)(layer)
    # Without this check Torch-Pruning would cut attribute and tensor differently.
    if not indices or min(indices) < 0 or max(indices) >= width or len(set(indices)) >= width:
        raise ModelError(
            f"the pruning history cuts channels that '{path}' (width {width}) has not."
        )
    cut = pruner.prune_out_channels if out else pruner.prune_in_channels
    graph.get_pruning_group(layer, cut, indices).prune()
