"""Counts activations in histograms; in two halves of the data, to measure how stable thresholds are."""

from __future__ import annotations

import contextlib
import functools
import threading
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from calibrators import Collector
from calibrators.histogram import as_float32, load_compiled
from trtbuild.calibration.observe import Observer, observe
from trtbuild.data import DataDigest
from trtbuild.errors import DataError
from trtbuild.machine import usable_cpus
from trtbuild.model.collecting import collector_at_rest, collector_on_new_objects
from trtbuild.runtime.blocked_layout import open_blocked
from trtbuild.runtime.onnxruntime import Execution, open_session

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from trtbuild.calibration.network import ObservedNetwork
    from trtbuild.calibration.observe import Place
    from trtbuild.data import Sample
    from trtbuild.runtime.onnxruntime import OnnxRuntimeSession

__all__ = [
    "Histograms",
    "Listener",
    "collect",
    "collect_on_device",
    "load_ahead",
    "open_observed",
    "refuse_non_finite",
]


class Histograms(Observer):
    """Counts the values of every tensor; a bit of each sample's key assigns it to one of two halves.

    The key depends on the sample's content only, so the counts are the same to the bit for any order,
    batching and sharding.

    Args:
        first, second: the collectors of the two halves, of the same tensors.
        data: digest of the samples counted.
    """

    def __init__(self, first: Collector, second: Collector, data: DataDigest) -> None:
        self.first, self.second, self.data = first, second, data

    @classmethod
    def of(cls, tensors: Iterable[str]) -> Histograms:
        """Return an empty observer of these tensors."""
        names = sorted(tensors)
        return cls(Collector(names), Collector(names), DataDigest())

    @property
    def tensors(self) -> Collection[str]:
        """Names of the tensors that are counted."""
        return self.first.histograms.keys()

    def group(self, key: bytes) -> int:
        """Return the half that a sample belongs to."""
        return key[0] & 1

    def update(self, tensors: Mapping[str, Any], places: Sequence[Place]) -> None:
        """Count the tensors of some samples of one half; see `Observer`.

        Raises:
            DataError: one of them holds NaN or infinity.
        """
        for place in places:
            self.data = self.data.plus(place.key)
        half = (self.first, self.second)[self.group(places[0].key)]
        arrays = {name: v for name, v in tensors.items() if isinstance(v, np.ndarray)}
        half.observe(arrays, batch=places[0].number)
        for name in tensors.keys() - arrays.keys():
            _count_on_device(half, name, tensors[name], places)
        if half.non_finite:
            _refuse_first(half, tensors, places)

    def merge(self, other: Histograms) -> Histograms:
        """Return the counts of both; exact, associative and commutative."""
        return Histograms(
            self.first.merge(other.first),
            self.second.merge(other.second),
            self.data.merge(other.data),
        )

    @property
    def num_samples(self) -> int:
        """Number of samples counted."""
        return self.data.num_samples

    @property
    def together(self) -> Collector:
        """Both halves merged."""
        return self.first.merge(self.second)


class Listener(Protocol):
    """Gets the network's outputs for samples of a known class while they are counted, from any thread."""

    @property
    def outputs(self) -> Collection[str]:
        """Names of the outputs that it gets."""
        ...

    def hear(self, outputs: Mapping[str, np.ndarray], label: int) -> None:
        """Take the outputs of one sample, each with the output's own axes, and the sample's class."""
        ...


class _WithListener(Observer):
    """Passes tensors to histograms, and outputs to a listener."""

    def __init__(self, counted: Histograms, listener: Listener) -> None:
        self.counted, self._listener = counted, listener

    @property
    def tensors(self) -> Collection[str]:
        """Names of the tensors that it observes."""
        return {*self.counted.tensors, *self._listener.outputs}

    def group(self, key: bytes) -> int:
        """Return the half that a sample belongs to."""
        return self.counted.group(key)

    def update(self, tensors: Mapping[str, Any], places: Sequence[Place]) -> None:
        """Take the tensors of some samples; see `Observer`."""
        outputs = {name: tensors[name] for name in self._listener.outputs if name in tensors}
        for row, place in enumerate(places):
            if place.label is not None:
                one = {name: np.asarray(values[row]) for name, values in outputs.items()}
                self._listener.hear(one, place.label)
        counted = self.counted.tensors
        self.counted.update({n: values for n, values in tensors.items() if n in counted}, places)


def collect(
    network: ObservedNetwork,
    samples: Iterable[Sample],
    *,
    session: OnnxRuntimeSession | None = None,
    listener: Listener | None = None,
    threads: int | None = None,
) -> Histograms:
    """Count the values of the observed tensors over `samples`; the same to the bit in any order.

    Args:
        network: the network, and the tensors to observe.
        samples: the samples to run.
        session: the network's session from `open_observed`; None opens one.
        listener: gets the outputs that it names, which the network must have.
        threads: number of threads, each running one sample at a time; None for one per core.

    Raises:
        DataError: a sample does not load, or a tensor holds NaN or infinity.
        ModelError: the network cannot be run on a sample.
    """
    load_ahead()
    session = session or open_observed(network)
    histograms = [Histograms.of(network.tensors) for _ in range(threads or usable_cpus())]
    observers: Sequence[Observer] = histograms
    if listener is not None:
        observers = [_WithListener(one, listener) for one in histograms]
    with collector_on_new_objects():
        observe(session, samples, observers, static_batch=network.static_batch)
    return functools.reduce(Histograms.merge, histograms)


def open_observed(network: ObservedNetwork) -> OnnxRuntimeSession:
    """Open a session for `collect`, which runs each sample on one thread.

    Raises:
        ModelError: ONNX Runtime cannot load it.
        OutputError: the temporary folder has no room for a large network's weights.
    """
    with collector_at_rest():
        return open_blocked(network.model, threads=1)


@functools.cache
def load_ahead() -> None:
    """Start compiling the counting loops in a thread, so that the first sample need not wait for them.

    Meanwhile ONNX Runtime opens the network without the interpreter lock, and passes are compared in
    another process.
    """
    threading.Thread(target=_load_compiled, name="loads compiled code").start()


def _load_compiled() -> None:
    with contextlib.suppress(Exception):  # counting will raise the same error
        load_compiled()


def collect_on_device(
    network: ObservedNetwork,
    samples: Iterable[Sample],
    device: str = "cuda",
) -> Histograms:
    """Count the values of the observed tensors on the device that computes them; only counts reach the host.

    Every sample runs alone, so the result does not depend on the order. A GPU sums in another order than a
    CPU: activations, and so ranges, are close to those of `collect`, not equal.

    Args:
        network: the network, and the tensors to observe.
        samples: the samples to run.
        device: ``cuda``, or ``cpu``.

    Raises:
        DataError: a sample does not load, or a tensor holds NaN or infinity.
        MissingError: PyTorch or ONNX Runtime's CUDA provider is not installed.
        ModelError: the network cannot be run on a sample.
    """
    from trtbuild.pytorch import require_torch

    require_torch()
    observer = Histograms.of(network.tensors)
    observe(
        open_session(network.model, Execution.FLOAT, threads=1, device=device),
        samples,
        [observer],
        static_batch=network.static_batch,
        on_device=True,
    )
    return observer


def _count_on_device(
    collector: Collector, name: str, values: Sequence[Any], places: Sequence[Place]
) -> None:
    from trtbuild.pytorch.device_histogram import device_histogram

    for tensor, place in zip(values, places):
        collector.add(name, device_histogram(tensor), batch=place.number)


def _refuse_first(
    collector: Collector, tensors: Mapping[str, Any], places: Sequence[Place]
) -> None:
    """Raise the error of `refuse_non_finite` for the first sample with NaN or infinity."""
    for row, place in enumerate(places):
        # as float32, like the counts: a finite float64 may be too large for it
        held = [
            name
            for name, values in tensors.items()
            if not isinstance(values, np.ndarray) or not np.isfinite(as_float32(values[row])).all()
        ]
        refuse_non_finite(collector, f"for {place}", in_order=held)


def refuse_non_finite(collector: Collector, where: str, in_order: Sequence[str]) -> None:
    """Refuse NaN and infinity.

    Args:
        collector: the counts.
        where: sample or batch, for the message.
        in_order: names of the observed tensors, in the order in which the network computes them.

    Raises:
        DataError: a tensor holds one; the message names the first such tensor, and the place.
    """
    found = {entry.tensor: entry.kind for entry in collector.non_finite}
    for tensor in in_order:
        if tensor not in found:
            continue
        kind = "NaN" if found[tensor] == "nan" else "infinity"
        raise DataError(
            f"the tensor '{tensor}' holds {kind} {where}; check the data and the weights, or "
            "keep its readers in float with --float."
        )
