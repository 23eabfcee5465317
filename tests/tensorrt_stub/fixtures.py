"""Download the bindings, compile the stand-in libraries, start scenarios."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROJECT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent

# All checkouts share downloaded and compiled files: PyCUDA alone takes minutes. Names tell their sources.
_USER = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trtbuild-tests"
CACHE = Path(os.environ.get("TRTBUILD_TEST_CACHE", _USER)) / str(sys.implementation.cache_tag)

BINDINGS = {10: "tensorrt-cu13-bindings==10.16.1.11", 11: "tensorrt-cu13-bindings==11.4.0.106"}
LEAN_BINDINGS = "tensorrt-lean-cu13-bindings==10.16.1.11"
PYCUDA = "2026.1"
CUDA_PYTHON = ("cuda-bindings==13.0.3", "cuda-pathfinder==1.3.2")
TIMEOUT_S = 120


@dataclass(frozen=True)
class Answer:
    """The result or error of a scenario, and the calls to the native side.

    Attributes:
        value: the scenario's result, through JSON.
        error: type, message and exit_code of its exception, or None.
        calls: every native call: ``[interface.member, arguments...]``.
        stderr: the text on standard error.
    """

    value: Any
    error: dict[str, Any] | None
    calls: list[list[Any]]
    stderr: str

    def called(self, member: str) -> list[list[Any]]:
        """The arguments of every call of a member, oldest first."""
        return [call[1:] for call in self.calls if call[0] == member]


class Server:
    """The process of one TensorRT version."""

    def __init__(self, major: int, environment: dict[str, str], folder: Path) -> None:
        self.major, self.folder, self.count = major, folder, 0
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.tensorrt_stub.server"],
            cwd=PROJECT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if self._line() != "ready":
            pytest.fail("the process of the TensorRT stand-in did not start")

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def run(self, scenario: Callable[..., Any], **arguments: Any) -> Answer:
        """Run ``scenario(world, **arguments)`` and return its answer.

        `scenario` is a function of a test module; arguments and result must be JSON. It runs in a fork with a
        folder of its own as working directory.
        """
        self.count += 1
        folder = self.folder / str(self.count)
        folder.mkdir()
        request = {
            "module": _module_of(scenario),
            "function": scenario.__name__,
            "arguments": arguments,
            "folder": str(folder),
        }
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        status = json.loads(self._line())["status"]
        path = folder / "answer.json"
        if status or not path.exists():
            pytest.fail(f"the scenario crashed with wait status {status}")
        answer = json.loads(path.read_text())
        assert answer["native_errors"] == [], "\n".join(answer["native_errors"])
        return Answer(answer.get("value"), answer.get("error"), answer["calls"], answer["stderr"])

    def value(self, scenario: Callable[..., Any], **arguments: Any) -> Any:
        """Run a scenario that must succeed, and return its result."""
        answer = self.run(scenario, **arguments)
        if answer.error:
            pytest.fail(answer.error["trace"])
        return answer.value

    def stop(self) -> None:
        self.process.stdin.close()  # type: ignore[union-attr]
        self.process.wait(timeout=TIMEOUT_S)


def _module_of(scenario: Callable[..., Any]) -> str:
    """Name a test module so that another process can import it."""
    path = Path(scenario.__code__.co_filename).resolve().relative_to(PROJECT)
    return ".".join(path.with_suffix("").parts)


def fetch(requirement: str) -> Path:
    """Download a wheel once and return the folder that it is unpacked in; skips if that fails."""
    target = CACHE / requirement.replace("==", "-")
    with _alone(target):
        return target if target.is_dir() else _fetched(requirement, target)


def _fetched(requirement: str, target: Path) -> Path:
    partial = target.with_name(f"{target.name}.{os.getpid()}")
    wheels = partial / "wheels"
    wheels.mkdir(parents=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
               "--no-deps", "--only-binary", ":all:", requirement, "-d", str(wheels)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        shutil.rmtree(partial)
        pytest.skip(
            f"'{requirement}' cannot be downloaded: {done.stderr.strip().splitlines()[-1:]}"
        )
    for wheel in wheels.iterdir():
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(partial)  # noqa: S202  a wheel that pip has checked
    shutil.rmtree(wheels)
    _put(partial, target)
    return target


def compile_libraries(major: int) -> Path:
    """Compile the stand-in libraries for one TensorRT version; skips without a C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler ('cc') to compile the stand-in libraries with")
    target = CACHE / f"native-{major}-{_stamp()}"
    with _alone(target):
        return target if target.is_dir() else _compiled(compiler, major, target)


def _compiled(compiler: str, major: int, target: Path) -> Path:
    partial = target.with_name(f"{target.name}.{os.getpid()}")
    partial.mkdir(parents=True)

    def build(source: str, library: str, *options: str) -> None:
        command = [compiler, "-shared", "-fPIC", "-O1", f"-Wl,-soname,{library}", *options,
                   "-o", str(partial / library), str(HERE / source), "-ldl", "-lpthread"]  # fmt: skip
        subprocess.run(command, check=True, timeout=120)

    build("nvinfer.c", f"libnvinfer.so.{major}")
    build("nvinfer.c", f"libnvinfer_lean.so.{major}")
    for empty in ("libnvinfer_plugin", "libnvonnxparser"):
        build("nvinfer.c", f"{empty}.so.{major}", "-DEMPTY")
    build("libcuda.c", "libcuda.so.1")
    _put(partial, target)
    return target


def build_pycuda() -> Path:
    """Build pycuda from its sources once, unoptimised, against the stand-in driver; skips if that fails."""
    target = CACHE / f"pycuda-{PYCUDA}"
    with _alone(target):
        return target if target.is_dir() else _built(target)


def _built(target: Path) -> Path:
    nvcc = shutil.which("nvcc")
    header = next((p for p in _cuda_roots(nvcc) if (p / "include" / "cuda.h").is_file()), None)
    if header is None:
        pytest.skip("pycuda is built against the CUDA toolkit, and 'cuda.h' is not here")
    partial = target.with_name(f"{target.name}.{os.getpid()}")
    partial.mkdir(parents=True)
    try:
        source = _pycuda_source(partial)
        (source / "libcuda.so").symlink_to(compile_libraries(11) / "libcuda.so.1")
        _run(source, {}, "configure.py", "--no-cuda-enable-curand", f"--cuda-root={header}")
        flags = {"CFLAGS": "-O0 -g0", "CPATH": str(header / "include"), "LIBRARY_PATH": str(source)}
        _run(source, flags, "setup.py", "build_ext", "--inplace", "-j2")
        shutil.rmtree(source / "build")
        _put(source, target)
    except subprocess.CalledProcessError as error:
        last = (error.stderr or error.stdout).strip().splitlines()[-1:]
        pytest.skip(f"pycuda {PYCUDA} cannot be built here: {last}")
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


@contextlib.contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Let one process make `target`, while others wait."""
    import fcntl

    CACHE.mkdir(parents=True, exist_ok=True)
    with target.with_name(f"{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _cuda_roots(nvcc: str | None) -> list[Path]:
    roots = [Path(os.environ.get("CUDA_HOME", "/usr/local/cuda"))]
    if nvcc:
        roots.append(Path(nvcc).resolve().parents[1])
        roots += sorted(Path(nvcc).resolve().parents[1].glob("cuda-*"), reverse=True)
    return roots


def _pycuda_source(folder: Path) -> Path:
    _run(folder, {}, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
         "--no-build-isolation", "--no-binary", "pycuda", f"pycuda=={PYCUDA}", "-d", ".")  # fmt: skip
    archive = next(folder.glob("pycuda-*.tar.gz"))
    with tarfile.open(archive) as content:
        content.extractall(folder, filter="data")
    return folder / f"pycuda-{PYCUDA}"


def _run(folder: Path, variables: dict[str, str], *arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], cwd=folder, env={**os.environ, **variables}, check=True,
                   capture_output=True, text=True, timeout=900)  # fmt: skip


def _stamp() -> str:
    """A name that changes with the C sources."""
    sources = [*sorted(HERE.glob("*.c")), Path(__file__)]  # this file compiles them
    content = b"".join(path.read_bytes() for path in sources)
    return hashlib.sha256(content).hexdigest()[:12]


def _put(partial: Path, target: Path) -> None:
    """Move a finished folder into place, so that it is never seen unfinished."""
    partial.rename(target)


def environment(major: int) -> dict[str, str]:
    """The environment in which `import tensorrt` finds NVIDIA's bindings over our libraries."""
    if platform.machine() != "x86_64" or sys.platform != "linux":
        pytest.skip(
            "the TensorRT stand-in makes C++ objects by the x86-64 Linux calling convention"
        )
    paths = [
        PROJECT,
        HERE / "shim",
        fetch(BINDINGS[major]),
        *([fetch(LEAN_BINDINGS)] if major == 10 else []),
        *(fetch(wheel) for wheel in CUDA_PYTHON),
        CACHE / f"pycuda-{PYCUDA}",
    ]
    libraries = [compile_libraries(major), Path(sysconfig.get_config_var("LIBDIR"))]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str(path) for path in paths),
        "LD_LIBRARY_PATH": os.pathsep.join(str(path) for path in libraries),
        "OMP_NUM_THREADS": "1",
    }


def start(major: int, folder: Path) -> Server:
    """Start the process of one TensorRT version."""
    return Server(major, environment(major), folder)
