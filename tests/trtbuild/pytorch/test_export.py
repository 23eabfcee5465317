"""Exported files: names, opsets, dynamic sizes, outputs, data files, and refusals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402, N812 - torch's own convention
from torch import nn  # noqa: E402

from tests.trtbuild.pytorch.fold_cases import randomize  # noqa: E402
from trtbuild.errors import ModelError, OptionError, OutputError  # noqa: E402
from trtbuild.pytorch import InputSpec, export_onnx  # noqa: E402
from trtbuild.pytorch.spec import parse_input  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.act = nn.ReLU6()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.bn(self.conv(x))) + x


class Small(nn.Module):
    """A stem, two blocks, one activation called twice, and a linear on three axes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.relu = nn.ReLU()
        self.blocks = nn.Sequential(Block(), Block())
        self.fc = nn.Linear(8, 4)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.stem(image))
        x = self.relu(self.blocks(x))
        return self.fc(x.flatten(2).transpose(1, 2))


def small() -> nn.Module:
    torch.manual_seed(0)
    return randomize(Small())


IMAGE = InputSpec((2, 3, 8, 8), dynamic={0: "batch"})


def run(path: Path, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def test_the_file_has_the_modules_names_and_values(tmp_path: Path) -> None:
    module = small()
    path = tmp_path / "small.onnx"
    result = export_onnx(module, [IMAGE], path=path)
    assert [file.name for file in tmp_path.iterdir()] == ["small.onnx"]
    assert result.files == (path,)

    model = onnx.load(path)
    assert {o.domain: o.version for o in model.opset_import} == {"": 18}
    names = {node.name for node in model.graph.node}
    expected = {
        "stem",
        "relu",
        "relu_1",
        "blocks.0.conv",
        "blocks.0.act",
        "blocks.0/Add",
        "fc",
        "fc/Add",
    }
    assert expected <= names
    weights = {tensor.name for tensor in model.graph.initializer}
    assert {"stem.weight", "blocks.1.conv.weight", "fc.weight"} <= weights
    outputs = {output for node in model.graph.node for output in node.output}
    assert "blocks.0.conv_output_0" in outputs
    assert model.graph.input[0].name == "image"
    for value in (model.graph.input[0], model.graph.output[0]):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"
    assert model.graph.output[0].name == "output"
    # The exporter's metadata would hold absolute paths of source files.
    assert b".py" not in path.read_bytes()

    image = np.random.default_rng(0).standard_normal((5, 3, 8, 8)).astype(np.float32)
    with torch.no_grad():
        wanted = module(torch.from_numpy(image)).numpy()
    # Five layers of float32 arithmetic, 72 terms each: 1e-5 of the largest value is enough and still strict.
    np.testing.assert_allclose(
        run(path, {"image": image})[0], wanted, rtol=0, atol=1e-5 * abs(wanted).max()
    )


def test_activations_are_recognised() -> None:
    found = {
        a.layer: (a.activation, a.low, a.high) for a in export_onnx(small(), [IMAGE]).activations
    }
    assert found["stem"] == ("relu", 0.0, None)
    assert found["blocks.0.conv"] == ("blocks.0.act", 0.0, 6.0)
    assert "fc" not in found


@pytest.mark.parametrize("opset", [17, 18, 19, 20])
def test_opsets(opset: int) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            a, b = self.norm(x).chunk(2, -1)
            y = F.gelu(a) * b.softmax(-1).amax(1, keepdim=True)
            up = F.interpolate(y.unsqueeze(1), scale_factor=2, mode="bilinear")
            return F.pad(up.mean((1, 2)), (1, 1))

    result = export_onnx(Net().eval(), [InputSpec((2, 6, 8))], opset=opset)
    assert result.opset == opset
    assert result.model.opset_imports[""] == opset


def test_opsets_that_are_refused() -> None:
    with pytest.raises(OptionError, match="opset 16 is too old: 17 to 20"):
        export_onnx(small(), [IMAGE], opset=16)
    with pytest.raises(OptionError, match="--force-opset"):
        export_onnx(small(), [IMAGE], opset=21)
    assert export_onnx(small(), [IMAGE], opset=21, force_opset=True).opset == 21


def test_an_operator_that_opset_17_has_not() -> None:
    with pytest.raises(ModelError, match="Mish, which opset 17 does not have"):
        export_onnx(nn.Mish(), [InputSpec((2, 3))], opset=17)


def test_outputs_of_a_dict_keep_their_keys() -> None:
    class Two(nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"boxes": x + 1, "scores": x * 2}

    result = export_onnx(Two(), [InputSpec((2, 3))])
    assert [value.name for value in result.model.graph.outputs] == ["boxes", "scores"]
    named = export_onnx(Two(), [InputSpec((2, 3))], output_names=["a", "b"])
    assert [value.name for value in named.model.graph.outputs] == ["a", "b"]


def test_keys_do_not_name_outputs_that_they_do_not_stand_for() -> None:
    class Three(nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, Any]:
            return {"scores": x + 1, "states": (x * 2, x * 3), "loss": None}

    result = export_onnx(Three(), [InputSpec((2, 3))])
    names = [value.name for value in result.model.graph.outputs]
    assert names == ["output_0", "output_1", "output_2"]


def test_keys_name_outputs_that_lie_alone_in_other_containers() -> None:
    class Inside(nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, Any]:
            return {"boxes": {"all": x + 1}, "scores": [x * 2]}

    result = export_onnx(Inside(), [InputSpec((2, 3))])
    assert [value.name for value in result.model.graph.outputs] == ["boxes", "scores"]


@pytest.mark.parametrize("names", [["only"], ["same", "same"], ["x", "y"]])
def test_output_names_that_do_not_fit(names: list[str]) -> None:
    class Two(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x + 1, x * 2

    with pytest.raises(OptionError, match="output name"):
        export_onnx(Two(), [InputSpec((2, 3))], output_names=names)


def test_a_key_that_names_an_input_needs_another_name() -> None:
    class Again(nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"x": x + 1}

    with pytest.raises(OptionError, match=r"names of inputs: give others.*--output-name"):
        export_onnx(Again(), [InputSpec((2, 3))])
    named = export_onnx(Again(), [InputSpec((2, 3))], output_names=["y"])
    assert [value.name for value in named.model.graph.outputs] == ["y"]


class Passed(nn.Module):
    def forward(self, image):
        return image, image * 2


def test_an_input_that_is_an_output_too_keeps_its_name() -> None:
    result = export_onnx(Passed(), [InputSpec((2, 3))])
    graph = result.model.graph
    assert [value.name for value in graph.inputs] == ["image"]
    assert [value.name for value in graph.outputs] == ["output_0", "output_1"]
    assert len(result.parity.samples) > 0
    with pytest.raises(OptionError, match="names of inputs"):
        export_onnx(Passed(), [InputSpec((2, 3))], output_names=["image", "twice"])


def test_several_inputs_by_position_and_by_name() -> None:
    class Gather(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(50, 4)

        def forward(self, x: torch.Tensor, *, ids: torch.Tensor) -> torch.Tensor:
            return self.table(ids).sum(1) + x

    specs = [
        InputSpec((2, 7), "ids", "int64", 0, 49, dynamic={0: "batch", 1: "tokens"}),
        InputSpec((2, 4), dynamic={0: "batch"}),
    ]
    result = export_onnx(Gather(), specs)
    assert [value.name for value in result.model.graph.inputs] == ["x", "ids"]
    assert "x 3x4, ids 3x8" in result.parity.samples


@pytest.mark.parametrize(
    ("specs", "told"),
    [
        ([InputSpec((2, 4)), InputSpec((2, 4))], "cannot take 2 inputs"),
        ([InputSpec((2, 4), "y")], "no parameter 'y'"),
        ([], "needs an input for input"),
    ],
)
def test_inputs_that_do_not_fit(specs: list[InputSpec], told: str) -> None:
    with pytest.raises(OptionError, match=told):
        export_onnx(nn.Linear(4, 4), specs)


@pytest.mark.parametrize(
    "spec",
    [
        InputSpec((1, 3), low=-1e-05, high=1e16),
        InputSpec((2,), "ids", "int64", 0.0, 1e18),
        InputSpec((1, 1), low=-0.5, high=255.0),
    ],
)
def test_the_text_of_an_input_is_read_back(spec: InputSpec) -> None:
    assert parse_input(str(spec)) == spec


@pytest.mark.parametrize("text", ["1x3:float32:1.2.3..4", "1x3:0..", "1x3:-..1", "1x3:1e..2"])
def test_a_range_without_two_numbers_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match="is not"):
        parse_input(text)


def test_a_wrong_input_shape_names_the_layer() -> None:
    with pytest.raises(ModelError, match=r"image 2x3x8x9x1: in 'stem'"):
        export_onnx(small(), [InputSpec((2, 3, 8, 9, 1))])


def test_a_module_that_fails_without_a_word() -> None:
    class Asserts(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x.shape[1] != 4:
                raise AssertionError
            return x * 2

    with pytest.raises(ModelError, match=r"in 'forward', AssertionError"):
        export_onnx(Asserts(), [InputSpec((2, 3))])


class _Changing(nn.Module):
    """Fails in `second`; a run after that, or with the tensor of that run, would fail in `first`."""

    def __init__(self, *, counts: bool) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(5, 5)
        self.counts, self.runs = counts, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.runs += 1
        again = self.runs > 1 if self.counts else x.ndim > 2
        values = x[..., :3] if again else x.clone()
        x.unsqueeze_(0)
        return self.second(self.first(values))


@pytest.mark.parametrize(("counts", "where"), [(False, "second"), (True, "forward")])
def test_another_layer_than_the_failing_one_is_not_named(counts: bool, where: str) -> None:
    with pytest.raises(ModelError, match=rf"in '{where}', mat1 and mat2 .*2x4 and 5x5"):
        export_onnx(_Changing(counts=counts), [InputSpec((2, 4))])


def test_a_hard_coded_batch_is_noticed() -> None:
    class Fixed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.view(2, -1) * 2

    with pytest.raises(ModelError, match=r"'batch' cannot be dynamic.*to be a constant \(2\)"):
        export_onnx(Fixed(), [InputSpec((2, 3, 4), dynamic={0: "batch"})])


def test_a_dynamic_batch_may_be_given_as_one(capfd: pytest.CaptureFixture[str]) -> None:
    """torch.export specializes a size of 1, with a long message."""
    image = InputSpec((1, 3, 8, 8), dynamic={0: "batch", 2: "height"})
    result = export_onnx(small(), [image])
    assert [str(dim) for dim in result.model.graph.inputs[0].shape] == ["batch", "3", "height", "8"]
    assert "image 2x3x9x8" in result.parity.samples
    assert capfd.readouterr().err == ""


def test_a_batch_that_only_the_output_fixes_is_noticed() -> None:
    class Constant(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x + 1, torch.zeros(2, 3)

    result = export_onnx(Constant(), [InputSpec((2, 3), dynamic={0: "batch"})])
    assert any("'output_1' has the fixed first dim 2" in text for text in result.warnings)


def test_a_branch_on_data_is_refused_and_names_the_line() -> None:
    class Branch(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2 if x.sum() > 0 else x

    with pytest.raises(ModelError) as caught:
        export_onnx(Branch(), [InputSpec((2, 3))])
    assert "non-strict: GuardOnDataDependentSymNode" in str(caught.value)
    assert "in forward" in str(caught.value)


def test_train_mode_and_masks_are_dealt_with() -> None:
    module = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.9))
    torch.nn.utils.prune.l1_unstructured(module[0], "weight", 0.5)
    module.train()
    result = export_onnx(module, [InputSpec((2, 8))], fold=False)
    assert [node.op_type for node in result.model.graph] == ["Gemm"]
    weight = result.model.graph.initializers["0.weight"].const_value.numpy()
    assert (weight == 0).sum() == 32
    assert module.training
    assert torch.nn.utils.prune.is_pruned(module)


def test_external_data(tmp_path: Path) -> None:
    path = tmp_path / "small.onnx"
    result = export_onnx(small(), [IMAGE], path=path, external_data=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["small.onnx", "small.onnx.data"]
    assert len(result.files) == 2
    run(path, {"image": np.zeros((1, 3, 8, 8), np.float32)})


def test_weights_beyond_the_limit_go_beside_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trtbuild.model.writing.EXTERNAL_DATA_LIMIT", 1000)
    export_onnx(small(), [IMAGE], path=tmp_path / "small.onnx", external_data=False)
    assert (tmp_path / "small.onnx.data").exists()


def test_a_file_that_computes_something_else_does_not_appear(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damage(model: Any, module: Any) -> dict[str, str]:
        weight = model.graph.initializers["stem.weight"]
        weight.const_value = ir.tensor(weight.const_value.numpy() * np.float32(1.001))
        return {}

    monkeypatch.setattr("trtbuild.pytorch.export.name_by_modules", damage)
    with pytest.raises(ModelError, match="computes something else: output 0 for image 2x3x8x8"):
        export_onnx(small(), [IMAGE], path=tmp_path / "small.onnx")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        export_onnx(small(), [IMAGE], path=tmp_path / "absent" / "small.onnx")


class Segments(nn.Module):
    """Pools, and resizes to the size of the input."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.pool = nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        small = self.pool(self.first(image))
        return F.interpolate(small, size=image.shape[2:], mode="bilinear", align_corners=False)


class Grid(nn.Module):
    """Keeps a grid for the last shape, as detectors do."""

    shape: Any = None
    grid = torch.empty(0)

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.bn(self.conv(x)).flatten(2)
        if self.shape != x.shape:
            self.grid = torch.arange(x.shape[-1], dtype=x.dtype) + 0.5
            self.shape = x.shape
        return x * self.grid


OPEN = {0: "batch", 2: "height", 3: "width"}


def test_dynamic_height_and_width() -> None:
    module = Segments().eval()
    result = export_onnx(module, [InputSpec((1, 3, 16, 16), dynamic=OPEN)])
    assert [str(dim) for dim in result.model.graph.inputs[0].shape] == [
        "batch",
        "3",
        "height",
        "width",
    ]
    assert any("'height' is at least" in text for text in result.warnings)
    session = onnxruntime.InferenceSession(ir.to_proto(result.model).SerializeToString())
    image = torch.randn(3, 3, 21, 34)
    (found,) = session.run(None, {"image": image.numpy()})
    torch.testing.assert_close(
        torch.from_numpy(found), module(image).detach(), rtol=1e-4, atol=1e-5
    )


def test_what_forward_keeps_by_shape_is_not_spoilt() -> None:
    module = randomize(Grid())
    result = export_onnx(module, [InputSpec((1, 3, 8, 8), dynamic={0: "batch"})])
    assert result.fold is not None
    assert [fate.norm for fate in result.fold.folded] == ["bn"]
    assert module.shape is None


class Dice(nn.Module):
    def __init__(self, when: str) -> None:
        super().__init__()
        self.linear, self.when, self.kept = nn.Linear(4, 4), when, None
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.when == "early":
            return self.linear(F.dropout(x, 0.5, training=True))
        x = self.linear(x)
        if self.when == "random":
            return F.dropout(x, 0.5, training=True)
        if self.when == "buffer":
            self.calls += 1
            return x * self.calls
        last, self.kept = self.kept, x.detach()
        return x if last is None else x + last


@pytest.mark.parametrize(
    ("when", "told"),
    [
        ("random", "the module's forward is random in eval mode"),
        ("early", "the module's forward is random in eval mode"),
        ("buffer", "forward writes the buffer 'calls'"),
        ("attribute", "the module's forward keeps something between two runs"),
    ],
)
def test_state_and_dice_are_refused(when: str, told: str) -> None:
    with pytest.raises(ModelError, match=told):
        export_onnx(Dice(when).eval(), [InputSpec((2, 4))])


def test_the_module_that_draws_is_named_and_not_the_first_that_reads_it() -> None:
    with pytest.raises(ModelError, match="'1' is random in eval mode"):
        export_onnx(nn.Sequential(nn.Linear(4, 4), Dice("early")).eval(), [InputSpec((2, 4))])


def test_nan_weights_are_refused() -> None:
    module = small()
    with torch.no_grad():
        module.stem.weight[0, 0] = float("nan")
    with pytest.raises(ModelError, match=r"stem\.weight: NaN values"):
        export_onnx(module, [IMAGE])


def test_bfloat16_that_the_opset_lacks_is_refused_with_a_remedy() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3)).eval().bfloat16()
    with pytest.raises(ModelError, match=r"make the weights float32 \(module\.float\(\)\)"):
        export_onnx(module, [InputSpec((1, 3, 8, 8), dtype="bfloat16")])


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.Module], ways: int) -> None:
        super().__init__()
        self.first, self.out = nn.Linear(6, 8), nn.Linear(8 * ways, 3)
        self.rnn = kind(8, 8, batch_first=True, bidirectional=ways == 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.rnn(self.first(x))[0])


@pytest.mark.parametrize(("kind", "ways"), [(nn.LSTM, 2), (nn.GRU, 1)])
def test_the_length_of_a_recurrent_layer_may_be_dynamic(kind: type[nn.Module], ways: int) -> None:
    torch.manual_seed(0)
    module = Recurrent(kind, ways).eval()
    result = export_onnx(module, [InputSpec((2, 5, 6), dynamic={0: "batch", 1: "time"})])
    assert [str(dim) for dim in result.model.graph.inputs[0].shape] == ["batch", "time", "6"]
    assert kind.__name__ in {node.op_type for node in result.model.graph}
    session = onnxruntime.InferenceSession(ir.to_proto(result.model).SerializeToString())
    x = torch.randn(3, 11, 6)
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        want = module(x).numpy()
    # sums of 22 products of values below 1, over 11 steps, in float32
    np.testing.assert_allclose(found, want, rtol=0, atol=1e-5)


class Windows(nn.Module):
    """Attention within windows, an axis more than torch's exporter has a form for; queries share keys."""

    def __init__(self, values: int = 1, **options: Any) -> None:
        super().__init__()
        self.options, self.values = options, values
        self.qkv, self.out = nn.Linear(8, 12 + 4 * values), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        packed = self.qkv(x).unflatten(1, (2, 6)).unflatten(-1, (-1, 4)).transpose(2, 3)
        query, key, value = packed.split((2, 1, self.values), dim=2)
        mixed = F.scaled_dot_product_attention(query, key, value, enable_gqa=True, **self.options)
        return self.out(mixed.transpose(2, 3).flatten(-2).flatten(1, 2))


@pytest.mark.parametrize(
    "options",
    [
        {"is_causal": True, "scale": 0.3},
        {"attn_mask": torch.arange(36).reshape(6, 6) / 36.0},
        {"attn_mask": torch.arange(36).reshape(6, 6) > 7},
        {"values": 2},
    ],
    ids=["causal", "added", "first-sees-nothing", "own-values"],
)
def test_attention_over_more_axes_is_exported(tmp_path: Path, options: dict[str, Any]) -> None:
    module = Windows(**options).eval()
    path = tmp_path / "windows.onnx"
    export_onnx(module, [InputSpec((2, 12, 8), dynamic={0: "batch"})], path=path)
    x = torch.randn(3, 12, 8)
    (found,) = run(path, {"x": x.numpy()})
    # both round in float32, in another order
    assert np.allclose(found, module(x).detach().numpy(), rtol=1e-4, atol=1e-5)
