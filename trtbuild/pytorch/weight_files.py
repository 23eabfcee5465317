"""Reads files of weights without running code: torch.save, safetensors, .npz, shards with an index.

Pickles are read with ``weights_only=True``: one that would run code is refused, and none of its code
runs.
"""

from __future__ import annotations

import json
import pathlib
import pickle
import re
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from trtbuild.errors import ModelError
from trtbuild.model.outside_weights import MAPPED_LIMIT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["read_checkpoint"]

_INDEX = ".index.json"
_IN_A_FOLDER = (
    "model.safetensors.index.json",
    "pytorch_model.bin.index.json",
    "model.safetensors",
    "pytorch_model.bin",
)
"""Files in a Hugging Face folder; the first that exists is read."""


def read_checkpoint(path: Path, *, trust: bool = False) -> Any:
    """Return the content of a checkpoint, on the CPU; no code in it runs unless `trust` is set.

    Args:
        path: a file of torch.save, ``.safetensors``, ``.npz``, the index (``.index.json``) of shards,
            or a folder with one of these under Hugging Face's names.
        trust: unpickle everything.

    Raises:
        ModelError: it is missing, damaged, not a checkpoint, or needs `trust`.
    """
    if path.is_dir():
        names = [path / name for name in _IN_A_FOLDER if (path / name).is_file()]
        if not names:
            raise ModelError(
                f"the folder '{path}' holds neither what `trtbuild prune` writes nor "
                f"{' nor '.join(_IN_A_FOLDER)}: name the file."
            )
        path = names[0]
    if not path.is_file():
        raise ModelError(f"the checkpoint '{path}' is not a file.")
    try:
        if path.name.endswith(_INDEX):
            return _read_shards(path, trust=trust)
        return _reader(path)(path, trust)
    except ModelError:
        raise
    except pickle.UnpicklingError as error:
        if not trust and _is_pickle(path):
            raise ModelError(_unsafe(path, error)) from error
        raise ModelError(f"'{path}' is not a checkpoint: {_reason(error)}") from error
    except Exception as error:
        raise ModelError(
            f"'{path}' cannot be read as a checkpoint (torch.save, safetensors or .npz): {_reason(error)} "
            "It may be cut off, a TorchScript archive, or another kind of file."
        ) from error


def _reader(path: Path) -> Callable[[Path, bool], Any]:
    return {".safetensors": _read_safetensors, ".npz": _read_npz}.get(path.suffix, _read_torch)


def _read_safetensors(path: Path, _trust: bool) -> Any:
    import safetensors.torch

    if path.stat().st_size <= MAPPED_LIMIT:
        return safetensors.torch.load(path.read_bytes())
    return safetensors.torch.load_file(path)


def _read_npz(path: Path, _trust: bool) -> Any:
    with np.load(path, allow_pickle=False) as arrays:
        return {name: torch.from_numpy(np.array(arrays[name])) for name in arrays.files}


def _read_torch(path: Path, trust: bool) -> Any:
    with warnings.catch_warnings(), torch.serialization.safe_globals(_harmless()):
        # torch warns of old pickles, which does not concern the user
        warnings.simplefilter("ignore")
        return torch.load(path, map_location="cpu", weights_only=not trust)


def _harmless() -> list[Any]:
    """Types that trainers save beside the weights and that run no code: NumPy numbers and arrays, paths."""
    numbers = [np.dtype, *(type(np.dtype(kind)) for kind in "?bBhHiIlLqQefd")]
    scalar = np.float64(0).__reduce__()[0]
    array = np.zeros(1).__reduce__()[0]
    return [*numbers, scalar, array, np.ndarray, pathlib.PosixPath, pathlib.WindowsPath]


def _read_shards(path: Path, *, trust: bool) -> dict[str, Any]:
    """All weights of an index, which maps each key to its file: ``{"weight_map": {key: file}}``."""
    index = json.loads(path.read_text(encoding="utf-8"))
    places = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(places, dict) or not places:
        raise ModelError(f"'{path}' is not an index of shards: it has no 'weight_map'.")
    found: dict[str, Any] = {}
    for name in dict.fromkeys(map(str, places.values())):
        shard = path.parent / name
        if shard.parent != path.parent:
            raise ModelError(f"'{path}' names the shard '{name}', which is not beside it.")
        content = read_checkpoint(shard, trust=trust)
        if not isinstance(content, dict):
            raise ModelError(f"the shard '{shard}' holds no weights by name.")
        found.update({key: content[key] for key in content if places.get(key) == name})
    missing = [key for key in places if key not in found]
    if missing:
        raise ModelError(f"'{path}' lists '{missing[0]}', which is not in its shard.")
    return found


def _is_pickle(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2)[:1] in (b"\x80", b"P")  # a pickle, or a zip file with one in it


def _unsafe(path: Path, error: Exception) -> str:
    wanted = re.search(r"GLOBAL (\S+)", str(error))
    reason = f"it wants to load '{wanted[1]}'" if wanted else "it is not a pickle of weights"
    return (
        f"'{path}' holds more than weights ({reason}), so nothing of it was run. "
        "Save the weights alone (torch.save(model.state_dict(), ...)), or, if you trust whoever made "
        "the file, pass --trust-checkpoint: that runs any code the file holds."
    )


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, pickle.UnpicklingError) and len(lines) > 1:
        return "it is not a pickle of weights."
    return f"{lines[0].rstrip('.')}." if lines else f"{type(error).__name__}."
