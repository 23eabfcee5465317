"""Programs of ``torch.export`` in the place of a module."""

from __future__ import annotations

import onnx
import pytest

torch = pytest.importorskip("torch")

import trtbuild  # noqa: E402
from tests.command import FAST  # noqa: E402
from tests.command import trtbuild as command  # noqa: E402
from trtbuild.errors import ModelError, OptionError  # noqa: E402
from trtbuild.pytorch import InputSpec, export_onnx, fold_norms  # noqa: E402
from trtbuild.pytorch.programs import write_program  # noqa: E402

QUICK = {"effort": "fast"}


class Block(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.norm = torch.nn.BatchNorm2d(8)
        self.drop = torch.nn.Dropout(0.5)

    def forward(self, x):
        return self.drop(torch.relu(self.norm(self.conv(x))))


class Small(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = Block()
        self.head = torch.nn.Linear(8, 5)

    def forward(self, image, *, shift):
        return {"scores": self.head(self.block(image).mean((2, 3)) + shift), "shifted": shift + 1}


class Plain(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = Block()
        self.head = torch.nn.Linear(8, 5)

    def forward(self, image):
        return self.head(self.block(image).mean((2, 3)))


def program_of(module, *, dynamic: bool = True, kind=torch.float32):
    torch.manual_seed(0)
    images = torch.randn(4, 3, 12, 12, dtype=kind)
    shapes = {"image": {0: torch.export.Dim("batch", max=64)}} if dynamic else None
    return torch.export.export(module, (images,), dynamic_shapes=shapes)


def test_a_program_is_built_with_its_dynamic_batch(tmp_path) -> None:
    program = program_of(Plain().eval())
    built = trtbuild.quantize(program, torch.randn(40, 3, 12, 12), output=tmp_path, **QUICK)
    model = onnx.load(tmp_path / "Plain.onnx")
    (image,) = model.graph.input
    batch, *others = image.type.tensor_type.shape.dim
    assert (image.name, batch.dim_value, [one.dim_value for one in others]) == (
        "image", 0, [3, 12, 12],
    )  # fmt: skip
    assert batch.dim_param
    assert [one.name for one in model.graph.output] == ["output"]
    assert built.metrics["engine"]["sqnr_db output"] > 20


def test_inputs_by_keyword_and_outputs_by_key_keep_their_names(tmp_path) -> None:
    module = Small().eval()
    arguments, keywords = (torch.randn(4, 3, 12, 12),), {"shift": torch.randn(4, 8)}
    program = torch.export.export(module, arguments, keywords)
    data = {"image": torch.randn(40, 3, 12, 12).numpy(), "shift": torch.randn(40, 8).numpy()}
    trtbuild.quantize(program, data, output=tmp_path, **QUICK)
    model = onnx.load(tmp_path / "Small.onnx")
    assert [one.name for one in model.graph.input] == ["image", "shift"]
    assert [one.name for one in model.graph.output] == ["scores", "shifted"]


def test_a_program_in_float64_is_read_as_float32(tmp_path) -> None:
    program = program_of(Plain().eval().double(), dynamic=False, kind=torch.float64)
    built = trtbuild.quantize(program, torch.randn(40, 3, 12, 12), output=tmp_path, **QUICK)
    assert built.metrics["engine"]["sqnr_db output"] > 20


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of torch, from its own code
@pytest.mark.parametrize("form", ["as exported", "decomposed"])
@pytest.mark.parametrize("part", ["norm", "drop"])
def test_a_program_that_trains_is_refused(form, part, tmp_path) -> None:
    module = Plain().eval()
    getattr(module.block, part).train()
    program = program_of(module)
    if form == "decomposed":
        program = program.run_decompositions()
    with pytest.raises(ModelError, match=rf"'block\.{part}' trains\): call eval\(\) on the module"):
        trtbuild.build(program, torch.randn(40, 3, 12, 12), output=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_norm_that_keeps_no_statistics_does_not_train(tmp_path) -> None:
    module = Plain().eval()
    module.block.norm = torch.nn.BatchNorm2d(8, track_running_stats=False).eval()
    program = program_of(module, dynamic=False)
    trtbuild.quantize(program, torch.randn(40, 3, 12, 12), output=tmp_path, **QUICK)
    assert (tmp_path / "Plain.onnx").exists()


def test_a_program_without_values_is_refused(tmp_path) -> None:
    with torch.device("meta"):
        program = torch.export.export(Plain().eval(), (torch.randn(4, 3, 12, 12),))
    with pytest.raises(ModelError, match="has a shape and no values"):
        trtbuild.build(program, torch.randn(40, 3, 12, 12), output=tmp_path)


def test_options_for_modules_are_refused(tmp_path) -> None:
    with pytest.raises(OptionError, match="is for a PyTorch module"):
        trtbuild.build(
            program_of(Plain().eval()), torch.randn(4, 3, 12, 12), dynamic="batch", output=tmp_path
        )


def test_a_program_that_draws_random_numbers_is_refused(tmp_path) -> None:
    class Noisy(Plain):
        def forward(self, image):
            return super().forward(image + torch.rand_like(image))

    with pytest.raises(ModelError, match="draws random numbers"):
        trtbuild.build(program_of(Noisy().eval()), torch.randn(4, 3, 12, 12), output=tmp_path)
    assert not list(tmp_path.glob("*.onnx"))


def test_a_file_of_a_program_is_not_read_and_why_is_said(tmp_path, capsys) -> None:
    path = tmp_path / "net.pt2"
    torch.export.save(program_of(Plain().eval()), path)
    words = ("engine", path, "--int8", "--data", tmp_path / "x.npy", "-o", tmp_path / "out", *FAST)
    (tmp_path / "x.npy").touch()
    said = command(capsys, *words).sentence
    assert "a program of torch.export; reading it may run code" in said
    assert "trtbuild.build(torch.export.load(...), ...)" in said
    said = command(capsys, "bench", path).sentence
    assert "neither a TensorRT plan nor an ONNX network, but a program of torch.export" in said
    loaded = torch.export.load(path)
    built = trtbuild.quantize(loaded, torch.randn(40, 3, 12, 12), output=tmp_path, **QUICK)
    assert built.metrics["engine"]["sqnr_db output"] > 20


class Growing(Plain):
    def forward(self, image):
        image.add_(1)
        return super().forward(image)


def test_a_program_that_writes_into_its_input_is_compared_with_what_it_got(tmp_path) -> None:
    program = program_of(Growing().eval())
    before = program.example_inputs[0][0].clone()
    trtbuild.quantize(program, torch.randn(40, 3, 12, 12), output=tmp_path, **QUICK)
    assert (tmp_path / "Growing.onnx").exists()
    assert torch.equal(program.example_inputs[0][0], before)


class Sized(torch.nn.Module):
    def forward(self, image):
        return image * 2, image.shape[0]


def test_a_program_that_gives_a_number_is_refused(tmp_path) -> None:
    with pytest.raises(ModelError, match=r"gives a int at \[1\] of its outputs"):
        trtbuild.quantize(program_of(Sized()), torch.randn(40, 3, 12, 12), output=tmp_path)


def test_a_program_without_example_inputs_is_refused(tmp_path) -> None:
    program = program_of(Plain().eval())
    program.example_inputs = None
    with pytest.raises(ModelError, match="has no example inputs"):
        trtbuild.quantize(program, torch.randn(40, 3, 12, 12), output=tmp_path)


def test_a_program_in_the_place_of_a_module_that_is_trained_is_refused(tmp_path) -> None:
    with pytest.raises(ModelError, match=r"of torch\.export, which can be neither trained"):
        trtbuild.compress(
            program_of(Plain().eval()), lambda module: None, lambda module: 1.0,
            torch.randn(40, 3, 12, 12).numpy(), input="1x3x12x12", prune=0.5, output=tmp_path,
        )  # fmt: skip


@pytest.mark.parametrize(
    "call",
    [
        lambda program: export_onnx(program, [InputSpec((4, 3, 12, 12))]),
        lambda program: fold_norms(program, [InputSpec((4, 3, 12, 12))]),
        lambda program: trtbuild.compress(
            program, lambda module: None, lambda module: 1.0, torch.randn(40, 3, 12, 12).numpy(), prune=0.5
        ),
    ],
)  # fmt: skip
def test_calls_for_modules_refuse_a_program_by_name(call) -> None:
    with pytest.raises(ModelError, match=r"is a program of torch\.export, .* give the module"):
        call(program_of(Plain().eval()))


@pytest.mark.parametrize("other", [None, Plain, lambda image: image])
def test_an_export_of_anything_else_is_refused_by_its_type(other) -> None:
    with pytest.raises(ModelError, match=f"is a {type(other).__name__}, not an nn.Module"):
        export_onnx(other, [InputSpec((4, 3, 12, 12))])


class Times(torch.nn.Module):
    def forward(self, one, *, by):
        return one.real * by


@pytest.mark.filterwarnings("ignore:The tensor attributes")
@pytest.mark.parametrize(
    ("module", "inputs", "said"),
    [
        (torch.nn.LSTM(4, 6, proj_size=3).eval(), (torch.zeros(2, 5, 4),), "an LSTM with proj_size"),
        (Times(), (torch.zeros(2, 3) * 1j,), "takes complex numbers"),
    ],
)  # fmt: skip
def test_a_program_that_no_engine_computes_is_refused(module, inputs, said, tmp_path) -> None:
    keywords = {"by": torch.ones(1)} if isinstance(module, Times) else None
    with pytest.raises(ModelError, match=said):
        trtbuild.quantize(
            torch.export.export(module, inputs, keywords), torch.randn(40, 3), output=tmp_path
        )
    assert not list(tmp_path.glob("*.onnx"))


class Scaled(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Linear(4, 3)

    def forward(self, by):
        return self.head.weight * by


def test_a_program_of_numbers_alone_is_refused(tmp_path) -> None:
    with pytest.raises(ModelError, match="the program takes no tensor"):
        trtbuild.quantize(torch.export.export(Scaled(), (3,)), torch.randn(40, 3), output=tmp_path)


def test_a_program_with_a_keyword_in_bfloat16_is_not_compared(tmp_path) -> None:
    factor = {"by": torch.ones(3, dtype=torch.bfloat16)}
    program = torch.export.export(Times(), (torch.ones(2, 3),), factor)
    assert write_program(program, tmp_path).is_file()
