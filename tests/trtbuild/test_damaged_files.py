"""Damaged and hostile files: every reader reads them or raises an error of the tree, and nothing else."""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import io
import itertools
import json
import random
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from calibrators import Calibration, CalibrationCache, CalibratorError
from tests.damage import damaged
from tests.models import NETWORKS
from trtbuild import EngineRecipe, build_engine
from trtbuild.calibration.reuse import merge_files
from trtbuild.calibration.thresholds import read_thresholds
from trtbuild.data import open_source
from trtbuild.data.labels import read_labels
from trtbuild.errors import TrtbuildError
from trtbuild.jobs.bench import bench
from trtbuild.jobs.cache import read_cache
from trtbuild.jobs.calibrate import calibrate_file
from trtbuild.jobs.verify import Verification, judge_again, verify
from trtbuild.json_codec import dumps
from trtbuild.latency.baseline import load_baseline
from trtbuild.latency.regress import against_baseline
from trtbuild.manifest import read_manifest
from trtbuild.model import input_specs, read_model
from trtbuild.options.data import DataRecipe
from trtbuild.options.effort import Effort
from trtbuild.options.measure import MeasureOptions
from trtbuild.options.preprocess import Preprocess, read_preprocess
from trtbuild.options.tables import make, read_file, read_table
from trtbuild.recipes import BenchRecipe, CalibrateRecipe, CalibrationFiles, VerifyRecipe
from trtbuild.report.verify import verification_report
from trtbuild.runtime.tensorrt.inspector import read_layers
from trtbuild.verification.gate import Gate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CNN = NETWORKS["opset_13"]
FEW, MANY = 60, 3000
HAS_TORCH = importlib.util.find_spec("torch") is not None


@dataclass(frozen=True)
class Valid:
    """A valid file and its reader."""

    content: bytes
    suffix: str
    read: Callable[[Path], Any]


def judge_saved(path):
    found = judge_again(Verification.load(path), Gate(min_sqnr=10.0))
    verification_report(found)
    dumps(found.to_json())


def recorded_recipe(path):
    record = read_manifest(path)
    return make(EngineRecipe, read_table(EngineRecipe, record.recipe, str(path), path.parent))


def compare_with_itself(path):
    samples = load_baseline(path).samples
    against_baseline(samples, samples)


def consume(source):
    for sample in source:
        sample.load()
    assert str(source.index.digest)


@pytest.fixture(scope="module")
def valid(tmp_path_factory):
    """Return the files by name."""
    folder = tmp_path_factory.mktemp("valid")
    model, data = CNN.save(folder, count=24)
    specs = input_specs(read_model(model))
    calibrated, cache = folder / "c.json", folder / "c.cache"
    files = CalibrationFiles(output=calibrated, cache=cache)
    whole = DataRecipe(str(data))
    calibrate_file(CalibrateRecipe(model=model, data=whole, shard="1/1", files=files))
    baseline = folder / "b.json"
    times = MeasureOptions(duration_ms=20.0)
    bench(BenchRecipe(engine=model, measure=times, save_baseline=baseline))
    verified = verify(VerifyRecipe(reference=model, engine=model, data=DataRecipe(str(data))))
    recipe = EngineRecipe(
        model, folder / "out", data=DataRecipe(str(data)), latency=None, effort=Effort.FAST
    )
    build_engine(recipe)
    return dict(files_of(folder, model, specs, verified))


def files_of(folder, model, specs, verified) -> Iterator[tuple[str, Valid]]:
    def labels(path):
        return consume(read_labels(path, open_source(str(folder / "few.npz"), specs, None)))

    def images(path):
        return consume(open_source(str(path), specs, Preprocess(resize=(8, 8))))

    def arrays(path):
        return consume(open_source(str(path), specs, None))

    def preprocessed(path):
        read_preprocess(path, {}).apply(np.zeros((16, 16, 3), np.uint8))

    x = CNN.arrays(4)[specs[0].name]
    np.savez(folder / "few.npz", **{specs[0].name: x})
    np.savez_compressed(folder / "packed.npz", **{specs[0].name: x})
    np.save(folder / "few.npy", x)
    calibration = (folder / "c.json").read_bytes()
    yield "calibration", Valid(calibration, ".json", lambda path: merge_files([path]))
    yield "thresholds", Valid(calibration, ".json", read_thresholds)
    yield "cache", Valid((folder / "c.cache").read_bytes(), ".cache", read_cache)
    yield "table", Valid(b"x 1.5\ny 2.25\n", ".cache", read_thresholds)
    yield "baseline", Valid((folder / "b.json").read_bytes(), ".json", compare_with_itself)
    yield "verification", Valid(dumps(verified.to_json()).encode(), ".json", judge_saved)
    manifest = next((folder / "out").glob("*.manifest.json")).read_bytes()
    yield "manifest", Valid(manifest, ".json", recorded_recipe)
    yield (
        "layers",
        Valid(
            b'{"Layers": [{"Name": "c", "LayerType": "conv", "Inputs": [{"Name": "x", "Dimensions": [1, 3],'
            b' "Format/Datatype": "Int8"}], "Outputs": [], "Metadata": "[ONNX Layer: c]"}, "other"]}',
            ".json",
            lambda path: read_layers(path.read_text(errors="replace")),
        ),
    )
    toml = b'int8 = true\nmodel = "m.onnx"\nbatch_size = 8\n[data]\nseed = 3\n[gate]\nmin_sqnr = 10.5\n'
    yield (
        "recipe",
        Valid(
            toml, ".toml", lambda path: make(EngineRecipe, read_file(EngineRecipe, path, "recipe"))
        ),
    )
    settings = b'resize = 16\ncrop = [8, 8]\nscale = 0.5\nmean = [0.5, 0.5, 0.5]\nlayout = "NCHW"\n'
    yield "preprocess", Valid(settings, ".toml", preprocessed)
    yield "labels", Valid(b"label\n1\n2\n3\n4\n", ".csv", labels)
    yield "label lines", Valid(b"1\n2\n3\n4\n", ".txt", labels)
    few = json.dumps({f"few.npz[{n}]": n for n in range(4)}).encode()
    yield "label object", Valid(few, ".json", labels)
    yield "label records", Valid(b'{"label": 1}\n{"label": 2}\n3\n4\n', ".jsonl", labels)
    yield "npz", Valid((folder / "few.npz").read_bytes(), ".npz", arrays)
    yield "packed npz", Valid((folder / "packed.npz").read_bytes(), ".npz", arrays)
    yield "npy", Valid((folder / "few.npy").read_bytes(), ".npy", arrays)
    yield "label array", Valid(npy(np.arange(4)), ".npy", labels)
    yield "tar", Valid(tar_of("w"), ".tar", images)
    yield "packed tar", Valid(tar_of("w:gz"), ".tar.gz", images)
    yield "onnx", Valid(model.read_bytes(), ".onnx", read_model)
    if HAS_TORCH:
        yield from files_of_torch(folder)


def files_of_torch(folder) -> Iterator[tuple[str, Valid]]:
    import safetensors.torch
    import torch

    from trtbuild.pytorch.prune.history import PruneHistory
    from trtbuild.pytorch.weight_files import read_checkpoint

    yield (
        "history",
        Valid(
            b'{"format": 2, "inputs": [{"name": "x", "dims": [1, 3], "dtype": "float32",'
            b' "dynamic": {"0": "n"}}],'
            b' "rewritten": [["a", "b"]], "cuts": [["c", true, [0, 1]]], "attributes": {"a": {"b": 1}}}',
            ".json",
            lambda path: PruneHistory.from_json(path.read_text(errors="replace")),
        ),
    )
    torch.save({"state_dict": {"w": torch.ones(3, 2)}}, folder / "w.pt")
    yield "checkpoint", Valid((folder / "w.pt").read_bytes(), ".pt", read_checkpoint)
    tensors = safetensors.torch.save({"w": torch.ones(3, 2), "b": torch.zeros(3)})
    yield "safetensors", Valid(tensors, ".safetensors", read_checkpoint)


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def tar_of(mode):
    stream, pixels = io.BytesIO(), np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    with tarfile.open(fileobj=stream, mode=mode) as archive:
        for name in ("a.png", "b.jpg", "c.bmp"):
            image = io.BytesIO()
            Image.fromarray(pixels).save(image, {"jpg": "jpeg"}.get(name[-3:], name[-3:]))
            entry = tarfile.TarInfo(name)
            entry.size = image.tell()
            image.seek(0)
            archive.addfile(entry, image)
    return stream.getvalue()


OF_TORCH = ("history", "checkpoint", "safetensors")


def named(*names: str) -> list[Any]:
    """Return the names for `parametrize`; those whose readers need PyTorch are skipped without it."""
    needs_torch = pytest.mark.skipif(not HAS_TORCH, reason="needs PyTorch, the extra 'torch'")
    return [pytest.param(n, marks=needs_torch) if n in OF_TORCH else pytest.param(n) for n in names]


JSON = named(
    *("calibration", "thresholds", "baseline", "verification", "manifest", "layers", "history")
)
NAMES = [
    *JSON,
    *named("cache", "table", "recipe", "preprocess", "labels", "label lines"),
    *named("label object", "label records", "npz", "packed npz"),
    *named("npy", "label array", "tar", "packed tar", "checkpoint", "safetensors", "onnx"),
]


def check(one: Valid, content: bytes, folder: Path) -> None:
    path = folder / f"file{one.suffix}"
    path.write_bytes(content)
    with contextlib.suppress(TrtbuildError, CalibratorError):
        one.read(path)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_as_it_was_written_is_read(valid, name, tmp_path):
    path = tmp_path / f"file{valid[name].suffix}"
    path.write_bytes(valid[name].content)
    valid[name].read(path)


def test_every_file_is_tried(valid):
    tried = {name for one in NAMES for name in one.values}
    assert set(valid) == tried - (set() if HAS_TORCH else set(OF_TORCH))


@pytest.mark.parametrize("name", NAMES)
def test_damaged_files_are_refused_or_read(valid, name, tmp_path):
    try_damaged(valid[name], name, tmp_path, FEW)


@pytest.mark.nightly
@pytest.mark.parametrize("name", NAMES)
def test_many_damaged_files_are_refused_or_read(valid, name, tmp_path):
    try_damaged(valid[name], name, tmp_path, MANY)


def try_damaged(one, name, folder, count):
    for seed in range(count):
        content = damaged(one.content, random.Random(f"{name} {seed}"))  # noqa: S311 - the same in every run
        try:
            check(one, content, folder)
        except Exception as error:
            raise AssertionError(f"{name}, seed {seed}: {content[:400]!r}") from error


def deep():
    inner: Any = 1
    for _ in range(400):
        inner = [inner]
    return inner


WRONG = (None, True, -1, 0, 10**400, 10**19, 1e308, "", "x\x1b", [], {}, [1], {"a": 1}, deep())


def places(value: Any, way: tuple = ()) -> Iterator[tuple]:
    yield way
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in itertools.islice(items, 8):  # entries of long lists are alike
            yield from places(item, (*way, key))


def with_other(document: Any, way: tuple, value: Any) -> Any:
    if not way:
        return value
    changed = copy.deepcopy(document)
    inside = changed
    for key in way[:-1]:
        inside = inside[key]
    inside[way[-1]] = value
    return changed


def without(document: Any, way: tuple) -> Any:
    changed = copy.deepcopy(document)
    inside = changed
    for key in way[:-1]:
        inside = inside[key]
    if way:
        del inside[way[-1]]
    return changed


def try_wrong(one, folder, count):
    document = json.loads(one.content)
    changes = [(way, value) for way in places(document) for value in (*WRONG, ...)]
    if count is not None:
        changes = random.Random(0).sample(changes, min(count, len(changes)))  # noqa: S311
    for way, value in changes:
        changed = without(document, way) if value is ... else with_other(document, way, value)
        try:
            check(one, json.dumps(changed).encode(), folder)
        except Exception as error:
            raise AssertionError(f"{way} = {str(value)[:50]}") from error


@pytest.mark.parametrize("name", JSON)
def test_json_of_wrong_types_is_refused_or_read(valid, name, tmp_path):
    try_wrong(valid[name], tmp_path, 2 * FEW)


@pytest.mark.nightly
@pytest.mark.parametrize("name", JSON)
def test_json_of_wrong_types_at_every_key_is_refused_or_read(valid, name, tmp_path):
    try_wrong(valid[name], tmp_path, None)


def test_values_that_calibrators_read_are_written_again(valid):
    content = valid["calibration"].content
    assert Calibration.from_bytes(content).to_bytes(histograms=True) == content
    text = valid["cache"].content
    assert CalibrationCache.from_bytes(text).to_bytes() == text
