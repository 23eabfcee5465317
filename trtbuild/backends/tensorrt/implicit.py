"""Implicit INT8 on TensorRT 10: where the ranges come from, and how they reach the build."""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from calibrators.cache import CalibrationCache
from calibrators.feeder import BatchFeeder, InputForm
from calibrators.tensorrt import CALIBRATORS, CalibrationRun, make_calibrator
from trtbuild.backends.tensorrt.config import set_flag
from trtbuild.backends.tensorrt.profiles import make_profile
from trtbuild.backends.tensorrt.shape_inputs import shape_inputs
from trtbuild.errors import DataError, InputError, OptionError, decoding, in_one_tree
from trtbuild.migration import check_fits, tensor_names
from trtbuild.options.tensorrt import Calibrator, RangeSource
from trtbuild.quantization.scale_propagation import propagate
from trtbuild.runtime.tensorrt.engine import ShapeRange

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import onnx_ir as ir

    from trtbuild.backends.base import BuildRequest
    from trtbuild.options.tensorrt import TensorRTOptions
    from trtbuild.runtime.cuda import Device
    from trtbuild.runtime.session import Feeds
    from trtbuild.runtime.tensorrt.logger import Log
    from trtbuild.runtime.tensorrt.versions import TensorRT

__all__ = ["Calibrating", "calibrating", "calibrator_name"]

# How ranges were chosen on the host -> the calibrator of TensorRT that chooses alike.
_SAME_METHOD = {"entropy": "entropy2", "minmax": "minmax"}


@dataclass(frozen=True)
class Calibrating:
    """A configuration that will calibrate; its `run` is to be finished after the build.

    Attributes:
        run: what TensorRT asks and writes.
        source: ``device``, ``host`` or the name of a cache file, for the manifest.
        calibrator: name of the calibrator.
    """

    run: CalibrationRun
    source: str
    calibrator: str


def calibrator_name(options: TensorRTOptions, method: str) -> str:
    """Choose the calibrator: as asked, else the one that chooses ranges as `method` does."""
    if options.calibrator is not Calibrator.AUTO:
        return str(options.calibrator)
    return _SAME_METHOD.get(method, "entropy2")


@contextlib.contextmanager
def calibrating(
    tensorrt: TensorRT,
    builder: Any,
    config: Any,
    network: Any,
    request: BuildRequest,
    options: TensorRTOptions,
    device: Device | None,
    log: Log,
) -> Iterator[Calibrating]:
    """Set up a configuration for implicit INT8; buffers live until the block ends.

    Args:
        tensorrt: the installed version.
        builder: a TensorRT builder.
        config: its configuration, which gets calibrator and calibration profile.
        network: the parsed network.
        request: with the calibration and, perhaps, the data.
        options: see `RangeSource` and `Calibrator`.
        device: where batches go; only needed when TensorRT calibrates by itself.
        log: where TensorRT explains itself.

    Raises:
        InputError: the cache file is of another version or calibrator, or cannot be read.
        DataError: there is neither data nor ranges.
    """
    calibration = request.artifact.calibration
    method = calibration.method if calibration is not None else ""
    name = calibrator_name(options, method)
    set_flag(tensorrt, config, "INT8", log)
    if options.cache is not None:
        content = _checked_cache(tensorrt, request.artifact.model, options, name)
        run, source = CalibrationRun(cache=content), options.cache.name
    elif _from_device(request, options, method):
        assert request.calibration_batches is not None
        assert device is not None
        feeder = _feeder(
            *(tensorrt, builder, config, network), request.calibration_batches(), device, log
        )
        run, source = CalibrationRun(feeder), "device"
    elif calibration is not None:
        header = f"TRT-{tensorrt.number}-{CALIBRATORS[name][1]}"
        scales = _all_scales(request)
        run = CalibrationRun(cache=CalibrationCache(header, scales).to_bytes())
        source = "host"
    else:
        raise DataError(
            "implicit INT8 needs calibration data or ranges; give --data or --calibration."
        )
    config.int8_calibrator = make_calibrator(tensorrt.module, name, run)
    try:
        yield Calibrating(run, source, name)
    finally:
        if run.feeder is not None:
            run.feeder.close()


def _all_scales(request: BuildRequest) -> dict[str, np.float32]:
    """The scales of the calibration, and of tensors inside fused kernels that hold the same values."""
    calibration = request.artifact.calibration
    assert calibration is not None
    scales = {name: given.scale for name, given in calibration.ranges.items() if given.amax > 0}
    propagated = propagate(request.artifact.model, scales)
    return scales | {name: given.value for name, given in propagated.items()}


def needs_device(request: BuildRequest, options: TensorRTOptions) -> bool:
    """Whether TensorRT will calibrate by itself, so that batches must reach the GPU."""
    calibration = request.artifact.calibration
    method = calibration.method if calibration is not None else ""
    return options.cache is None and _from_device(request, options, method)


def _from_device(request: BuildRequest, options: TensorRTOptions, method: str) -> bool:
    has_data = request.calibration_batches is not None
    if options.ranges is RangeSource.DEVICE and not has_data:
        raise DataError("--ranges device lets TensorRT calibrate, which needs --data.")
    if options.ranges is not RangeSource.AUTO:
        return options.ranges is RangeSource.DEVICE
    return has_data and (not method or method in _SAME_METHOD)


def _checked_cache(
    tensorrt: TensorRT, model: ir.Model, options: TensorRTOptions, name: str
) -> bytes:
    """Read a cache file and give it the header that this TensorRT accepts, if that was allowed."""
    path = options.cache
    assert path is not None
    with decoding(OptionError, f"the calibration cache '{path}' cannot be read"):
        content = path.read_bytes()
    with in_one_tree(f"the calibration cache '{path}': "):
        cache = CalibrationCache.from_bytes(content)
    check_fits(cache, tensor_names(model))
    wanted = f"TRT-{tensorrt.number}-{CALIBRATORS[name][1]}"
    if cache.header != wanted and not options.accept_foreign_cache:
        raise InputError(
            f"the calibration cache '{path}' begins with '{cache.header}', and this TensorRT reads "
            f"'{wanted}': it would pass the cache over and calibrate again. Calibrate anew, or take its "
            "scales as they are: --accept-foreign-cache."
        )
    return CalibrationCache(wanted, cache.scales).to_bytes()


def _feeder(
    tensorrt: TensorRT,
    builder: Any,
    config: Any,
    network: Any,
    batches: Iterable[Feeds],
    device: Device,
    log: Log,
) -> BatchFeeder:
    """Start feeding; with dynamic shapes, the first batch decides the calibration profile."""
    iterator = iter(batches)
    first = next(iterator, None)
    if first is None:
        raise DataError("there is no calibration data.")
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    forms = {tensor.name: _form(tensorrt, tensor, first) for tensor in inputs}
    holding = shape_inputs(network)
    if holding or any(-1 in tuple(tensor.shape) for tensor in inputs):
        # TensorRT reads OPT alone, and wants every batch to have exactly that shape.
        ranges = {name: ShapeRange(*([form.shape] * 3)) for name, form in forms.items()}
        values = {
            name: ShapeRange(*([tuple(map(int, first[name].ravel()))] * 3)) for name in holding
        }
        if not config.set_calibration_profile(make_profile(builder, ranges, log, values)):
            raise DataError(f"TensorRT refuses to calibrate with the shapes {ranges}.")
    feeder = BatchFeeder(itertools.chain([first], iterator), forms, device)
    if not feeder.has_more():
        num_samples = feeder.num_samples_left_out
        feeder.close()
        size = next(iter(forms.values())).shape[0]
        raise DataError(
            f"there are {num_samples} calibration samples and the network takes {size} at a time. Give more "
            "data, or build the network with a smaller or dynamic batch."
        )
    return feeder


def _form(tensorrt: TensorRT, tensor: Any, first: Feeds) -> InputForm:
    if tensor.name not in first:
        raise DataError(f"the calibration data holds nothing for the input '{tensor.name}'.")
    given = first[tensor.name].shape
    shape = tuple(int(dim) for dim in tensor.shape)
    if -1 in shape:
        if len(shape) != len(given):
            raise DataError(
                f"the calibration data for '{tensor.name}' has the shape {given}; the network says {shape}."
            )
        shape = tuple(found if dim == -1 else dim for dim, found in zip(shape, given))
    dtype = tensorrt.numpy_dtype(tensor.dtype, tensor.name)
    # TensorRT calibrates an FP32 engine: floating point inputs are FP32 whatever the network declares.
    return InputForm(
        shape, np.dtype(np.float32) if dtype.kind == "f" or dtype == np.int8 else dtype
    )
