"""Facts about the machine, and builds where the system does not tell which CPUs a process may use."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import pytest

from tests.command import trtbuild
from tests.models import NETWORKS
from trtbuild import machine
from trtbuild.latency.conditions import this_device


@pytest.fixture
def without_affinity(monkeypatch):
    """As on macOS and Windows; reports 3 CPUs, whatever the real machine has."""
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)


def test_cpus_of_this_process_where_the_system_tells(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1, 5}, raising=False)
    assert machine.usable_cpus() == 2


@pytest.mark.usefixtures("without_affinity")
def test_all_cpus_where_it_does_not():
    assert machine.usable_cpus() == 3
    assert this_device().num_cpus == 3


@pytest.mark.usefixtures("without_affinity")
def test_one_cpu_where_nothing_is_told(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert machine.usable_cpus() == 1


@pytest.mark.usefixtures("without_affinity")
@pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=["threads", "processes"])
def test_an_engine_is_built_without_affinity(tmp_path, capsys, options):
    model, data = NETWORKS["opset_13"].save(tmp_path)
    out = tmp_path / "out"
    command = ("engine", model, "--int8", "--data", data, "-o", out, "--no-latency", "-q",
               "--calibrator", "entropy")  # fmt: skip
    outcome = trtbuild(capsys, *command, *options)
    assert outcome.code == 0, outcome.err
    assert list(out.glob("*.manifest.json"))


def test_without_linux_files_the_processor_still_has_a_name(monkeypatch):
    def refuse(*arguments, **options):
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", refuse)
    monkeypatch.setattr(platform, "processor", lambda: "arm")
    assert machine.cpuinfo("flags") == []
    assert machine.processor_name() == "arm"
    monkeypatch.setattr(platform, "processor", lambda: "")
    assert machine.processor_name() == platform.machine()


def test_only_installed_packages_have_versions():
    assert list(machine.package_versions("numpy", "no-such-package")) == ["numpy"]
    assert not machine.is_importable("no_such_package.inner")


def test_a_folder_of_the_name_is_no_package(tmp_path, monkeypatch):
    (tmp_path / "a_folder").mkdir()
    (tmp_path / "a_package").mkdir()
    (tmp_path / "a_package" / "__init__.py").touch()
    (tmp_path / "a_package" / "inner").mkdir()
    (tmp_path / "a_module.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    names = ("a_folder", "a_package", "a_package.inner", "a_module", "sys", "numpy")
    assert [machine.is_importable(name) for name in names] == [False, True, False, True, True, True]
