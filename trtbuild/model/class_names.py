"""The names of a network's classes, from the metadata of its file.

Ultralytics writes ``names``, a Python dict from number to name. PaddleOCR's exports have ``character``, one
character a line: class 0 is the blank, and a space follows the last character.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir

__all__ = ["class_names"]


def class_names(model: ir.Model) -> Mapping[int, str]:
    """Return class -> name; empty where the metadata of `model` have no names."""
    metadata = model.metadata_props
    if "character" in metadata:
        characters = [*metadata["character"].splitlines(), " "]
        return dict(enumerate(characters, 1))
    try:
        found = ast.literal_eval(metadata.get("names", "{}"))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return {}
    known = dict(enumerate(found)) if isinstance(found, list | tuple) else found
    if not isinstance(known, dict):
        return {}
    return {number: str(name) for number, name in known.items() if isinstance(number, int)}
