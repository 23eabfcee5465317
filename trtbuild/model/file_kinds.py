"""Tells by its first bytes what an unexpected file is."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from trtbuild.errors import InputError, decoding

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "LFS_POINTER",
    "check_is_plan",
    "check_was_fetched",
    "is_lfs_pointer",
    "other_than_onnx",
]

_LFS_KIND = "a Git LFS pointer, which stands for a file that was not fetched"
_LFS_REMEDY = "run `git lfs pull`"
LFS_POINTER = f"{_LFS_KIND}; {_LFS_REMEDY}"
"""What a Git LFS pointer is, and what to do about it."""

_LFS = b"version https://git-lfs"
_PLAN = "a TensorRT engine"
_ONNX = "give the ONNX file that it was built from"
_ZIP = b"PK\x03\x04"
# torch.export.load unpickles tensors and constants without a check.
_PROGRAM = (
    "a program of torch.export",
    (
        "reading it may run code that it holds, so load it yourself, if you trust it, and give it to "
        "Python's trtbuild.build(torch.export.load(...), ...)"
    ),
)
_TORCH = "give an ONNX file, or a module as package.module:factory with --weights"

# Offset, magic bytes, kind of file, and what to do where an ONNX file is expected.
_KINDS = (
    (0, _LFS, _LFS_KIND, _LFS_REMEDY),
    (0, b"ftrt", _PLAN, _ONNX),
    (0, b"ptrt", _PLAN, _ONNX),
    (0, b"vtrt", _PLAN, _ONNX),
    (
        4,
        b"ORTM",
        "a network in ONNX Runtime's own format",
        "give the ONNX file that it was made from",
    ),
    (4, b"TFL3", "a TensorFlow Lite network", "convert it to ONNX"),
    (0, _ZIP, "a zip archive, such as a PyTorch checkpoint or an .npz", _TORCH),
    (0, b"\x80\x02", "a pickle, such as an old PyTorch checkpoint", _TORCH),
    (0, b"\x89HDF", "an HDF5 file, such as a Keras network", "convert it to ONNX"),
    (0, b"\x1f\x8b", "compressed by gzip", "unpack it first"),
    (0, b"\x93NUMPY", "a NumPy array", "give it as --data"),
    (0, b"\x89PNG", "a picture", "give it as --data"),
    (0, b"\xff\xd8\xff", "a picture", "give it as --data"),
    (0, b"\x7fELF", "a program or library", "give the network"),
    (0, b"<", "a text, such as the page of a web server", "download the file itself"),
)

_HEAD = 1 << 16
# The tag of the field `ir_version`, with which ONNX files begin.
_IR_VERSION = 8


def is_lfs_pointer(content: bytes) -> bool:
    """Return whether `content` begins like a Git LFS pointer, which stands for a file not fetched."""
    return content.startswith(_LFS)


def check_was_fetched(path: Path, what: str, error: type[InputError] = InputError) -> None:
    """Check that `path`, called `what` in the message, is not a Git LFS pointer.

    Raises:
        error: it is one.
    """
    head = b""
    with contextlib.suppress(OSError):  # the code that reads the file reports it
        if path.is_file():
            with path.open("rb") as file:
                head = file.read(len(_LFS))
    if is_lfs_pointer(head):
        raise error(f"'{path}' is not {what}, but {LFS_POINTER}.")


def other_than_onnx(content: bytes, suffix: str = "") -> tuple[str, str] | None:
    """Return what a file is that is not ONNX, and what to do; None where its first bytes do not tell.

    Args:
        content: the beginning of the file.
        suffix: the ending of its name.
    """
    if suffix.lower() == ".pt2" and content.startswith(_ZIP):
        return _PROGRAM
    for offset, magic, kind, remedy in _KINDS:
        if content[offset : offset + len(magic)] == magic:
            return kind, remedy
    return None


def check_is_plan(path: Path) -> None:
    """Check that a file may be a TensorRT plan.

    Raises:
        InputError: it is surely something else, is empty, or cannot be read.
    """
    with decoding(InputError, f"the engine '{path}' cannot be read"), path.open("rb") as file:
        head = file.read(_HEAD)
    if len(head) > 1 and head[0] == _IR_VERSION and head[1] < 32:
        if path.suffix == ".onnx":
            raise InputError(
                f"'{path}' is an ONNX network, and no plan of TensorRT: leave --backend out, and ONNX "
                "Runtime opens it."
            )
        raise InputError(f"'{path}' is an ONNX network, which needs a name that ends in .onnx.")
    kind = _kind_of(head, path.suffix)
    if kind not in ("", _PLAN):
        raise InputError(f"'{path}' is neither a TensorRT plan nor an ONNX network, but {kind}.")


def _kind_of(head: bytes, suffix: str) -> str:
    """What the file with these first bytes is; empty where they do not tell."""
    if not head:
        return "empty"
    found = other_than_onnx(head, suffix)
    if found is not None:
        return found[0]
    return "a text" if _is_text(head) else ""


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8", "strict")
    except UnicodeDecodeError as error:
        if len(head) < _HEAD or error.start < _HEAD - 4:  # else the cut splits a character
            return False
        text = head[: error.start].decode()
    return all(letter.isprintable() or letter in "\t\r\n\f" for letter in text)
