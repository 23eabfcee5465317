"""Implicit INT8 on TensorRT 10: where the ranges come from, and how the build gets them."""

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
from trtbuild.wording import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import onnx_ir as ir

    from trtbuild.backends.base import BuildRequest
    from trtbuild.backends.tensorrt.open_builder import OpenBuilder
    from trtbuild.options.tensorrt import TensorRTOptions
    from trtbuild.runtime.cuda import Device
    from trtbuild.runtime.session import Feeds
    from trtbuild.runtime.tensorrt.versions import TensorRT

__all__ = ["ImplicitRanges", "calibrating", "calibrator_name", "choose_ranges"]

# Method that chose ranges on the host -> TensorRT's calibrator with the same method.
_SAME_METHOD = {"entropy": "entropy2", "minmax": "minmax"}


@dataclass(frozen=True)
class ImplicitRanges:
    """Where the ranges of an implicit build come from.

    Attributes:
        calibrator: name of TensorRT's calibrator.
        source: ``device``, ``host`` or the name of a cache file, for the manifest.
        cache: the calibration cache with the ranges; None if TensorRT calibrates by itself, on batches that
            are fed to the GPU.
    """

    calibrator: str
    source: str
    cache: bytes | None = None


def calibrator_name(options: TensorRTOptions, method: str) -> str:
    """Return the calibrator's name: as asked for, else the calibrator with the same method as `method`."""
    if options.calibrator is not Calibrator.AUTO:
        return str(options.calibrator)
    return _SAME_METHOD.get(method, "entropy2")


def choose_ranges(tensorrt: TensorRT, request: BuildRequest) -> ImplicitRanges:
    """Return where ranges come from: the options say it, else the data or calibration at hand.

    Args:
        tensorrt: the installed version.
        request: the request, for its options (see `RangeSource`, `Calibrator`), calibration and data.

    Raises:
        InputError: the cache file is of another version or calibrator, or cannot be read.
        DataError: there is neither data nor ranges.
    """
    options, calibration = request.options, request.artifact.calibration
    method = calibration.method if calibration is not None else ""
    name = calibrator_name(options, method)
    if options.cache is not None:
        content = _checked_cache(tensorrt, request.artifact.model, options, name)
        return ImplicitRanges(name, options.cache.name, content)
    if _from_device(request, method):
        return ImplicitRanges(name, "device")
    if calibration is None:
        raise DataError(
            "implicit INT8 needs calibration data or ranges; give --data or --calibration."
        )
    header = f"TRT-{tensorrt.number}-{CALIBRATORS[name][1]}"
    return ImplicitRanges(name, "host", CalibrationCache(header, _all_scales(request)).to_bytes())


@contextlib.contextmanager
def calibrating(
    builder: OpenBuilder,
    network: Any,
    ranges: ImplicitRanges,
    batches: Callable[[], Iterable[Feeds]] | None,
    device: Device | None,
) -> Iterator[CalibrationRun]:
    """Set up a configuration for implicit INT8; buffers live until the block ends.

    Call `CalibrationRun.finish` after the build.

    Args:
        builder: its configuration gets the calibrator and the calibration profile.
        network: the parsed network.
        ranges: see `choose_ranges`.
        batches: starts a pass over the data; needed only if TensorRT calibrates by itself.
        device: where batches go; likewise.

    Raises:
        DataError: there is no data, or less than one batch.
    """
    set_flag(builder, "INT8")
    run = CalibrationRun(cache=ranges.cache)
    if ranges.cache is None:
        assert batches is not None
        assert device is not None
        run.feeder = _feeder(builder, network, batches(), device)
    module = builder.tensorrt.module
    builder.config.int8_calibrator = make_calibrator(module, ranges.calibrator, run)
    try:
        yield run
    finally:
        if run.feeder is not None:
            run.feeder.close()


def _all_scales(request: BuildRequest) -> dict[str, np.float32]:
    """The calibration's scales, also for tensors inside fused kernels that hold the same values."""
    calibration = request.artifact.calibration
    assert calibration is not None
    scales = {name: given.scale for name, given in calibration.ranges.items() if given.amax > 0}
    propagated = propagate(request.artifact.model, scales)
    return scales | {name: given.value for name, given in propagated.items()}


def _from_device(request: BuildRequest, method: str) -> bool:
    options = request.options
    has_data = request.calibration_batches is not None
    if options.ranges is RangeSource.DEVICE and not has_data:
        raise DataError("--ranges device lets TensorRT calibrate, which needs --data.")
    if options.ranges is not RangeSource.AUTO:
        return options.ranges is RangeSource.DEVICE
    return has_data and (not method or method in _SAME_METHOD)


def _checked_cache(
    tensorrt: TensorRT, model: ir.Model, options: TensorRTOptions, name: str
) -> bytes:
    """Read a cache file; give it the header that this TensorRT accepts, if the options allow that."""
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
            f"the calibration cache '{path}' begins with '{cache.header}', but this TensorRT reads "
            f"'{wanted}': it would ignore the cache and calibrate. Make a new cache, or take its "
            "scales as they are: --accept-foreign-cache."
        )
    return CalibrationCache(wanted, cache.scales).to_bytes()


def _feeder(
    builder: OpenBuilder, network: Any, batches: Iterable[Feeds], device: Device
) -> BatchFeeder:
    """Start feeding batches; with dynamic shapes, the first batch decides the calibration profile."""
    iterator = iter(batches)
    first = next(iterator, None)
    if first is None:
        raise DataError("there is no calibration data.")
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    forms = {tensor.name: _form(builder.tensorrt, tensor, first) for tensor in inputs}
    holding = shape_inputs(network)
    if holding or any(-1 in tuple(tensor.shape) for tensor in inputs):
        # TensorRT reads only OPT, and every batch must have exactly that shape.
        ranges = {name: ShapeRange(*([form.shape] * 3)) for name, form in forms.items()}
        values = {
            name: ShapeRange(*([tuple(map(int, first[name].ravel()))] * 3)) for name in holding
        }
        if not builder.config.set_calibration_profile(make_profile(builder, ranges, values)):
            raise DataError(f"TensorRT refuses to calibrate with the shapes {ranges}.")
    feeder = BatchFeeder(itertools.chain([first], iterator), forms, device)
    if not feeder.has_more():
        num_samples = feeder.num_samples_left_out
        feeder.close()
        size = next(iter(forms.values())).shape[0]
        raise DataError(
            f"the calibration data hold {counted(num_samples, 'sample')}, but the network takes {size} "
            "at a time. Give more data, or build the network with a smaller or dynamic batch."
        )
    return feeder


def _form(tensorrt: TensorRT, tensor: Any, first: Feeds) -> InputForm:
    if tensor.name not in first:
        raise DataError(f"the calibration data has no array for the input '{tensor.name}'.")
    given = first[tensor.name].shape
    shape = tuple(int(dim) for dim in tensor.shape)
    if -1 in shape:
        if len(shape) != len(given):
            raise DataError(
                f"the calibration data for '{tensor.name}' has the shape {given}; the network needs {shape}."
            )
        shape = tuple(found if dim == -1 else dim for dim, found in zip(shape, given))
    dtype = tensorrt.numpy_dtype(tensor.dtype, tensor.name)
    # TensorRT calibrates an FP32 engine: floating point inputs are FP32 whatever the network declares.
    return InputForm(
        shape, np.dtype(np.float32) if dtype.kind == "f" or dtype == np.int8 else dtype
    )
