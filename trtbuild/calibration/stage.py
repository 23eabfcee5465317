"""The calibration stage: adds a range for every tensor that needs one to an artifact."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from calibrators import Calibration, Histogram, TensorRange, choose
from calibrators.grid import magnitude_index
from trtbuild.artifact import Artifact, EarlyStop, Record
from trtbuild.calibration.early_stopping import collect_until_stable, spreads
from trtbuild.calibration.histograms import collect, collect_on_device, open_observed
from trtbuild.calibration.network import observed_network
from trtbuild.calibration.reuse import provenance_of
from trtbuild.calibration.user_rules import know_rule
from trtbuild.errors import DataError, OptionError, in_one_tree
from trtbuild.options.calibrate import AS_TENSORRT, CalibrateOptions
from trtbuild.progress import Progress, silent, with_progress
from trtbuild.wording import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import onnx_ir as ir

    from calibrators.methods import Stability
    from trtbuild.calibration.histograms import Histograms, Listener
    from trtbuild.calibration.network import ObservedNetwork
    from trtbuild.data import DataDigest, Sample, Source
    from trtbuild.runtime.onnxruntime import OnnxRuntimeSession

__all__ = ["calibrate", "check_method", "opener"]


def calibrate(
    artifact: Artifact,
    source: Source,
    tensors: Sequence[str],
    options: CalibrateOptions | None = None,
    progress: Progress = silent,
    listener: Listener | None = None,
    *,
    earlier: Calibration | None = None,
    session: OnnxRuntimeSession | None = None,
) -> Artifact:
    """Run samples through the artifact's float network and choose a range for each of `tensors`.

    Args:
        artifact: has the network to observe.
        source: the samples.
        tensors: names of the tensors to observe.
        options: how ranges are chosen, and where the samples run.
        progress: told of finished samples or parts.
        listener: gets the network's outputs for samples of a known class; not used if samples run in
            other processes or on a device, or with the rule `AS_TENSORRT`.
        earlier: a calibration of the same source, from before the search changed the network.
        session: the result of `opener` for this network, these tensors and `options`.

    Raises:
        DataError: there is no sample, one does not load, or a tensor holds NaN or infinity.
        OptionError: the method or its options are unknown.
        MissingError: the options ask for Ray, and it is not installed.
    """
    options = options or CalibrateOptions()
    check_method(options)
    if options.rule == AS_TENSORRT:
        from trtbuild.calibration.as_tensorrt import calibrate_as_tensorrt

        provenance = _provenance(artifact, source.index.digest, options, earlier)
        samples = _told(source, progress)
        calibration = calibrate_as_tensorrt(
            artifact.model, samples, tensors, options.batch_size, provenance=provenance
        )
        return _with(artifact, calibration, {})
    listener = None if _is_elsewhere(options) else listener
    network = observed_network(
        artifact.model, tensors, () if listener is None else listener.outputs
    )
    collector = _collector(network, options, progress, listener, session)
    with ThreadPoolExecutor(1) as beside:
        # computes and caches the digest of all weights while the samples run
        beside.submit(provenance_of, artifact.source, earlier)
        statistics, early_stop = _collected(collector, source, options)
    if not statistics.num_samples:
        raise DataError("there are no calibration samples.")
    with in_one_tree():
        provenance = _provenance(artifact, statistics.data, options, earlier)
        calibration, unseen = _ranges(statistics, options, provenance)
        amaxes = {n: amax for n, amax in calibration.amaxes.items() if n not in unseen}
        found = spreads(statistics, amaxes, options)
        return _with(artifact, calibration, found, early_stop)


def opener(
    model: ir.Model, tensors: Sequence[str], options: CalibrateOptions
) -> Callable[[], OnnxRuntimeSession | None]:
    """Return what opens the session that `calibrate` will use, before the samples are known.

    It returns None if `calibrate` opens its own, and raises a ModelError if ONNX Runtime cannot load the
    network, an OutputError if the temporary folder has no room for a large network's weights. The network is
    copied here: another thread that did so could not be interrupted.
    """
    if _is_elsewhere(options) or options.rule == AS_TENSORRT:
        return lambda: None
    return functools.partial(open_observed, observed_network(model, tensors))


def _is_elsewhere(options: CalibrateOptions) -> bool:
    """Whether samples run in other processes, on a Ray cluster, or on a device."""
    return options.ray is not None or options.device != "cpu" or options.workers > 1


# The range of a tensor that is empty in every sample, and so needs no scale.
_NO_RANGE = TensorRange(0.0, 0.0, 0.0, 0.0, "none", "no value was seen", 0, 0)


def _ranges(
    statistics: Histograms, options: CalibrateOptions, provenance: Mapping[str, str]
) -> tuple[Calibration, frozenset[str]]:
    """The range of every tensor, and the names of tensors without any value."""
    histograms = statistics.together.histograms
    calibration = Calibration.from_histograms(
        {name: one for name, one in histograms.items() if one.num_values},
        options.rule,
        options=options.method_options,
        provenance=provenance,
    )
    unseen = {name: _NO_RANGE for name, one in sorted(histograms.items()) if not one.num_values}
    if unseen:
        ranges = {**calibration.ranges, **unseen}
        calibration = replace(calibration, ranges=ranges, histograms=histograms)
    return calibration, frozenset(unseen)


def _collector(
    network: ObservedNetwork,
    options: CalibrateOptions,
    progress: Progress,
    listener: Listener | None,
    session: OnnxRuntimeSession | None,
) -> Callable[[Source], Histograms]:
    if options.ray is not None:
        from trtbuild.calibration.shards import collect_on_ray

        return lambda source: collect_on_ray(network, source, options.ray or None, progress)
    if options.device != "cpu":
        return lambda source: collect_on_device(network, _told(source, progress), options.device)
    if options.workers > 1:
        from trtbuild.calibration.shards import collect_in_processes

        return lambda source: collect_in_processes(network, source, options.workers, progress)
    session = session or open_observed(network)
    return lambda source: collect(
        network, _told(source, progress), session=session, listener=listener
    )


def _collected(
    collector: Callable[[Source], Histograms], source: Source, options: CalibrateOptions
) -> tuple[Histograms, EarlyStop | None]:
    """The histograms of all samples, or of as many as make ranges stable, and how that ended."""
    if options.until_stable is None:
        return collector(source), None
    return collect_until_stable(collector, source, options.until_stable, options)


def _told(source: Source, progress: Progress) -> Iterator[Sample]:
    return with_progress(source, "calibrate", len(source.index), progress)


def _provenance(
    artifact: Artifact,
    data: DataDigest,
    options: CalibrateOptions,
    earlier: Calibration | None,
) -> dict[str, str]:
    found = {
        **provenance_of(artifact.source, earlier),
        "data": str(data),
        "num_samples": str(data.num_samples),
        "preprocess": options.preprocess,
    }
    if options.device != "cpu":
        found["device"] = options.device
    if options.rule == AS_TENSORRT:
        found["batch_size"] = str(options.batch_size)
    return found


def _with(
    artifact: Artifact,
    calibration: Calibration,
    found: Mapping[str, Stability],
    early_stop: EarlyStop | None = None,
) -> Artifact:
    halves_apart = {name: entry.spread for name, entry in found.items()}
    samples = int(calibration.provenance["num_samples"])
    record = Record(
        "calibrate",
        f"{counted(len(calibration.ranges), 'tensor')} observed over {counted(samples, 'sample')}, "
        f"{calibration.method} thresholds" + (f"; {early_stop}" if early_stop else ""),
        {
            "method": calibration.method,
            "options": dict(calibration.options),
            **calibration.provenance,
            "spread": halves_apart,
            "until_stable": early_stop,
            "notes": {n: given.note for n, given in calibration.ranges.items() if given.note},
        },
    )
    return artifact.having(
        record, calibration=calibration, halves_apart=halves_apart, early_stop=early_stop
    )


def check_method(options: CalibrateOptions) -> None:
    """Try the rule on a single value, so that a wrong option is found before the data is counted.

    Raises:
        OptionError: there is no such method, or it does not take these options.
    """
    if options.rule == AS_TENSORRT:
        for name in options.method_options:
            raise OptionError(f"{AS_TENSORRT} has no option '{name}'; leave it out.")
        return
    know_rule(options.rule)
    probe = Histogram.from_bins(
        np.array([magnitude_index(1.0)]), np.array([1]),
        num_zeros=0, num_nan=0, num_inf=0, minimum=1.0, maximum=1.0,
    )  # fmt: skip
    with in_one_tree():
        choose(probe, options.rule, **options.method_options)
