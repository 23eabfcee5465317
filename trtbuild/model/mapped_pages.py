"""Weights that are mapped from files: used without ever being in memory all at once.

The pages of a mapping are clean copies of a file, so the system can fetch them again from its cache;
given back, they do not count as memory of this process. Copies that passes make of mapped weights
are mapped themselves: folding into a large network costs disk, not memory.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import mmap
import os
import tempfile
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import onnx_ir as ir
    from numpy.typing import NDArray

__all__ = ["LARGE", "give_back", "large_blocks_go_back", "mapped_copy", "pages_given_back"]

LARGE = 1 << 20
"""Bytes from which on a copy of a weight goes to a file."""

_MMAP_THRESHOLD = -3
"""What glibc calls it."""

_LARGE_BLOCK = 1 << 22
"""Bytes."""

_WORTH_IT = 1 << 28
"""Bytes of mapped weights from which on pages are given back during a run."""

_INTERVAL = 0.02
"""Seconds. At a few GB/s of memory traffic, some ten MB come in between."""


def mapped_copy(content: NDArray[Any]) -> NDArray[Any]:
    """Move an array into a file that has no name and goes when the array does.

    Raises:
        OSError: there is no room for it.
    """
    with tempfile.TemporaryFile(prefix="trtbuild-") as file:
        if hasattr(os, "posix_fallocate") and content.nbytes:
            # a page that finds no room when it is written would end the process (SIGBUS)
            os.posix_fallocate(file.fileno(), 0, content.nbytes)
        mapped = np.memmap(file, dtype=content.dtype, mode="w+", shape=content.shape)
        mapped[...] = content
        mapped.flush()
        region = _region(mapped)
        if region is not None:
            _drop_pages([region])
        return mapped


@functools.cache
def large_blocks_go_back() -> None:
    """Let the C library give each large block of memory back to the system when it is freed.

    glibc keeps blocks of up to 32 MB from the first one on that was freed (``M_MMAP_THRESHOLD``, mallopt(3)):
    what ONNX Runtime holds for a moment of each weight would stay, a quarter of the weights and more. It
    lasts as long as the process, and makes large blocks dearer.
    """
    with contextlib.suppress(OSError, TypeError, AttributeError):  # other C libraries have none
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _LARGE_BLOCK)


def give_back(tensors: Iterable[ir.TensorProtocol]) -> None:
    """Give back the pages of those of `tensors` that are mapped."""
    _drop_pages([region for tensor in tensors if (region := _mapping(tensor)) is not None])


@contextlib.contextmanager
def pages_given_back(arrays: Iterable[np.memmap[Any, Any]]) -> Iterator[None]:
    """Give back the pages of mapped `arrays`, again and again, in the block."""
    held = list(arrays)
    if sum(array.nbytes for array in held) < _WORTH_IT:
        yield
        return
    regions = [region for array in held if (region := _region(array)) is not None]
    done = threading.Event()

    def work() -> None:
        while not done.wait(_INTERVAL):
            _drop_pages(regions)

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    try:
        yield
    finally:
        done.set()
        worker.join()
        _drop_pages(regions)


def _mapping(tensor: ir.TensorProtocol) -> mmap.mmap | None:
    """Return the mapping that holds a tensor, of the network's file or of a copy of ours."""
    # here: who runs networks apart reads this module, and does without
    from trtbuild.model.graph_library import ir

    if isinstance(tensor, ir.ExternalTensor):
        return tensor.raw
    return _region(tensor.raw) if isinstance(tensor, ir.Tensor) else None


def _region(content: object) -> mmap.mmap | None:
    """Return the mapping that holds an array; None where it is not mapped."""
    region = getattr(content, "_mmap", None) if isinstance(content, np.memmap) else None
    return region if isinstance(region, mmap.mmap) else None


def _drop_pages(regions: Iterable[mmap.mmap]) -> None:
    if hasattr(mmap, "MADV_DONTNEED"):  # Windows has no such advice, and no such count
        for region in regions:
            region.madvise(mmap.MADV_DONTNEED)
