"""Unusual modules of users: each works, or is refused with a message that names the place."""

from __future__ import annotations

import functools
import threading
import types
import warnings
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torch_pruning")

import torch.nn.functional as F  # noqa: E402, N812
from torch import nn  # noqa: E402

from trtbuild.errors import InputError, ModelError  # noqa: E402
from trtbuild.pytorch import InputSpec, export_onnx, fold_norms, load_module  # noqa: E402
from trtbuild.pytorch.prune import (  # noqa: E402
    channel_weights,
    group_lasso,
    history_of,
    list_groups,
    load_pruned,
    prune_channels,
    prune_indices,
    save_pruned,
    zero_channels,
)
from trtbuild.pytorch.spec import ModuleSource, PruneSpec  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

IMAGE = [InputSpec((2, 3, 8, 8), dynamic={0: "batch"})]
ROW = InputSpec((2, 4), dynamic={0: "batch"})
HALF = PruneSpec(0.5, round_to=1)


def plain() -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).eval()


def widths(module: nn.Module, inputs: Any = IMAGE) -> dict[str, int]:
    return {w.path: w.after for w in prune_channels(module, inputs, HALF).report.widths}


class Gates(nn.Module):
    """Gated linear units (Dauphin et al. 2017), as a function over two axes and as a module."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 16, 3, padding=1)
        self.b = nn.Linear(8, 24)
        self.gate = nn.GLU()
        self.out = nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.glu(self.a(x), dim=1).mean((2, 3))
        return self.out(self.gate(self.b(x)))


def test_both_halves_of_a_gate_lose_the_same_channels() -> None:
    assert widths(Gates()) == {"a": 8, "b": 12, "out": 5}


class Remembers(nn.Module):
    """Takes a feature map by a hook, and calls a layer in a function; both refer to ``self``."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.out = nn.Linear(8, 5)
        self.seen: dict[str, torch.Tensor] = {}
        self.a.register_forward_hook(lambda _m, _i, output: self.seen.update(a=output))
        self.again = [FUNCTIONS[how](self)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.a(x)
        return self.out(self.again[0](self.seen["a"]).mean((2, 3)))


def through_another(module: Any) -> Any:
    def inner(x: torch.Tensor) -> Any:
        return module.b(x)

    return lambda x: F.relu(inner(x))


FUNCTIONS: dict[str, Any] = {
    "a cell": lambda module: lambda x: F.relu(module.b(x)),
    "a default": lambda module: lambda x, layer=module.b: F.relu(layer(x)),
    "a keyword": lambda module: lambda x, *, layer=module.b: F.relu(layer(x)),
    "another function": through_another,
}


@pytest.mark.parametrize("how", FUNCTIONS)
def test_functions_that_refer_to_the_module_are_copied_with_it(how: str) -> None:
    module = Remembers(how).eval()
    assert widths(module) == {"a": 4, "b": 4, "out": 5}
    assert module.seen == {}  # a copy ran, not the module itself
    assert module.b.weight.shape == (8, 8, 3, 3)
    other = load_module(ModuleSource(module)).module
    images = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        other.b.weight.zero_()
        assert not torch.equal(module(images), other(images))


class Frozen(nn.Module):
    """A backbone without gradients, as in transfer learning."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.out = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            x = F.relu(self.a(x))
        return self.out(F.relu(self.b(x)).mean((2, 3)))


def test_channels_of_a_frozen_part_are_followed() -> None:
    assert widths(Frozen()) == {"a": 4, "b": 4, "out": 5}


class Several(nn.Module):
    """Takes any number of tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.out = nn.Linear(4, 8), nn.Linear(8, 5)

    def forward(self, *rows: torch.Tensor) -> torch.Tensor:
        return self.out(F.relu(sum(self.a(row) for row in rows)))


class Scaled(nn.Module):
    """Takes one tensor, any number more, and one by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.several = Several()

    def forward(self, x: torch.Tensor, *rows: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return self.several(x, *rows) * scale


SCALE = InputSpec((2, 1), name="scale", dynamic={0: "batch"})


@pytest.mark.parametrize(
    ("make", "inputs", "names"),
    [
        (Several, [ROW, ROW], ["input_0", "input_1"]),
        (Scaled, [ROW, SCALE], ["x", "scale"]),
        (Scaled, [ROW, SCALE, ROW], ["x", "input_2", "scale"]),
    ],
)
def test_any_number_of_inputs_is_exported(make: Any, inputs: Any, names: list[str]) -> None:
    model = export_onnx(make(), inputs).model
    assert [value.name for value in model.graph.inputs] == names
    assert [str(value.shape[0]) for value in model.graph.inputs] == ["batch"] * len(names)


class InList(nn.Module):
    """Layers in a plain list, which no cast of torch reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.out = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 5)
        self.head = nn.Conv2d(8, 8, 1)
        self.more = [nn.Conv2d(8, 8, 1)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.head(F.relu(self.more[0](self.stem(x)))).mean((2, 3)))


def test_layers_in_a_plain_list_keep_their_width_and_what_they_read() -> None:
    assert widths(InList()) == {"stem": 8, "head": 4, "out": 5}


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile])
def test_wrapped_modules_are_taken_out(wrap: Any) -> None:
    module = wrap(plain())
    assert type(fold_norms(module, IMAGE).module) is nn.Sequential
    assert {group.root for group in list_groups(module, IMAGE, HALF)} == {"0", "5"}
    assert zero_channels(module, IMAGE) == {}
    weights = channel_weights(module, IMAGE)
    assert [one.layer for one in weights] == ["0"]
    assert group_lasso(module, weights) > 0
    assert widths(module)["0"] == 4
    loaded = load_module(ModuleSource(module)).module
    assert list(loaded.state_dict()) == list(plain().state_dict())


def test_a_wrapped_module_is_saved_and_loaded(tmp_path: Path) -> None:
    wrapped = nn.DataParallel(prune_channels(plain(), IMAGE, HALF).module)
    save_pruned(wrapped, history_of(wrapped), tmp_path)
    again = load_pruned(nn.DataParallel(plain()), tmp_path)
    assert again.module[0].weight.equal(wrapped.module[0].weight)


@pytest.mark.parametrize(
    "norm", [torch.nn.utils.spectral_norm, torch.nn.utils.parametrizations.spectral_norm]
)
def test_weights_that_were_computed_are_saved_and_loaded(norm: Any, tmp_path: Path) -> None:
    def build() -> nn.Sequential:
        module = plain()
        norm(module[0])
        return module

    result = prune_channels(build(), IMAGE, HALF)
    save_pruned(result.module, result.history, tmp_path)
    assert load_pruned(build(), tmp_path)[0].weight.equal(result.module[0].weight)


class OwnKernels(nn.Module):
    """A convolution with kernels computed for each sample, all samples in one call."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels = nn.Linear(3, 4 * 3 * 9)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, _, height, width = x.shape
        kernels = self.kernels(x.mean((2, 3))).view(n * 4, 3, 3, 3)
        made = F.conv2d(x.reshape(1, -1, height, width), kernels, padding=1, groups=n)
        return made.view(n, 4, height, width)


def test_a_kernel_for_each_sample_wants_a_fixed_batch() -> None:
    with pytest.raises(ModelError, match="export with a fixed batch"):
        export_onnx(OwnKernels(), IMAGE)
    assert export_onnx(OwnKernels(), [InputSpec((2, 3, 8, 8))]).parity.relative_error is not None


@pytest.mark.parametrize("types", [("float16", "float32"), ("float32", "float64")])
def test_types_at_odds_are_told_with_what_to_do(types: tuple[str, str]) -> None:
    weights, given = types
    module = plain().to(getattr(torch, weights))
    with pytest.raises(ModelError, match=rf"weights are {weights}.*module\.float\(\)"):
        prune_channels(module, [InputSpec((2, 3, 8, 8), dtype=given)], HALF)


@pytest.mark.parametrize("given", ["float32", "float64"])
def test_float64_is_exported_as_float32(given: str) -> None:
    module = plain().double()
    result = export_onnx(module, [InputSpec((2, 3, 8, 8), dtype=given)])
    assert any("TensorRT has no float64" in one for one in result.warnings)
    assert result.model.graph.inputs[0].dtype is ir.DataType.FLOAT
    assert module[0].weight.dtype is torch.float64


class Gives(nn.Module):
    """Returns always the same."""

    def __init__(self, what: Any) -> None:
        super().__init__()
        self.a, self.what = nn.Linear(4, 8), what

    def forward(self, x):
        self.a(x)
        return self.what


class Tells(nn.Module):
    """Returns another value besides tensors."""

    def __init__(self, what: Any) -> None:
        super().__init__()
        self.a, self.what = nn.Linear(4, 8), what

    def forward(self, x: torch.Tensor) -> Any:
        return {"scores": self.a(x), "more": self.what}


class Pair(nn.Module):
    """Takes a tuple."""

    def forward(self, pair: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return pair[0] + pair[1]


class Guarded(nn.Linear):  # type: ignore[misc]  # torch has no types here
    """A layer with a lock of its own."""

    def __init__(self) -> None:
        super().__init__(4, 2)
        self.lock = threading.Lock()


@pytest.mark.parametrize(
    ("make", "inputs", "said"),
    [
        (lambda: torch.jit.script(plain()), IMAGE, "the module is TorchScript"),
        (lambda: nn.Sequential(torch.jit.trace(plain(), torch.zeros(2, 3, 8, 8))), IMAGE, "'0' is"),
        (lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(3)), IMAGE, "'1' is lazy"),
        (lambda: Tells(5), [ROW], r"forward gives a int at \['more'\]"),
        (lambda: Tells(["a"]), [ROW], r"forward gives a str at \['more'\]\[0\]"),
        (lambda: Tells(torch.ones(2) * 1j), [ROW], r"forward gives complex numbers at \['more'\]"),
        (lambda: Gives(None), [ROW], "forward gives no tensor"),
        (lambda: Gives(()), [ROW], "forward gives no tensor"),
        (Pair, [ROW, InputSpec((2, 4), name="b")], "wrap the module"),
        (lambda: nn.LSTM(4, 5, proj_size=2), [InputSpec((2, 3, 4))], "an LSTM with proj_size"),
        (Guarded, [ROW], r"such as a lock, .*TypeError: cannot pickle"),
    ],
)
@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_what_cannot_be_followed_is_named(make: Any, inputs: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        export_onnx(make(), inputs)


class MakesTensors(nn.Module):  # type: ignore[misc]  # torch has no types here
    """Its forward makes tensors of torch's default type, as many give an LSTM its first state."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 6)
        self.cell = nn.LSTMCell(6, 5)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        start = torch.zeros(rows.shape[0], 5)
        grown = self.second(torch.relu(self.first(rows))) @ torch.eye(6)
        return self.cell(grown, (start, start))[0] + torch.linspace(0, 1, 5)


def test_tensors_of_the_default_type_are_compared_in_float64_too() -> None:
    torch.manual_seed(0)
    module = MakesTensors()
    parity = export_onnx(module, [ROW]).parity
    assert parity.note == ""
    assert parity.relative_error < 1e-5
    pruned = prune_indices(module, [ROW], {"first": [1, 5]})
    assert pruned.module.first.out_features == 6
    assert torch.get_default_dtype() == torch.float32


class Warns(nn.Linear):  # type: ignore[misc]  # torch has no types here
    """A layer that warns, as some of torch's do on some processors."""

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        warnings.warn("this is slow", UserWarning, stacklevel=2)
        return super().forward(rows)


@pytest.mark.parametrize(
    "use",
    [
        export_onnx,
        fold_norms,
        lambda module, inputs: prune_channels(module, inputs, HALF),
        lambda module, inputs: prune_indices(module, inputs, {"0": [1]}),
    ],
)
def test_a_warning_of_the_module_is_no_failure(use: Any) -> None:
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("error")
        use(nn.Sequential(nn.Linear(4, 4), Warns(4, 2)), [ROW])
        with pytest.raises(UserWarning, match="still an error"):
            warnings.warn("still an error", UserWarning, stacklevel=1)
    assert "this is slow" in [str(one.message) for one in shown]


@pytest.mark.parametrize("first", ["meta", "cpu"])
def test_a_module_without_values_is_refused(first: str) -> None:
    with torch.device("meta"):
        module = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, affine=False))
    module[0].to_empty(device=first)
    with pytest.raises(ModelError, match=r"'[01]\.\w+' has a shape and no values"):
        load_module(ModuleSource(lambda: module))


class HandsOnSizes(nn.Module):
    """Hands a tensor of few operators to a module inside."""

    def __init__(self, sizes: torch.Tensor) -> None:
        super().__init__()
        self.first, self.inner, self.sizes = nn.Linear(4, 4), Chooses(), sizes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(self.first(x), self.sizes)


class Chooses(nn.Module):
    def forward(self, x: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
        return x if sizes.shape[0] == 3 else -x


@pytest.mark.parametrize(
    "sizes", [torch.ones(3, dtype=torch.uint16), torch.eye(3).to_sparse()], ids=["uint16", "sparse"]
)
def test_tensors_of_few_operators_are_handed_on_inside(sizes: torch.Tensor) -> None:
    assert export_onnx(HandsOnSizes(sizes), [InputSpec((1, 4))]).model.graph.outputs


def test_a_lazy_module_is_refused_when_it_is_loaded() -> None:
    with pytest.raises(ModelError, match="'0' is lazy"):
        load_module(ModuleSource(lambda: nn.Sequential(nn.LazyLinear(3))))


class MapAttention(nn.Module):
    """YOLO11's attention over a map: a packed 1 x 1 convolution, and a depthwise one for positions."""

    def __init__(self, width: int = 32, heads: int = 2) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, width // heads
        self.key_dim = self.head_dim // 2
        self.qkv = nn.Conv2d(width, width + 2 * self.key_dim * heads, 1)
        self.proj = nn.Conv2d(width, width, 1)
        self.pe = nn.Conv2d(width, width, 3, padding=1, groups=width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, width, height, length = x.shape
        sizes = [self.key_dim, self.key_dim, self.head_dim]
        packed = self.qkv(x).view(batch, self.heads, sum(sizes), height * length)
        query, key, value = packed.split(sizes, dim=2)
        weights = (query.transpose(-2, -1) @ key * self.key_dim**-0.5).softmax(-1)
        mixed = (value @ weights.transpose(-2, -1)).view(batch, width, height, length)
        return x + self.proj(mixed + self.pe(value.reshape(batch, width, height, length)))


def test_attention_over_maps_is_kept_and_does_not_hold_up_the_rest() -> None:
    # In larger networks, the library follows more cycles, and its numbers grow with each.
    tail = [layer for _ in range(60) for layer in (nn.Conv2d(8, 8, 1), nn.ReLU())]
    first = nn.Conv2d(3, 32, 3), MapAttention(), MapAttention(), nn.Conv2d(32, 8, 1), nn.ReLU()
    module = nn.Sequential(*first, *tail, nn.Conv2d(8, 4, 1)).eval()
    groups = list_groups(module, [InputSpec((1, 3, 12, 12))], HALF)
    kept = {group.root: group.kept for group in groups}
    assert "too many ways" in kept["1.qkv"]
    assert "too many ways" in kept["2.qkv"]
    assert not kept["3"]
    assert not any(kept[str(number)] for number in range(5, 125, 2))


class Packed(nn.Module):
    """Attention with a packed layer that cannot be cut: forward takes its widths from another tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.head_dim = 2, 8
        self.norm, self.qkv, self.proj = nn.LayerNorm(16), nn.Linear(16, 48), nn.Linear(16, 16)
        self.up, self.down, self.out = nn.Linear(16, 32), nn.Linear(32, 16), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, length, width = x.shape
        packed = self.qkv(self.norm(x)).reshape(n, length, 3, 2, self.head_dim)
        mixed = F.scaled_dot_product_attention(*packed.permute(2, 0, 3, 1, 4))
        x = x + self.proj(mixed.transpose(1, 2).reshape(n, length, width))
        return self.out(x + self.down(F.gelu(self.up(x))))


def test_a_cut_that_was_taken_back_is_not_done_again_from_disk(tmp_path: Path) -> None:
    module = Packed().eval()
    result = prune_channels(module, [InputSpec((2, 5, 16))], HALF)
    save_pruned(result.module, result.history, tmp_path)
    assert [path for path, _, _ in result.history.cuts] == ["up"]
    again = load_pruned(Packed().eval(), tmp_path)
    assert again.head_dim == 8
    assert all(map(torch.equal, again.state_dict().values(), result.module.state_dict().values()))


class Normalized(nn.Module):
    """Attention with normalized queries and keys, so that more than three nodes read the three pieces."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.qkv, self.proj = nn.Linear(6, 16), nn.Linear(16, 96), nn.Linear(32, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        packed = self.qkv(self.first(x)).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = packed.unbind(0)
        query, key = F.normalize(query, dim=-1), F.normalize(key, dim=-1)
        mixed = (query @ key.transpose(-2, -1)).softmax(-1) @ value
        return self.proj(mixed.transpose(1, 2).flatten(-2))


def test_pieces_that_are_taken_twice_lose_the_same_channels() -> None:
    module = Normalized()
    module.num_heads = 2
    assert widths(module.eval(), [InputSpec((2, 5, 6))]) == {"first": 8, "qkv": 48, "proj": 6}


class OneKey(nn.Module):
    """All four heads of queries read one head of keys and values; all come from the same layer."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.head_dim = 4, 8
        self.first, self.last = nn.Linear(6, 16), nn.Linear(16, 32)
        self.c_attn, self.c_proj = nn.Linear(32, 48), nn.Linear(32, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = self.c_attn(self.last(F.relu(self.first(x)))).split((32, 8, 8), -1)
        query = query.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)
        mixed = (query @ key[:, None].transpose(-2, -1)).softmax(-1) @ value[:, None]
        return self.c_proj(mixed.transpose(1, 2).flatten(-2))


def test_heads_are_not_counted_where_the_module_says_another_width() -> None:
    left = widths(OneKey().eval(), [InputSpec((2, 5, 6))])
    # 48 channels would be three times four heads of four, but a head has eight
    assert left == {"first": 8, "last": 16, "c_attn": 48, "c_proj": 3}


class ByVersion(nn.Module):
    """Checks the version of its weights, like torchvision's MNASNet."""

    _version = 2

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)

    def _load_from_state_dict(self, *given: Any) -> None:
        assert given[2].get("version") == 2
        super()._load_from_state_dict(*given)


def test_a_module_that_asks_for_the_version_of_weights_is_loaded(tmp_path: Path) -> None:
    result = prune_channels(ByVersion().eval(), [ROW], HALF)
    save_pruned(result.module, result.history, tmp_path)
    again = load_pruned(ByVersion().eval(), tmp_path)
    assert all(map(torch.equal, again.state_dict().values(), result.module.state_dict().values()))


class ByValues(nn.Module):
    """Computes only the rows with a positive first number, so their number depends on the data."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        chosen = x[:, 0] > 0
        found = self.last(self.first(x[chosen]))
        return x.new_zeros(2, 3).masked_scatter(chosen[:, None], found)


def test_products_that_depend_on_values_are_not_counted() -> None:
    report = prune_channels(ByValues().eval(), [ROW], HALF).report
    assert report.before.macs is None
    assert report.widths[0].after == 4


class Adapted(nn.Linear):  # type: ignore[misc]  # torch has no types here
    """A layer with a low-rank product beside it (LoRA, Hu et al. 2021)."""

    def __init__(self) -> None:
        super().__init__(8, 12)
        self.down, self.up = nn.Parameter(torch.randn(4, 8)), nn.Parameter(torch.randn(12, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + x @ self.down.T @ self.up.T


def test_a_layer_with_more_weights_than_its_own_is_named() -> None:
    module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), Adapted(), nn.ReLU(), nn.Linear(12, 3))
    report = prune_channels(module.eval(), [ROW], HALF).report
    told = {width.path: width.kept for width in report.widths}
    assert all("'2' has down, up besides its weight" in told[path] for path in ("0", "2"))


class Flowing(nn.Module):
    """A transformer whose attention takes its width from the residual stream, as in the first ViTs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.out, self.heads = nn.Linear(6, 32), nn.Linear(32, 3), 4
        self.blocks = nn.ModuleList(Around(32, self.heads) for _ in range(2))
        self.norm = nn.LayerNorm(32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.out(self.norm(x))


class Around(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.num_heads, self.scale = heads, (width // heads) ** -0.5
        self.norm, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, length, width = x.shape
        packed = self.qkv(self.norm(x)).reshape(
            n, length, 3, self.num_heads, width // self.num_heads
        )
        query, key, value = packed.permute(2, 0, 3, 1, 4)
        weights = (query @ key.transpose(-2, -1) * self.scale).softmax(-1)
        x = x + self.proj((weights @ value).transpose(1, 2).reshape(n, length, width))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


def test_attention_is_cut_alike_with_what_flows_around_it(tmp_path: Path) -> None:
    inputs = [InputSpec((2, 5, 6))]
    result = prune_channels(Flowing().eval(), inputs, PruneSpec(0.3))
    left = {width.path: width.after for width in result.report.widths}
    # all heads have one width, so 20 or 24 of 32 stay; the residual stream has the same width
    assert left["stem"] in (20, 24)
    assert left["blocks.0.qkv"] == left["blocks.1.qkv"] == 3 * left["stem"]
    assert left["blocks.0.proj"] == left["blocks.1.down"] == left["stem"]
    assert abs(result.report.achieved - 0.3) <= 0.02
    save_pruned(result.module, result.history, tmp_path)
    again = load_pruned(Flowing().eval(), tmp_path)
    x = torch.randn(3, 5, 6)
    assert torch.equal(again(x), result.module(x))


class Padded(nn.Module):
    """A transformer whose layers hand on nested tensors where a mask says what is padding."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder, self.out = nn.TransformerEncoder(layer, 2), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        return self.out(self.encoder(x, src_key_padding_mask=padding))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_a_transformer_with_padding_is_exported() -> None:
    inputs = [InputSpec((2, 5, 8)), InputSpec((2, 5), dtype="bool", low=0, high=0)]
    result = export_onnx(Padded(), inputs)
    assert [value.name for value in result.model.graph.inputs] == ["x", "padding"]


class Doubled(nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return 2 * weight


def test_parametrized_weights_with_one_original_are_computed_once_each() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    module[4].weight = module[0].weight
    for layer in (module[0], module[2]):
        torch.nn.utils.parametrize.register_parametrization(layer, "weight", Doubled())
    module[2].parametrizations.weight.original = module[0].parametrizations.weight.original
    exported = fold_norms(module, [ROW]).module
    x = torch.randn(3, 4)
    with torch.no_grad():
        assert torch.equal(exported(x), module.eval()(x))
    assert exported[0].weight is exported[2].weight
    assert exported[0].weight is not exported[4].weight


def _twice(layer: nn.Module, how: str) -> Any:
    """Something that calls the layer's own forward and doubles the result."""
    before = layer.forward

    def twice(_: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return 2 * before(x)

    return {
        "function": lambda x: 2 * before(x),
        "default": lambda x, before=before: 2 * before(x),
        "method": types.MethodType(twice, layer),
        "partial": functools.partial(twice, layer),
    }[how]


@pytest.mark.parametrize("how", ["function", "default", "method", "partial"])
def test_a_method_that_a_function_refers_to_is_that_of_the_copy(how: str) -> None:
    module = plain()
    module[5].forward = _twice(module[5], how)
    other = load_module(ModuleSource(module)).module
    with torch.no_grad():
        other[5].weight.zero_()
        other[5].bias.zero_()
        images = torch.randn(2, 3, 8, 8)
        assert not other(images).any()
        assert module(images).all()
    assert widths(module)["0"] == 4


def test_tensors_that_share_or_repeat_their_memory_are_saved(tmp_path: Path) -> None:
    def build() -> nn.Module:
        module = plain()
        flat = torch.randn(2, 5, 8)
        module[5].weight = nn.Parameter(flat[0])
        module.register_buffer("shift", torch.randn(1).expand(8))
        module.register_buffer("part", torch.randn(100)[:1].expand(8))
        return module

    result = prune_channels(build(), IMAGE, PruneSpec(0.5, ignore=("0", "5")))
    save_pruned(result.module, result.history, tmp_path)
    again = load_pruned(build(), tmp_path).state_dict()
    assert all(again[name].equal(one) for name, one in result.module.state_dict().items())


class ByName(nn.Module):
    """Takes its inputs by name alone."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(4, 8), nn.Linear(6, 8)

    def forward(self, *, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return self.left(left) + self.right(right)


def test_inputs_without_a_name_go_to_parameters_that_are_passed_by_name() -> None:
    more = InputSpec((2, 6), dynamic={0: "batch"})
    model = export_onnx(ByName(), [ROW, more]).model
    assert [value.name for value in model.graph.inputs] == ["left", "right"]


class Branches(nn.Module):
    """Chooses one of two layers by the input's values, in the form that torch can trace."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(4, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, lambda y: 2 * self.a(y), lambda y: -self.b(y), (x,))


def test_a_branch_by_torch_cond_is_exported() -> None:
    model = export_onnx(Branches(), [InputSpec((2, 4))]).model
    assert "If" in [node.op_type for node in model.graph]
