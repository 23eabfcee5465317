"""Layers are named if, and only if, an output of TensorRT's form is below 20 dB."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.trtbuild.verification.small_network import batches, quantized
from trtbuild.jobs.diagnosis import layers_at_fault
from trtbuild.runtime.onnxruntime import open_session
from trtbuild.titles import TENSORRT_FORM
from trtbuild.verification.compare import compare


@pytest.mark.parametrize(("sqnr_db", "named"), [(19.9, True), (20.0, False), (20.1, False)])
def test_twenty_decibels_are_the_limit(sqnr_db, named) -> None:
    artifact = quantized()
    data = batches()
    found = compare(open_session(artifact.source), open_session(artifact.quantized), data)
    (output,) = found.outputs
    estimate = replace(output.sqnr_db, value=sqnr_db)
    found = replace(found, outputs=(replace(output, sqnr_db=estimate),))
    layers = layers_at_fault(artifact, {TENSORRT_FORM: found}, data)
    assert (layers is not None) == named
    if layers is not None:
        assert layers.layers
