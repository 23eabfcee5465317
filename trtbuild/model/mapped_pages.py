"""Memory of weights that are mapped from files: they are used without all being in memory at once.

The pages of a mapping are clean copies of a file: once dropped they do not count as memory of this process,
and the system fetches them again from its cache. Passes write their copies of mapped weights into mapped
files too: folding in a large network costs disk space, not memory.
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
"""Bytes. Copies of weights of at least this size go into a file."""

_MMAP_THRESHOLD = -3
"""glibc's number for ``M_MMAP_THRESHOLD``."""

_LARGE_BLOCK = 1 << 22
"""Bytes. The new value of ``M_MMAP_THRESHOLD``."""

_WORTH_IT = 1 << 28
"""Bytes. From this size of mapped weights on, pages are dropped during a run."""

_INTERVAL = 0.02
"""Seconds. At a few GB/s of memory traffic, some ten MB are read in between."""


def mapped_copy(content: NDArray[Any]) -> NDArray[Any]:
    """Move an array into an unnamed file, which is deleted with the array.

    Raises:
        OSError: the temporary folder has no room for it.
    """
    with tempfile.TemporaryFile(prefix="trtbuild-") as file:
        if hasattr(os, "posix_fallocate") and content.nbytes:
            # writing a page without room on the disk would end the process (SIGBUS)
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
    """Let the C library return each large block of memory to the system when it is freed.

    Once a block of up to 32 MB has been freed, glibc keeps later blocks of that size (``M_MMAP_THRESHOLD``,
    mallopt(3)). The copies that ONNX Runtime holds of each weight for a moment would stay: a quarter of the
    weights and more. The setting lasts as long as the process, and makes large blocks slower to allocate.
    """
    with contextlib.suppress(OSError, TypeError, AttributeError):  # others have no mallopt
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _LARGE_BLOCK)


def give_back(tensors: Iterable[ir.TensorProtocol]) -> None:
    """Drop the pages of all mapped tensors among `tensors`."""
    _drop_pages([region for tensor in tensors if (region := _mapping(tensor)) is not None])


@contextlib.contextmanager
def pages_given_back(arrays: Iterable[np.memmap[Any, Any]]) -> Iterator[None]:
    """Drop the pages of mapped `arrays` periodically in the block."""
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
    """Return the mapping that holds a tensor: the network's file, or a copy that a pass wrote."""
    # imported here: the process that only runs networks reads this module without onnx_ir
    from trtbuild.model.graph_library import ir

    if isinstance(tensor, ir.ExternalTensor):
        return tensor.raw
    return _region(tensor.raw) if isinstance(tensor, ir.Tensor) else None


def _region(content: object) -> mmap.mmap | None:
    """Return the mapping that holds an array; None where it is not mapped."""
    region = getattr(content, "_mmap", None) if isinstance(content, np.memmap) else None
    return region if isinstance(region, mmap.mmap) else None


def _drop_pages(regions: Iterable[mmap.mmap]) -> None:
    if hasattr(mmap, "MADV_DONTNEED"):  # Windows has no madvise, and counts memory otherwise
        for region in regions:
            region.madvise(mmap.MADV_DONTNEED)
