"""Which samples calibrate and which verify: by content and seed, never by order, never both."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from trtbuild.data import (
    DataDigest,
    choose_samples,
    open_source,
    shard_of,
    split,
    without,
)
from trtbuild.data.arrays import ArraySource
from trtbuild.errors import DataError, OptionError
from trtbuild.model.signature import TensorSpec

SPEC = TensorSpec("x", np.dtype(np.float32), ("N", 2))


def source_of(values):
    array = np.asarray(values, np.float32).reshape(-1, 1) * np.ones((1, 2), np.float32)
    return ArraySource(Path("d.npz"), {"x": array}, [SPEC])


def values_of(source):
    return sorted(float(sample.load()["x"][0, 0]) for sample in source)


@settings(max_examples=40)
@given(st.lists(st.integers(0, 40), min_size=30, max_size=80), st.randoms(), st.integers(0, 3))
def test_split_depends_on_content_and_seed_alone(values, random, seed):
    assume(len(set(values)) > 1)
    one = split(source_of(values), num_images=None, seed=seed)
    shuffled = list(values)
    random.shuffle(shuffled)
    other = split(source_of(shuffled), num_images=None, seed=seed)
    assert values_of(one.calibration) == values_of(other.calibration)
    assert values_of(one.verification) == values_of(other.verification)
    # duplicates go the same way, and nothing is lost
    assert not set(values_of(one.calibration)) & set(values_of(one.verification))
    assert sorted(values_of(one.calibration) + values_of(one.verification)) == sorted(values)


def test_five_percent_verify_and_another_seed_chooses_others():
    source = source_of(range(400))
    parts = split(source, num_images=None, seed=0)
    assert len(values_of(parts.verification)) == 20
    other = split(source, num_images=None, seed=1)
    common = set(values_of(parts.verification)) & set(values_of(other.verification))
    assert len(common) < 10  # 1 is expected of 20 x 20 / 400


def test_asking_for_fewer_images_does_not_change_what_verifies():
    source = source_of(range(400))
    few, all_of_them = (split(source, num_images=n, seed=0) for n in (50, None))
    assert values_of(few.verification) == values_of(all_of_them.verification)
    assert len(values_of(few.calibration)) == 50


def test_too_few_samples_for_a_split_are_refused():
    with pytest.raises(DataError, match="1 distinct"):
        split(source_of([3, 3, 3]), num_images=None, seed=0)
    with pytest.raises(DataError, match="96 calibration samples"):
        split(source_of(range(100)), num_images=96, seed=0)
    with pytest.raises(DataError, match="verification 4"):
        split(source_of(range(4)), num_images=None, seed=0, at_least=4)
    enough = split(source_of(range(9)), num_images=None, seed=0, at_least=4)
    assert len(values_of(enough.verification)) == 4
    with pytest.raises(DataError, match="no sample"):
        choose_samples(source_of([]), num_images=None, seed=0)


def test_what_verifies_is_taken_out_of_what_calibrates():
    left = without(source_of([1, 2, 3, 4]), source_of([2, 4, 9]))
    assert values_of(left) == [1, 3]
    with pytest.raises(DataError, match="every sample"):
        without(source_of([1, 2]), source_of([1, 2, 3]))


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shards_are_a_partition(count):
    source = source_of([*range(20), 5, 5])
    shards = [values_of(shard_of(source, f"{i}/{count}")) for i in range(1, count + 1)]
    assert sorted(value for shard in shards for value in shard) == values_of(source)
    parts = [shard_of(source, f"{i}/{count}") for i in range(1, count + 1)]
    assert [len(part.index) for part in parts] == [len(shard) for shard in shards]
    digests = [part.index.digest for part in parts]
    assert functools.reduce(DataDigest.merge, digests) == source.index.digest
    written = [DataDigest.from_text(str(digest), digest.num_samples) for digest in digests]
    assert written == digests


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0", "", "-1/2", "1/2/3"])
def test_shards_that_are_none(text):
    with pytest.raises(OptionError, match="I/N"):
        shard_of(source_of(range(4)), text)


def test_digest_tells_data_apart_and_not_orders():
    assert source_of([1, 2, 3]).index.digest == source_of([3, 1, 2]).index.digest
    others = ([1, 2], [1, 2, 4], [1, 2, 3, 3], [1, 2, 3, 0])
    assert len({source_of(v).index.digest for v in ([1, 2, 3], *others)}) == 5


def test_dtype_is_part_of_the_content(tmp_path):
    digests = set()
    for dtype in (np.float32, np.float64):
        np.save(tmp_path / "d.npy", np.zeros((3, 2), dtype))
        digests.add(open_source(str(tmp_path / "d.npy"), [SPEC], None).index.digest)
    assert len(digests) == 2
