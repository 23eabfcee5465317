"""Runs networks in ONNX Runtime: the float reference, and engines of the embedded backend.

All sessions of ONNX Runtime are opened here.
"""

from __future__ import annotations

import functools
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbuild.enums import StrEnum
from trtbuild.errors import ExecutionError, MissingError, ModelError
from trtbuild.machine import multiplies_exactly, usable_cpus
from trtbuild.model.signature import BATCH_AXES, TensorSpec, read_batch_axes, with_batch_axes
from trtbuild.runtime.onnxruntime_weights import (
    for_exact_kernels,
    is_mapped,
    readable,
    with_float_weights_apart,
)
from trtbuild.whereabouts import busy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import onnx_ir as ir
    import onnxruntime as ort

    from trtbuild.model.signature import Signature
    from trtbuild.runtime.session import Feeds

__all__ = [
    "Execution",
    "OnnxRuntimeSession",
    "has_operator",
    "let_run",
    "open_session",
    "opening_beside",
]


class Execution(StrEnum):
    """How a network is run.

    FAST: all optimizations, INT8 kernels where Q/DQ allow; what is deployed and timed.
    REFERENCE: the graph exactly as written, node by node, in float; what accuracy is judged on.
    FLOAT: all float optimizations, but Q/DQ are computed as written.
    """

    FAST = "fast"
    FLOAT = "float"
    REFERENCE = "reference"


_PROVIDERS: dict[str, tuple[str, dict[str, str]]] = {
    "cpu": ("CPUExecutionProvider", {}),
    # TF32 would change activations by a thousandth
    "cuda": ("CUDAExecutionProvider", {"use_tf32": "0"}),
}
_NO_CUDA = (
    "ONNX Runtime has no CUDA provider here: install onnxruntime-gpu in place of onnxruntime, with the CUDA "
    "version that it asks for; or leave --calibrate-on out."
)

# "[ONNXRuntimeError] : 1 : FAIL : Fatal error: " before the actual message
_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : (Fatal error: )?")

# "/onnxruntime_src/onnxruntime/core/a.h:70 signature condition was false. " before the reason
_CHECKED_AT = re.compile(r"^\S+\.(cc|h):\d+ .* was false\. (?=\S)")

_FLOAT_DTYPES = {"float": "float32", "float16": "float16", "double": "float64", "bool": "bool"}


class _Stop:
    """Tells ONNX Runtime to give up opening networks."""

    def __init__(self) -> None:
        self._is_set = False
        self._opening: list[ort.SessionOptions] = []

    def heed(self, options: ort.SessionOptions) -> None:
        """Let `set` also stop the opening of a network with `options`.

        Raises:
            ExecutionError: `set` was called before.
        """
        self._opening.append(options)
        if self._is_set:
            reason = "it is not wanted any more"
            raise ExecutionError(f"the network is not opened: {reason}.", reason)

    def set(self) -> None:
        """Stop the networks that are being opened, and refuse to open more."""
        self._is_set = True
        for options in self._opening:
            options.set_load_cancellation_flag(True)


# Held while the options of all runs are made, which the first runs of two threads must share.
_FIRST_RUN = threading.Lock()

# The stop signal of the threads of `opening_beside`.
_STOP: ContextVar[_Stop | None] = ContextVar("stop", default=None)


@contextmanager
def opening_beside(threads: int = 1) -> Iterator[ThreadPoolExecutor]:
    """Yield threads that open networks while the block does something else; they end with the block.

    If the block raises an error, or Ctrl-C stops it, networks are no longer opened: to finish may take ONNX
    Runtime many seconds. Waiting tasks do not start.
    """
    stop = _Stop()
    with ThreadPoolExecutor(threads, initializer=_STOP.set, initargs=(stop,)) as pool:
        try:
            yield pool
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _run_options() -> ort.RunOptions:
    """The options of every run in this process; ONNX Runtime looks at their flag before each node."""
    with _FIRST_RUN:
        return _made_options()


@functools.cache
def _made_options() -> ort.RunOptions:
    import onnxruntime as ort

    return ort.RunOptions()


def let_run(may: bool) -> None:
    """Allow runs, or stop those in this process, which then raise ExecutionError, and all later ones."""
    _run_options().terminate = not may


class OnnxRuntimeSession:
    """A network opened in ONNX Runtime; satisfies `trtbuild.runtime.session.Session`.

    Attributes:
        overridable: names of the initializers that `run` accepts in place of the stored ones.
    """

    def __init__(self, session: ort.InferenceSession, device: str = "cpu") -> None:
        self._session: ort.InferenceSession | None = session
        self._device = device
        signature = _signature(session)
        self.inputs, self.outputs = signature.inputs, signature.outputs
        self.overridable = tuple(a.name for a in session.get_overridable_initializers())
        self._output_names = [spec.name for spec in self.outputs]

    def run(self, feeds: Feeds) -> dict[str, np.ndarray]:
        """Run once.

        Raises:
            ExecutionError: an input is missing, has the wrong shape or dtype, or an operator fails.
            ModelError: the session has been closed.
        """
        session = self._opened()
        with _explained():
            outputs = session.run(self._output_names, dict(feeds), _run_options())
        return dict(zip(self._output_names, outputs))

    def run_on_device(self, feeds: Feeds) -> dict[str, Any]:
        """Run once, and leave the outputs on the session's device.

        Returns:
            Name to an object with ``__dlpack__``, which PyTorch and others use without a copy.

        Raises:
            ModelError: as `run`.
        """
        session = self._opened()
        with _explained():
            binding = session.io_binding()
            for name, array in feeds.items():
                binding.bind_cpu_input(name, array)
            for name in self._output_names:
                binding.bind_output(name, self._device)
            session.run_with_iobinding(binding, _run_options())
            return dict(zip(self._output_names, binding.get_outputs()))

    def bind(self, feeds: Feeds, outputs: Mapping[str, np.ndarray]) -> Callable[[], None]:
        """Return a function that runs the network on `feeds` and writes `outputs` in place.

        Args:
            feeds: every input, C-contiguous; each call reads their current content.
            outputs: the wanted outputs, C-contiguous, with the shape and dtype that the
                network gives.

        Raises:
            ModelError: an array does not fit the network. The returned function raises it if an operator
                fails or gives another shape.
        """
        import onnxruntime as ort

        session = self._opened()
        with _explained():
            binding = session.io_binding()
            for name, array in feeds.items():
                binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array))
            for name, array in outputs.items():
                binding.bind_ortvalue_output(name, ort.OrtValue.ortvalue_from_numpy(array))
        # ONNX Runtime uses the arrays' memory; 1.23 does not hold the arrays
        binding.held = (*feeds.values(), *outputs.values())

        options = _run_options()

        def run() -> None:
            try:
                session.run_with_iobinding(binding, options)
            except Exception as error:
                raise _cannot_run(error) from error

        return run

    def end_profiling(self) -> Path:
        """Return the file that the profiler wrote; the session must have been opened with `profile`.

        Raises:
            ModelError: the session has been closed.
        """
        with _explained():
            return Path(self._opened().end_profiling())

    def _opened(self) -> ort.InferenceSession:
        if self._session is None:
            raise ModelError("this session has been closed; open the network again.")
        return self._session

    def close(self) -> None:
        """Give the memory back; safe to call twice."""
        self._session = None


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise _cannot_run(error) from error


def _cannot_run(error: Exception) -> ExecutionError:
    reason = _reason(error)
    return ExecutionError(f"ONNX Runtime cannot run the network: {reason}.", reason)


def open_session(
    model: ir.Model | Path | bytes,
    execution: Execution = Execution.FAST,
    threads: int | None = None,
    device: str = "cpu",
    optimized: Path | None = None,
    arena: bool = True,
    profile: Path | None = None,
) -> OnnxRuntimeSession:
    """Open a network.

    Args:
        model: a network in memory, its bytes, or the path of an ONNX file.
        execution: see `Execution`.
        threads: threads inside an operator; None takes one per core.
        device: ``cpu``, or ``cuda``.
        optimized: where to write the optimized network, with its weights in a file beside it; valid for
            this machine only.
        arena: keep the memory of a run for the next one; a session that rarely runs needs less memory
            without it.
        profile: prefix of the file name that ONNX Runtime's profiler writes to.

    Raises:
        MissingError: ONNX Runtime cannot use that device.
        ExecutionError: ONNX Runtime cannot load it.
        OutputError: there is no room for a large network's weights in the temporary folder.
    """
    import onnxruntime as ort

    provider, options = _PROVIDERS[device], _options(execution, threads)
    left_out: list[str] = []
    if execution is not Execution.FAST and not isinstance(model, bytes) and is_mapped(model):
        # Otherwise each session holds its own copies of weights: packed for kernels, and dequantized or
        # transposed before the first run. Sessions that are timed do so all the same, as in deployment.
        options.add_session_config_entry("session.disable_prepacking", "1")
        left_out, model = ["ConstantFolding"], with_float_weights_apart(model)
    options.enable_cpu_mem_arena = arena
    _write_besides(options, optimized, profile)
    if provider[0] not in ort.get_available_providers():
        raise MissingError(_NO_CUDA)
    source, in_memory = readable(model, options)
    if execution is Execution.FAST and not multiplies_exactly():
        source, in_memory = for_exact_kernels(source, in_memory, options)
    weights = [ort.OrtValue.ortvalue_from_numpy(array) for array in in_memory.values()]
    if weights:
        options.add_external_initializers(list(in_memory), weights)
    try:
        with busy("opened"):
            session = ort.InferenceSession(
                source, options, providers=[provider], disabled_optimizers=left_out
            )
    except Exception as error:
        raise _cannot_load(error) from error
    # a provider that cannot be loaded (a CUDA library of another version) is skipped without an error
    if provider[0] not in session.get_providers():
        raise MissingError(_NO_CUDA)
    # not copied: they must live as long as anything that still runs, such as a function from `bind`
    session.held_weights = weights
    return OnnxRuntimeSession(session, device)


def _cannot_load(error: Exception) -> ExecutionError:
    reason = _reason(error)
    return ExecutionError(f"ONNX Runtime cannot load the network: {reason}.", reason)


def _options(execution: Execution, threads: int | None) -> ort.SessionOptions:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads or usable_cpus()
    options.inter_op_num_threads = 1
    # Threads that spin after a run would take the cores of the next session's turn.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if execution is Execution.REFERENCE:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if execution is Execution.FLOAT:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    if not multiplies_exactly():
        options.add_session_config_entry("session.x64quantprecision", "1")
    if (stop := _STOP.get()) is not None:
        stop.heed(options)
    return options


def _write_besides(
    options: ort.SessionOptions, optimized: Path | None, profile: Path | None
) -> None:
    """Make a session write its optimized network and its profile."""
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    if optimized:
        _write_optimized(options, optimized)


def _write_optimized(options: ort.SessionOptions, path: Path) -> None:
    options.optimized_model_filepath = str(path)
    # the session never runs, so its weights need not be packed
    options.add_session_config_entry("session.disable_prepacking", "1")
    prefix = "session.optimized_model_external_initializers_"
    options.add_session_config_entry(f"{prefix}file_name", f"{path.name}.data")
    options.add_session_config_entry(f"{prefix}min_size_in_bytes", "1024")


def has_operator(domain: str, op_type: str) -> bool:
    """Return whether ONNX or ONNX Runtime on CPU has the operator; the empty domain is ONNX's."""
    import onnx

    from trtbuild.model.operators import ONNX_DOMAINS

    of_onnx = domain in ONNX_DOMAINS and onnx.defs.has(op_type)
    return of_onnx or (domain, op_type) in _kernels()


@functools.cache
def _kernels() -> frozenset[tuple[str, str]]:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return frozenset(
        (kernel.domain, kernel.op_name)
        for kernel in state.get_all_opkernel_def()
        if kernel.provider == _PROVIDERS["cpu"][0]
    )


def _signature(session: ort.InferenceSession) -> Signature:
    said = read_batch_axes(session.get_modelmeta().custom_metadata_map.get(BATCH_AXES))
    return with_batch_axes(_specs(session.get_inputs()), _specs(session.get_outputs()), said)


def _specs(arguments: Sequence[Any]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(a.name, _dtype(a.type), _dims(a.shape)) for a in arguments)


def _dtype(kind: str) -> np.dtype[Any]:
    """NumPy's dtype for ONNX Runtime's ``tensor(kind)``; object for anything but a tensor of numbers."""
    name = kind.removeprefix("tensor(").removesuffix(")")
    try:
        return np.dtype(_FLOAT_DTYPES.get(name, name))
    except TypeError:
        return np.dtype(np.object_)


def _dims(shape: Sequence[int | str | None]) -> tuple[int | str | None, ...]:
    return tuple(None if isinstance(dim, int) and dim < 0 else dim for dim in shape)


def _reason(error: BaseException) -> str:
    """The part of ONNX Runtime's message that a user can act on."""
    text = str(error).strip() or type(error).__name__
    line, *more = text.rsplit("Status Message: ", 1)[-1].splitlines() or [text]
    if line.endswith("for the following indices"):  # each of the next lines has one
        line = f"{line}: {'; '.join(one.strip() for one in more if 'index:' in one)}"
    return _CHECKED_AT.sub("", _PREFIX.sub("", line)).rstrip(". ")
