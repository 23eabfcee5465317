"""Every case of the shared collection: passes fire where they must, and only there."""

from __future__ import annotations

import importlib.util
import json
from functools import cache

import onnx
import pytest

from tests.conftest import SHARED
from trtbuild.model import read_unchanged, write_model
from trtbuild.passes import OptimizeOptions, optimize

FOLDER = SHARED / "graph-cases"


@cache
def judge():
    """The collection's own module that judges a case."""
    spec = importlib.util.spec_from_file_location("check_case", FOLDER / "check_case.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def all_cases():
    if not (FOLDER / "cases.json").is_file():
        return []
    return json.loads((FOLDER / "cases.json").read_text())["cases"]


CASES = all_cases()


def test_cases_are_there():
    if not CASES:
        pytest.skip(f"needs the collection of graph cases, '{FOLDER}'")
    assert {case["kind"] for case in CASES} == {"positive", "negative"}


def runs(case, source):
    """Whether ONNX Runtime runs the unchanged network; older versions lack reductions over no axes."""
    try:
        judge().numeric_diff(case, source, source)
    except Exception:  # noqa: BLE001 - ONNX Runtime's exceptions share no base
        return False
    return True


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_the_passes_fire_as_the_case_says(case, tmp_path):
    enable = case["passes"] if case.get("opt_in") else []
    source, target, again = FOLDER / case["model"], tmp_path / "out.onnx", tmp_path / "again.onnx"
    result = optimize(read_unchanged(source), OptimizeOptions(enable=enable))
    write_model(result.model, target)
    status, detail = judge().check(case, source, target)
    if status == "wrong" and not runs(case, source):
        pytest.skip("this ONNX Runtime does not run the network itself")
    assert status in ("done", "ok"), detail
    assert not result.log.rolled_back
    assert not result.log.undoing
    assert not result.log.capped
    if enable and not case.get("idempotent"):
        return  # passes on request run once per run, and opposite passes undo each other
    second = optimize(read_unchanged(target), OptimizeOptions(enable=enable, check=False))
    write_model(second.model, again)
    assert not second.log.fired
    assert judge().op_counts(onnx.load(again)) == judge().op_counts(onnx.load(target))
