"""Opens plans: runtime, engine, device, weights; sessions are made from the opened engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from trtbuild.errors import InputError, MissingError, ModelError, OptionError, decoding
from trtbuild.runtime.cuda import open_device
from trtbuild.runtime.tensorrt.logger import Log, explained, make_logger
from trtbuild.runtime.tensorrt.machine import explain_refusal, machine_record
from trtbuild.runtime.tensorrt.plugins import load_plugins
from trtbuild.runtime.tensorrt.runtime_cache import RuntimeCache
from trtbuild.runtime.tensorrt.streams import deserialize
from trtbuild.runtime.tensorrt.versions import RTX, TENSORRT, installed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from trtbuild.model.signature import TensorSpec
    from trtbuild.options.tensorrt import OpenOptions
    from trtbuild.runtime.tensorrt.versions import Product, TensorRT

__all__ = ["OpenedEngine", "Profile", "Shape", "ShapeRange", "refit", "weights_of"]


Shape: TypeAlias = "tuple[int, ...]"


@dataclass(frozen=True)
class ShapeRange:
    """The shapes of one input; kernels are tuned for `opt`. ``min <= opt <= max`` in each dimension."""

    min: Shape
    opt: Shape
    max: Shape

    def holds(self, shape: Shape) -> bool:
        """Return whether a shape lies between min and max."""
        return len(shape) == len(self.min) and all(
            low <= extent <= high for low, extent, high in zip(self.min, shape, self.max)
        )

    def to_json(self) -> dict[str, list[int]]:
        """Return the range as JSON types."""
        return {"min": list(self.min), "opt": list(self.opt), "max": list(self.max)}


Profile: TypeAlias = Mapping[str, ShapeRange]


class OpenedEngine:
    """A deserialized plan with the GPU that it runs on. Sessions share its weights.

    A plan holds machine code, so open only plans that you trust. Host code, which version compatible plans
    contain, runs with all rights of this process and must be allowed by an option.

    Args:
        path: file of the plan.
        options: how to open it.
        product: the product that built it.

    Raises:
        InputError: the file cannot be read, or TensorRT refuses it; the message says what it was built for.
        MissingError: TensorRT, the driver or the GPU is missing.

    Attributes:
        inputs: names, dtypes and dims of the inputs.
        outputs: the same of the outputs.
        profiles: the shapes that each optimization profile covers.
        value_profiles: for each profile, the values that it covers of inputs on the host, which hold shapes.
    """

    def __init__(self, path: Path, options: OpenOptions, product: Product = TENSORRT) -> None:
        self.tensorrt: TensorRT = installed(product)
        self.options = options
        self.log = Log()
        self._runtime_cache: RuntimeCache | None = None
        self._logger = make_logger(self.tensorrt, self.log)
        with decoding(InputError, f"the plan '{path}' cannot be read"):
            path.open("rb").close()  # fail before the GPU is opened
        self.device = open_device(options.cuda, options.device)
        try:
            with self.device.active():
                self._runtime = self._make_runtime()
                load_plugins(self.tensorrt, self._logger, self.log, options.plugins)
                self.native: Any = self._deserialize(path)
                self._refit(weights_of(path))
                self._set_weight_budget()
                self._runtime_cache = self._open_runtime_cache()
            self.inputs = self._specs("INPUT")
            self.outputs = self._specs("OUTPUT")
            self.profiles = self._profiles()
            self.value_profiles = self._value_profiles()
        except BaseException:
            self.close()
            raise

    def is_on_host(self, name: str) -> bool:
        """Return whether TensorRT reads or writes a tensor in host memory, as it does for shapes."""
        where = self.tensorrt.member("TensorLocation", "HOST")
        return bool(self.native.get_tensor_location(name) == where)

    def make_context(self) -> Any:
        """Make an execution context with its own activation memory.

        Raises:
            MissingError: there is not enough device memory.
        """
        with self.device.active(), explained(self.log, "no execution context", MissingError):
            cache = self._runtime_cache
            context = (
                cache.make_context(self.native) if cache else self.native.create_execution_context()
            )
        if context is None:
            needed = self.native.device_memory_size_v2
            raise MissingError(
                f"no execution context: {self.log.reason()}. It needs {needed / 2**20:.0f} MiB of device "
                "memory."
            )
        return context

    def choose_profile(
        self, shapes: Mapping[str, Shape], values: Mapping[str, Shape] | None = None
    ) -> int:
        """Return the number of the first optimization profile that covers these input shapes.

        Args:
            shapes: shapes of all inputs.
            values: values of the inputs on the host.

        Raises:
            ModelError: no profile does.
        """
        given = values or {}
        for index, (profile, held) in enumerate(zip(self.profiles, self.value_profiles)):
            if all(profile[name].holds(shape) for name, shape in shapes.items()) and all(
                held[name].holds(numbers) for name, numbers in given.items() if name in held
            ):
                return index
        known = "; ".join(
            f"profile {i}: " + ", ".join(f"'{n}' {r.min} to {r.max}" for n, r in p.items())
            for i, p in enumerate(self.profiles)
        )
        what = f"the input shapes {dict(shapes)}"
        if given:
            what += f" with the values {dict(given)}"
            known += "".join(
                f"; values in profile {i}: '{n}' {r.min} to {r.max}"
                for i, p in enumerate(self.value_profiles)
                for n, r in p.items()
            )
        raise ModelError(f"the engine was not built for {what}. It takes {known}.")

    def close(self) -> None:
        """Free everything. Close the sessions first. Safe to call twice.

        Raises:
            OutputError: the runtime cache cannot be written.
        """
        try:
            if self._runtime_cache is not None:
                with self.device.active():
                    self._runtime_cache.save()
        finally:
            self._runtime_cache = None
            self._release()

    def _release(self) -> None:
        self.native = None
        self._runtime = None
        self.device.close()

    def _make_runtime(self) -> Any:
        what = f"{self.tensorrt} does not start"
        with explained(self.log, what, MissingError, "Run `trtbuild doctor`."):
            runtime = self.tensorrt.module.Runtime(self._logger)
        runtime.engine_host_code_allowed = self.options.allow_host_code
        return runtime

    def _deserialize(self, path: Path) -> Any:
        with explained(self.log, f"'{path}' cannot be opened", InputError):
            engine = deserialize(self.tensorrt, self._runtime, path)
        if engine is None:
            here = machine_record(self.tensorrt.version, self.options.device)
            backend = self.tensorrt.product.backend
            raise InputError(explain_refusal(path, self.log.reason(), here, backend))
        return engine

    def _refit(self, weights: Path) -> None:
        """Give a stripped plan its weights; only stripped plans have a network file beside them."""
        if weights.is_file() and self.native.refittable:
            refit(self.tensorrt, self.native, self._logger, self.log, weights)

    def _open_runtime_cache(self) -> RuntimeCache | None:
        path = self.options.runtime_cache
        if path is None:
            return None
        if not self.tensorrt.is_rtx:
            raise OptionError(f"--runtime-cache is for {RTX.name}, and this is {self.tensorrt}.")
        return RuntimeCache(self.native, path, self.log)

    def _set_weight_budget(self) -> None:
        if not self.native.streamable_weights_size:
            return
        budget = self.options.weight_budget
        if budget is None:
            budget = self.native.get_weight_streaming_automatic_budget()
        with explained(self.log, "TensorRT refuses the budget for streamed weights", OptionError):
            self.native.weight_streaming_budget_v2 = budget
        if self.native.weight_streaming_budget_v2 != budget:
            raise OptionError(
                f"TensorRT refuses {budget} bytes as the budget for streamed weights."
            )

    def _specs(self, mode: str) -> Sequence[TensorSpec]:
        wanted = self.tensorrt.member("TensorIOMode", mode)
        names = [self.native.get_tensor_name(i) for i in range(self.native.num_io_tensors)]
        return [self._spec(name) for name in names if self.native.get_tensor_mode(name) == wanted]

    def _spec(self, name: str) -> TensorSpec:
        # imported here: it loads onnx, which is not needed to read layers
        from trtbuild.model.signature import TensorSpec

        kind = self.native.get_tensor_dtype(name)
        dtype = self.tensorrt.numpy_dtype(kind, name)
        dims = tuple(None if dim == -1 else int(dim) for dim in self.native.get_tensor_shape(name))
        return TensorSpec(name, dtype, dims)

    def _profiles(self) -> list[Profile]:
        count = self.native.num_optimization_profiles
        return [{s.name: self._range(s.name, index) for s in self.inputs} for index in range(count)]

    def _value_profiles(self) -> list[Profile]:
        count = self.native.num_optimization_profiles
        hosted = [spec.name for spec in self.inputs if self.is_on_host(spec.name)]
        found = [
            {name: self.native.get_tensor_profile_values(index, name) for name in hosted}
            for index in range(count)
        ]
        return [
            {name: ShapeRange(*(tuple(map(int, one)) for one in bounds)) for name, bounds in held.items()
             if len(bounds) == 3}
            for held in found
        ]  # fmt: skip

    def _range(self, name: str, profile: int) -> ShapeRange:
        if self.is_on_host(name):  # its profile bounds the values, not the shape
            shape = tuple(int(dim) for dim in self.native.get_tensor_shape(name))
            return ShapeRange(shape, shape, shape)
        shapes = self.native.get_tensor_profile_shape(name, profile)
        return ShapeRange(*(tuple(int(dim) for dim in shape) for shape in shapes))


def weights_of(plan: Path) -> Path:
    """Return the path of the network beside a stripped plan."""
    return plan.with_suffix(".weights.onnx")


def refit(tensorrt: TensorRT, engine: Any, logger: Any, log: Log, network: Path) -> None:
    """Put the weights of `network` into an engine.

    Args:
        tensorrt: the installed version.
        engine: deserialized from a plan that was built refittable from this network.
        logger: logger of the runtime.
        log: where the logger writes.
        network: ONNX file.

    Raises:
        ModelError: TensorRT refuses the weights; the message has its reasons.
    """
    what = f"the engine does not take the weights of '{network}'"
    remedy = "Keep the file that was written beside the plan, or build without --strip-plan."
    with explained(log, what, ModelError, remedy):
        refitter = tensorrt.module.Refitter(engine, logger)
        parser = tensorrt.module.OnnxParserRefitter(refitter, logger)
        if not parser.refit_from_file(str(network)) or not refitter.refit_cuda_engine():
            raise ModelError(f"{what}: {log.reason()}. {remedy}")
