"""Opening a network in another thread is abandoned when nothing waits for it any more."""

from __future__ import annotations

import contextlib
import time

import onnx_ir as ir
import onnxruntime as ort
import pytest

from trtbuild.errors import ExecutionError
from trtbuild.runtime.onnxruntime import open_session, opening_beside

MODEL = '<ir_version: 8, opset_import: ["" : 17]> g (float[N] x) => (float[N] y) { y = Relu(x) }'


@pytest.mark.parametrize("begins", ["before", "after"])
def test_what_is_opened_ends_with_the_block_that_raised(begins, monkeypatch) -> None:
    model, make, held = ir.from_onnx_text(MODEL), ort.InferenceSession, []

    def when_given_up() -> None:
        while not held or not held[0].cancelled():
            time.sleep(0.01)

    def make_late(*given, **options):
        when_given_up()
        return make(*given, **options)

    def open_late():
        if begins == "after":
            when_given_up()
        return open_session(model)

    with contextlib.suppress(KeyboardInterrupt), opening_beside() as beside:
        if begins == "before":
            monkeypatch.setattr(ort, "InferenceSession", make_late)
        opened = beside.submit(open_late)
        held.append(beside.submit(int))  # waits for the only thread
        raise KeyboardInterrupt
    monkeypatch.undo()
    with pytest.raises(ExecutionError):
        opened.result()
    open_session(model).close()  # others are opened as before


def test_what_is_opened_beside_a_block_that_ends_well_is_there() -> None:
    with opening_beside() as beside:
        opened = beside.submit(open_session, ir.from_onnx_text(MODEL))
    assert [spec.name for spec in opened.result().outputs] == ["y"]
