"""One calibration on several processes, or on a Ray cluster: each counts parts of the data.

Workers send histograms only. Counts are exact, so the sum equals that of a single run to the bit. If a
worker is lost, its part is done again.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import multiprocessing
import os
import pickle
import signal
import threading
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from trtbuild.calibration.histograms import Histograms, collect
from trtbuild.data import shard_of
from trtbuild.errors import DataError, TrtbuildError
from trtbuild.foreign_warnings import warnings_logged
from trtbuild.machine import usable_cpus
from trtbuild.model import temporary_file
from trtbuild.progress import Progress, silent
from trtbuild.runtime.ray_cluster import joined
from trtbuild.temporaries import temporary_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from concurrent.futures import Future
    from multiprocessing.connection import Connection

    from trtbuild.calibration.network import ObservedNetwork
    from trtbuild.data import Source

__all__ = ["collect_in_processes", "collect_on_ray"]

# The result of a worker: its histograms and its warnings.
_Part: TypeAlias = "tuple[Histograms, tuple[tuple[str, str], ...]]"

# More than one part per worker, so that losing a worker costs little and progress is visible.
_PARTS_PER_WORKER = 4
_ATTEMPTS = 3


def collect_in_processes(
    network: ObservedNetwork, source: Source, workers: int, progress: Progress = silent
) -> Histograms:
    """Count on `workers` processes of this machine; the same to the bit as `collect`.

    Raises:
        DataError: as `collect`; or a part's worker was lost `_ATTEMPTS` times.
        ModelError: as `collect`.
    """
    shards = _shards(source, workers)
    threads = max(1, usable_cpus() // workers)
    found: dict[str, Histograms] = {}
    with _in_a_file(network) as saved:
        work = _packed(saved, source, threads)
        for _ in range(_ATTEMPTS):
            before = len(found)
            waiting = [shard for shard in shards if shard not in found]
            found |= _attempt(
                work,
                waiting,
                workers,
                lambda done, before=before: progress("calibrate", before + done, len(shards)),  # type: ignore[misc]
            )
            if len(found) == len(shards):
                return functools.reduce(Histograms.merge, found.values())
    raise DataError(
        f"{len(shards) - len(found)} of {len(shards)} parts of the calibration were lost {_ATTEMPTS} "
        "times: their processes ended without a message, often because memory ran out. Use fewer "
        "--workers; with --workers 1 you see what ended the process."
    )


@contextlib.contextmanager
def _in_a_file(network: ObservedNetwork) -> Iterator[ObservedNetwork]:
    """The same network in a file, which other processes of this machine can open while the block lasts."""
    if isinstance(network.model, Path):
        yield network
        return
    with temporary_file(network.model) as path:
        yield replace(network, model=path)


def _shards(source: Source, workers: int) -> list[str]:
    count = max(1, min(len(source.index.counts), workers * _PARTS_PER_WORKER))
    return [f"{index + 1}/{count}" for index in range(count)]


def _attempt(
    work: bytes, shards: Sequence[str], workers: int, progress: Callable[[int], None]
) -> dict[str, Histograms]:
    """Run `shards`, and return the histograms of those whose worker was not lost.

    Workers end when the block is left in any way, and when this process ends in any way: each has the
    reading end of a pipe, whose other end the system closes with this process.
    """
    context = multiprocessing.get_context("spawn")  # a fork would copy held locks of ONNX Runtime
    reader, held_open = context.Pipe(duplex=False)
    done: dict[str, Histograms] = {}
    with (
        reader,
        ProcessPoolExecutor(
            min(workers, len(shards)),
            mp_context=context,
            initializer=_begin_worker,
            initargs=(reader, work),
        ) as pool,
    ):
        try:
            with _interrupts_held_back():
                running = _handed_out(pool, shards)
            for future in as_completed(running):
                with contextlib.suppress(BrokenProcessPool):
                    done[running[future]], warned = future.result()
                    progress(len(done))
                    for name, text in warned:
                        logging.getLogger(name).warning("%s", text)
        except BaseException:
            held_open.close()  # the rest is not needed: workers end now, not after their part
            raise
    held_open.close()
    return done


def _handed_out(pool: ProcessPoolExecutor, shards: Sequence[str]) -> dict[Future[_Part], str]:
    """Submit `shards`; stop if a worker has died already."""
    running = {}
    with contextlib.suppress(BrokenProcessPool):
        for shard in shards:
            running[pool.submit(_collect_part, shard)] = shard
    return running


@contextlib.contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Block Ctrl-C during the block; processes started in it inherit this and never get Ctrl-C.

    Otherwise, a worker interrupted during its imports would print a traceback before it can ignore Ctrl-C.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _packed(network: ObservedNetwork, source: Source, threads: int) -> bytes:
    try:
        return pickle.dumps((network, source, threads))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise DataError(
            f"'{source.description}' cannot be sent to other processes ({error}); use --workers 1."
        ) from error


def _begin_worker(lifeline: Connection, work: bytes) -> None:
    """Keep the data for all parts of a worker; end the worker when the other end of `lifeline` is closed."""
    with contextlib.suppress(ValueError, OSError):
        signal.signal(
            signal.SIGINT, signal.SIG_IGN
        )  # the parent handles Ctrl-C and ends its workers
    _Work.packed = work
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()


def _end_with(lifeline: Connection) -> None:
    with contextlib.suppress(EOFError, OSError):
        lifeline.recv_bytes()
    os._exit(1)


class _Work:
    """Network and data of a worker; unpacked with its first part, because errors of a part are reported."""

    packed: ClassVar[bytes] = b""

    @staticmethod
    @functools.cache
    def unpacked() -> tuple[ObservedNetwork, Source, int]:
        """Return network, data and threads of this process.

        Raises:
            DataError: the data cannot be opened here.
        """
        try:
            network, source, threads = pickle.loads(_Work.packed)  # noqa: S301 - made by the parent
        except TrtbuildError:
            raise
        except Exception as error:  # the user's modules are imported here
            raise DataError(
                f"a worker process cannot open the data: {type(error).__name__}: {error}; use --workers 1."
            ) from error
        return network, source, threads


def _collect_part(shard: str) -> _Part:
    """Count one part in a worker; its warnings are returned, for the parent to log."""
    kept = _Kept()
    logging.root.addHandler(kept)
    try:
        with warnings_logged():
            network, source, threads = _Work.unpacked()
            found = collect_shard(network, source, shard, threads)
    finally:
        logging.root.removeHandler(kept)
    return found, tuple(kept.warned)


class _Kept(logging.Handler):
    """Keeps warnings, each once: pairs of the logger's name and the text."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.warned: dict[tuple[str, str], None] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one line."""
        self.warned[record.name, record.getMessage()] = None


def collect_shard(network: ObservedNetwork, source: Source, shard: str, threads: int) -> Histograms:
    """Count the samples of one shard of `source`."""
    return collect(network, shard_of(source, shard), threads=threads)


def collect_on_ray(
    network: ObservedNetwork, source: Source, address: str | None, progress: Progress = silent
) -> Histograms:
    """Count on a Ray cluster; `source` must be readable under the same paths on its machines.

    Args:
        network: the network, and the tensors to observe.
        source: the data; every task reads a part of it.
        address: address of the cluster; None starts one on this machine.
        progress: told of finished parts.

    Raises:
        MissingError: Ray is not installed, or the cluster cannot be reached.
    """
    with joined(address) as cluster:
        with _in_a_file(network) as saved:
            shared = (cluster.share(_Sent.of(saved)), cluster.share(source))
        tasks = [(*shared, shard) for shard in _shards(source, cluster.num_cpus)]
        found = []
        for _, part in cluster.results(_collect_sent, tasks):
            found.append(part)
            progress("calibrate", len(found), len(tasks))
    together: Histograms = functools.reduce(Histograms.merge, found)
    return together


@dataclass(frozen=True)
class _Sent:
    """A network to be sent to another machine."""

    network: ObservedNetwork
    files: Mapping[str, bytes] = field(repr=False)

    @classmethod
    def of(cls, saved: ObservedNetwork) -> _Sent:
        """Return a network saved in a file, with all files of the file's folder."""
        assert isinstance(saved.model, Path)
        files = {path.name: path.read_bytes() for path in saved.model.parent.iterdir()}
        return cls(replace(saved, model=Path(saved.model.name)), files)

    def unpacked_in(self, folder: Path) -> ObservedNetwork:
        """Write the files into `folder`, and return the network in it."""
        for name, content in self.files.items():
            (folder / name).write_bytes(content)
        return replace(self.network, model=folder / str(self.network.model))


def _collect_sent(sent: _Sent, source: Source, shard: str) -> Histograms:
    """Count one part on another machine."""
    with temporary_folder() as folder:
        return collect_shard(sent.unpacked_in(folder), source, shard, threads=1)
