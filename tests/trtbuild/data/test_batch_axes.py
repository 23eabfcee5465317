"""The axis of the samples: named by the user, found by the dim's name, or the first; and complete feeds."""

from __future__ import annotations

import numpy as np
import pytest

from trtbuild.data import batches, filled, full_batches, open_source
from trtbuild.data.callables import CallableSource
from trtbuild.data.random_data import RandomSource
from trtbuild.errors import DataError
from trtbuild.model import fixed_batch, with_batch_axes
from trtbuild.model.signature import TensorSpec

FLOAT = np.dtype(np.float32)


def specs(batch="batch", said=None, **others):
    dims = {"x": (batch, 3), "state": (2, batch, 4), "rate": (), **others}
    inputs = [TensorSpec(name, FLOAT, shape) for name, shape in dims.items()]
    return with_batch_axes(inputs, said=said).inputs


def arrays(count):
    return {
        "x": np.arange(3 * count, dtype=np.float32).reshape(count, 3),
        "state": np.arange(8 * count, dtype=np.float32).reshape(2, count, 4),
        "rate": np.float32(7),
    }


def test_names_of_dims_tell_the_axis():
    found = with_batch_axes(
        [
            TensorSpec("x", FLOAT, ("batch_size", "time")),
            TensorSpec("h", FLOAT, ("layers", "batch_size", 4)),
        ],
        [TensorSpec("y", FLOAT, ("time", "batch_size")), TensorSpec("z", FLOAT, ("any", 4))],
    )
    assert [spec.batch_axis for spec in found.inputs] == [0, 1]
    assert [spec.batch_axis for spec in found.outputs] == [1, 0]
    alone = with_batch_axes([TensorSpec("x", FLOAT, ("time", "batch", 4))]).inputs
    assert alone[0].batch_axis == 1
    # the name of one input's first dim is the batch's name for all others
    pair = [TensorSpec("x", FLOAT, ("n", 3)), TensorSpec("h", FLOAT, (2, "n", 4))]
    assert [spec.batch_axis for spec in with_batch_axes(pair).inputs] == [0, 1]
    said = with_batch_axes(pair, [TensorSpec("y", FLOAT, (2, 3))], {"h": 2, "x": "none", "y": 1})
    assert [spec.batch_axis for spec in said.inputs] == [None, 2]
    assert said.outputs[0].batch_axis == 1


def test_samples_lie_along_their_axes_and_come_together_again(tmp_path):
    given = arrays(10)
    np.savez(tmp_path / "d.npz", **given)
    for inputs in (specs(), specs(1, {"state": 1})):
        source = open_source(str(tmp_path / "d.npz"), inputs, None)
        samples = list(source)
        assert [s.load()["state"].shape for s in samples] == [(2, 1, 4)] * 10
        whole = list(batches(samples, 4))
        assert [len(batch.names) for batch in whole] == [4, 4, 2]
        for name in ("x", "state"):
            axis = 1 if name == "state" else 0
            together = np.concatenate([batch.feeds[name] for batch in whole], axis)
            np.testing.assert_array_equal(together, given[name])
        assert all(batch.feeds["rate"] == 7 for batch in whole)
        one = list(whole[1].samples())
        np.testing.assert_array_equal(one[2].feeds["state"], given["state"][:, 6:7])
        np.testing.assert_array_equal(one[2].feeds["x"], given["x"][6:7])


def test_a_fixed_batch_is_filled_along_its_axes():
    inputs = specs(4, {"state": 1})
    assert fixed_batch(inputs) == 4
    (sample,) = CallableSource("given", [arrays(1)], inputs)
    feeds = filled(sample.load(), 4, sample.axes)
    assert {name: array.shape for name, array in feeds.items()} == {
        "x": (4, 3), "state": (2, 4, 4), "rate": (),
    }  # fmt: skip
    (batch,) = full_batches(CallableSource("given", [arrays(5)], inputs), 4)
    np.testing.assert_array_equal(batch.feeds["state"], arrays(5)["state"][:, :4])


def test_scalars_that_differ_part_batches():
    given = [{**arrays(1), "rate": np.float32(rate)} for rate in (8, 8, 16)]
    found = list(batches(CallableSource("given", given, specs()), 3))
    assert [(len(batch.names), float(batch.feeds["rate"])) for batch in found] == [(2, 8), (1, 16)]


def test_complete_feeds_stay_as_they_are():
    static = specs(1)  # the state's batch axis is unknown, and is not guessed
    items = [arrays(1) for _ in range(3)]
    samples = list(CallableSource("given", items, static))
    assert len(samples) == 3
    assert [len(batch.names) for batch in batches(samples, 2)] == [1, 1, 1]
    np.testing.assert_array_equal(samples[0].load()["state"], arrays(1)["state"])
    varied = specs(None, state=("layers", None, 4))
    (sample,) = CallableSource("given", [arrays(5)], varied)
    np.testing.assert_array_equal(sample.load()["state"], arrays(5)["state"])


def test_arrays_of_a_file_that_share_no_axis_are_refused(tmp_path):
    np.savez(tmp_path / "d.npz", **arrays(10))
    with pytest.raises(DataError, match="--batch-axis NAME:AXIS"):
        open_source(str(tmp_path / "d.npz"), specs(None, state=("layers", None, 4)), None)


def test_an_input_without_a_batch_axis_holds_for_all_samples(tmp_path):
    table = np.arange(12, dtype=np.float32).reshape(4, 3)
    np.savez(tmp_path / "d.npz", x=arrays(4)["x"], table=table)
    inputs = [TensorSpec("x", FLOAT, ("n", 3)), TensorSpec("table", FLOAT, ("m", 3))]
    found = with_batch_axes(inputs, said={"table": "none"}).inputs
    (batch,) = batches(open_source(str(tmp_path / "d.npz"), found, None), 4)
    np.testing.assert_array_equal(batch.feeds["table"], table)
    np.testing.assert_array_equal(batch.feeds["x"], arrays(4)["x"])


def test_random_data_have_the_shapes_of_the_inputs():
    for inputs in (specs(), specs(1), specs(1, {"state": 1})):
        sample = next(iter(RandomSource(inputs)))
        assert sample.load()["state"].shape == (2, 1, 4)
