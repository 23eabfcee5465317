"""Conditions of a latency measurement: the device, its clocks, its temperature and other load.

What cannot be read on a machine is None and is left out of reports; nothing is guessed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from trtbuild.machine import cpuinfo, processor_name, system_name, usable_cpus

__all__ = ["Conditions", "Device", "Monitor", "this_device"]

_GPU_QUERY = (
    "name",
    "driver_version",
    "clocks.sm",
    "clocks.mem",
    "temperature.gpu",
    "power.draw",
    "utilization.gpu",
)


@dataclass(frozen=True)
class Device:
    """What a latency depends on besides the engine; latencies of different devices do not compare.

    Attributes:
        processor: model name of the CPU.
        num_cpus: logical CPUs that this process may use.
        gpus: name of each GPU.
        driver: version of the GPU driver, empty without one.
        system: operating system and machine type.
    """

    processor: str
    num_cpus: int
    gpus: tuple[str, ...] = ()
    driver: str = ""
    system: str = ""

    def __str__(self) -> str:
        return " + ".join((f"{self.processor} ({self.num_cpus} CPUs)", *self.gpus))

    @property
    def slug(self) -> str:
        """A short name for file names: letters, digits and dashes."""
        text = "-".join((*self.gpus[:1], self.processor, f"{self.num_cpus}cpu")).lower()
        words = "".join(c if c.isalnum() else " " for c in text).split()
        return "-".join(words)

    def compares_to(self, other: Device) -> bool:
        """Say whether latencies of the two may be compared; the drivers may differ."""
        return (self.processor, self.num_cpus, self.gpus) == (
            other.processor,
            other.num_cpus,
            other.gpus,
        )


@dataclass(frozen=True)
class Conditions:
    """What the machine did during a measurement.

    Attributes:
        cpu_mhz: mean clock of the CPUs before and after.
        cpu_temperature_c: hottest sensor, before and after.
        other_load_percent: share of the CPUs' time that other processes took.
        stolen_percent: share that the hypervisor took.
        gpu_clocks_mhz, gpu_temperature_c, gpu_power_w: of the first GPU, before and after.
    """

    cpu_mhz: tuple[float, float] | None = None
    cpu_temperature_c: tuple[float, float] | None = None
    other_load_percent: float | None = None
    stolen_percent: float | None = None
    gpu_clocks_mhz: tuple[float, float] | None = None
    gpu_temperature_c: tuple[float, float] | None = None
    gpu_power_w: tuple[float, float] | None = None

    def remarks(self) -> tuple[str, ...]:
        """Say what makes these latencies doubtful, one sentence each."""
        found = []
        if self.other_load_percent is not None and self.other_load_percent > 10:
            found.append(f"other processes took {self.other_load_percent:.0f} % of the CPUs' time.")
        if self.stolen_percent is not None and self.stolen_percent > 2:
            found.append(f"the hypervisor took {self.stolen_percent:.0f} % of the CPUs' time.")
        for what, pair in (("CPU", self.cpu_mhz), ("GPU", self.gpu_clocks_mhz)):
            if pair is not None and abs(pair[1] - pair[0]) > 0.05 * max(pair):
                found.append(f"the {what} clock moved from {pair[0]:.0f} to {pair[1]:.0f} MHz.")
        return tuple(found)


def this_device() -> Device:
    """Return the device that runs this."""
    gpus = _gpus()
    return Device(
        processor=processor_name(),
        num_cpus=usable_cpus(),
        gpus=tuple(gpu["name"] for gpu in gpus),
        driver=gpus[0]["driver_version"] if gpus else "",
        system=system_name(),
    )


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _gpus() -> list[dict[str, str]]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = [program, f"--query-gpu={','.join(_GPU_QUERY)}", "--format=csv,noheader,nounits"]
    try:
        text = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    found = [[value.strip() for value in line.split(",")] for line in text.splitlines()]
    return [dict(zip(_GPU_QUERY, values)) for values in found if len(values) == len(_GPU_QUERY)]


@dataclass(frozen=True)
class _Reading:
    """One reading of the machine's state. Times are in kernel ticks, summed over all CPUs."""

    cpu_mhz: float | None
    temperature_c: float | None
    total_ticks: int
    busy_ticks: int
    stolen_ticks: int
    own_ticks: float
    gpu: dict[str, str]


class Monitor:
    """Reads clocks, temperatures and load when it is made, and again for each call of `conditions`."""

    def __init__(self) -> None:
        self._before = _read()

    def conditions(self) -> Conditions:
        """Return what the machine did since this monitor was made."""
        before, after = self._before, _read()
        total = after.total_ticks - before.total_ticks
        other = after.busy_ticks - before.busy_ticks - (after.own_ticks - before.own_ticks)
        stolen = after.stolen_ticks - before.stolen_ticks
        return Conditions(
            cpu_mhz=_pair(before.cpu_mhz, after.cpu_mhz),
            cpu_temperature_c=_pair(before.temperature_c, after.temperature_c),
            other_load_percent=max(0.0, 100.0 * other / total) if total > 0 else None,
            stolen_percent=100.0 * stolen / total if total > 0 else None,
            gpu_clocks_mhz=_gpu_pair(before, after, "clocks.sm"),
            gpu_temperature_c=_gpu_pair(before, after, "temperature.gpu"),
            gpu_power_w=_gpu_pair(before, after, "power.draw"),
        )


def _pair(before: float | None, after: float | None) -> tuple[float, float] | None:
    return None if before is None or after is None else (before, after)


def _gpu_pair(before: _Reading, after: _Reading, key: str) -> tuple[float, float] | None:
    try:
        return float(before.gpu[key]), float(after.gpu[key])
    except (KeyError, ValueError):  # no GPU, or "[N/A]"
        return None


def _read() -> _Reading:
    # proc(5): user nice system idle iowait irq softirq steal
    ticks = next(
        (line.split()[1:9] for line in _lines("/proc/stat") if line.startswith("cpu ")), []
    )
    counts = [int(tick) for tick in ticks] if len(ticks) == 8 else [0] * 8
    idle, stolen = counts[3] + counts[4], counts[7]
    own = os.times()
    per_second = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
    return _Reading(
        cpu_mhz=_cpu_mhz(),
        temperature_c=_temperature_c(),
        total_ticks=sum(counts),
        busy_ticks=sum(counts) - idle - stolen,
        stolen_ticks=stolen,
        own_ticks=(own.user + own.system) * per_second,
        gpu=next(iter(_gpus()), {}),
    )


def _cpu_mhz() -> float | None:
    clocks = [float(clock) for clock in cpuinfo("cpu MHz")]
    return fmean(clocks) if clocks else None


def _temperature_c() -> float | None:
    sensors = Path("/sys/class/thermal").glob("thermal_zone*/temp")
    readings = [line for sensor in sensors for line in _lines(str(sensor))]
    degrees = [int(text) / 1000 for text in readings if text.lstrip("-").isdigit()]
    return max(degrees, default=None)
