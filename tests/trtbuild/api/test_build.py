"""`trtbuild.build`: every kind of network and data, options with the names of the command line."""

from __future__ import annotations

import inspect
from operator import attrgetter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import trtbuild
from tests.trtbuild.verification.small_network import images, quantized
from tools.write_build_options import build_options
from trtbuild.errors import InputError, ModelError, OptionError
from trtbuild.model import write_model
from trtbuild.options.keywords import keywords_of, recipe_values
from trtbuild.options.tables import make
from trtbuild.recipes import EngineRecipe

DATA = images(3, 24)
FAST = {"calibrator": "entropy"}


@pytest.fixture
def network(tmp_path) -> Path:
    write_model(quantized().source, tmp_path / "n.onnx")
    proto = onnx.load(tmp_path / "n.onnx")
    proto.graph.name = "n"
    onnx.save(proto, tmp_path / "n.onnx")
    return tmp_path / "n.onnx"


def files(built: trtbuild.Built) -> list[bytes]:
    return [built.int8_model.read_bytes(), built.engine.read_bytes()]


def test_a_network_in_memory_gives_the_files_of_the_recipe(network, tmp_path) -> None:
    recipe = trtbuild.EngineRecipe(
        model=network,
        output=tmp_path / "recipe",
        data=trtbuild.DataRecipe(data=[DATA[:10], DATA[10:]]),
        calibrate=trtbuild.CalibrateOptions(method="entropy"),
        latency=None,
    )
    wanted = trtbuild.build_engine(recipe)
    held = [(recipe.output / "n.int8.onnx").read_bytes(), wanted.engine.path.read_bytes()]
    model = ir.from_proto(onnx.load(network))
    built = trtbuild.quantize(model, DATA, output=tmp_path / "memory", **FAST)
    assert files(built) == held
    assert built.manifest.is_file()
    assert built.calibration.is_file()


@pytest.mark.parametrize(
    ("limit", "said"),
    [({"max_top1_drop": 1}, "needs labels"), ({}, "8 of the 24 samples that verify have a label")],
)
def test_labels_for_a_part_of_the_samples_are_refused_at_once(
    network, tmp_path, limit, said
) -> None:
    other = DATA + 1
    half = [{"image": other[:8], "label": np.zeros(8, int)}, {"image": other[8:]}]
    with pytest.raises(InputError, match=said):
        trtbuild.build(
            network, DATA, verify_data=half, output=tmp_path / "o", latency=False, **limit
        )
    assert not (tmp_path / "o").exists()


def test_the_result_says_what_the_command_line_says(network, tmp_path) -> None:
    built = trtbuild.build(
        onnx.load(network), {"image": DATA}, output=tmp_path / "o", latency=False, min_sqnr=5,
        min_agreement=1, task="classify", **FAST,
    )  # fmt: skip
    assert (built.verdict, built.why) == (built.result.ruling.word, built.result.ruling.why)
    assert str(built).splitlines()[-1].startswith(("SHIP", "what next", "CANNOT TELL"))
    engine = built.result.comparisons["engine"]
    figures = built.metrics["engine"]
    assert figures["sqnr_db logits"] == engine.output("logits").sqnr_db.value
    assert figures["same class"] == engine.task.main.estimate.value
    assert set(built.metrics) == {"engine", "tensorrt_form"}
    page = built.report(tmp_path / "page.html")
    assert built.verdict in page.read_text(encoding="utf-8")


def test_a_module_in_memory_is_exported_as_its_data_are(tmp_path) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3),
        torch.nn.BatchNorm2d(4),
        torch.nn.Flatten(),
        torch.nn.LazyLinear(5),
    )
    module(torch.zeros(2, 3, 6, 6))
    pixels = torch.randn(40, 3, 6, 6)
    samples = torch.utils.data.TensorDataset(pixels)
    found = []
    for number, data in enumerate((samples, (batch for batch in pixels.split(8)))):
        built = trtbuild.quantize(module, data, output=tmp_path / str(number), **FAST)
        specs = trtbuild.input_specs(trtbuild.load(built.recipe.model).source)
        assert [spec.dims for spec in specs] == [("batch", 3, 6, 6)]
        found.append(files(built))
    assert found[0] == found[1]
    assert module.training
    kept = trtbuild.read_manifest(built.manifest).recipe["export"]["source"]["target"]
    assert kept == "python object: Sequential"
    assert "python object: Sequential" in built.result.artifact.history[0].summary
    for given in (built.manifest, built.manifest.parent):
        with pytest.raises(ModelError, match="which no file records"):
            trtbuild.rebuild(given, tmp_path / "again", data=str(_saved(tmp_path, pixels)))


@pytest.mark.parametrize("wrapper", ["compile", "nn.DataParallel"])
def test_a_wrapped_module_takes_the_inputs_of_what_it_wraps(wrapper, tmp_path) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(64, 5)
    )
    wrapped = attrgetter(wrapper)(torch)(module)
    built = trtbuild.quantize(wrapped, torch.randn(40, 3, 6, 6), output=tmp_path, **FAST)
    assert built.int8_model.name == "Sequential.int8.onnx"
    specs = trtbuild.input_specs(trtbuild.load(built.recipe.model).source)
    assert [spec.dims for spec in specs] == [("batch", 3, 6, 6)]


def test_a_module_that_names_no_input_is_asked_for_it(tmp_path) -> None:
    torch = pytest.importorskip("torch")

    class Any(torch.nn.Module):
        def forward(self, *inputs):
            return inputs[0]

    with pytest.raises(OptionError, match="forward names no input"):
        trtbuild.quantize(Any(), torch.randn(4, 3), output=tmp_path)


def _saved(folder: Path, pixels) -> Path:
    np.save(folder / "x.npy", pixels.numpy())
    return folder / "x.npy"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"min_sqn": 25}, r"no option 'min_sqn' \(did you mean 'min_sqnr'\?\)"),
        ({"calibrator": "entrop"}, r"'calibrator' cannot be 'entrop'.*did you mean 'entropy'"),
        ({"min_sqnr": "much"}, "'min_sqnr' cannot be 'much'; it is a number"),
        ({"latency": 3}, "'latency' is a MeasureOptions, a dict, .*True or False|not 3"),
        ({"gate": {"min_sqn": 3}}, "there is no option 'min_sqn'"),
        ({"batch_size": 0}, "'batch_size' is at least 1"),
    ],
)
def test_a_wrong_option_is_refused_with_the_nearest_name(given, said) -> None:
    with pytest.raises(OptionError, match=said):
        trtbuild.build("n.onnx", DATA, **given)


def test_options_of_other_things_are_refused(network) -> None:
    with pytest.raises(OptionError, match="is for a PyTorch module"):
        trtbuild.build(network, DATA, opset=17)
    with pytest.raises(OptionError, match="'backend' is for"):
        trtbuild.quantize(network, DATA, backend="tensorrt")
    with pytest.raises(OptionError, match="ExportedProgram, not a int"):
        trtbuild.build(5, DATA)


def test_keywords_are_what_the_command_line_calls_them() -> None:
    given = {
        "min_sqnr": 25, "seconds": 2, "task": "detect", "tune": False, "float": ["Add", "Conv"],
        "max_float": 10, "percentile": 99.9, "calibrator": "percentile", "workspace": "4GiB",
        "constant": {"scale": [1, 1]}, "preprocess": {"color": "GRAY"}, "mean": 0.5,
        "optimize": trtbuild.OptimizeOptions(disable=("fold_shape",)), "output": "o",
    }  # fmt: skip
    recipe = make(EngineRecipe, {"model": Path("n.onnx"), **recipe_values(EngineRecipe, given)})
    assert recipe.gate.min_sqnr == 25
    assert recipe.latency.duration_ms == 2000
    assert (recipe.task.kind, recipe.tune) == ("detect", None)
    assert recipe.float_patterns == ("Add", "Conv")
    assert recipe.calibrate.method_options == {"percentile": 99.9}
    assert recipe.tensorrt.workspace == 4 * 2**30
    assert recipe.data.constants == {"scale": [1, 1]}
    assert (recipe.data.preprocess.color, recipe.data.preprocess.mean) == ("GRAY", (0.5,))
    assert recipe.optimize.disable == ("fold_shape",)
    assert recipe.output == Path("o")


def test_every_flag_of_the_command_has_its_keyword() -> None:
    from trtbuild.cli.engine import command

    flags = {
        flag[2:].replace("-", "_")
        for parameter in command.params
        for flag in parameter.opts
        if flag.startswith("--")
    }
    apart = {"recipe", "dry_run", "report", "junit", "json", "quiet", "verbose", "log", "help_all"}
    assert flags - apart <= set(keywords_of(EngineRecipe))


def test_the_types_of_the_keywords_are_those_of_the_options() -> None:
    from trtbuild.api import build_options as written

    text = Path(inspect.getsourcefile(written)).read_text(encoding="utf-8")
    assert text == build_options(), (
        "run python tools/write_build_options.py > trtbuild/api/build_options.py"
    )
