"""Scaling and shifting channels keeps the function, inserts only the reported operators, and helps INT8."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trtbuild.search.depthwise_network import Images
from trtbuild.artifact import Artifact
from trtbuild.calibration import CalibrateOptions, calibrate
from trtbuild.model.constants import array
from trtbuild.model.edits import tapped
from trtbuild.quantization import portable_form, watched_tensors
from trtbuild.runtime.onnxruntime import Execution, open_session
from trtbuild.search.candidate import Candidate
from trtbuild.search.channels.choice import best_choices
from trtbuild.search.channels.samples import channel_samples
from trtbuild.search.channels.scaling import Rescaling, rescaled
from trtbuild.search.channels.sites import find_sites
from trtbuild.search.ranges.choose import BY_EFFECT
from trtbuild.search.steps import Material, rescale_channels

CHANNELS = 6
HEAD = 'ir_version: 8, opset_import: ["" : 17]'


def network(text: str, shapes: dict[str, tuple[int, ...]], seed: int = 0) -> ir.Model:
    """A network of `text`; constants of `shapes` are random, gains near one."""
    proto = onnx.parser.parse_model(text)
    rng = np.random.default_rng(seed)
    for name, shape in shapes.items():
        content = rng.normal(1.0 if name.startswith("g") else 0.0, 0.4, shape)
        tensor = onnx.numpy_helper.from_array(content.astype(np.float32), name)
        proto.graph.initializer.append(tensor)
    model = ir.serde.deserialize_model(onnx.shape_inference.infer_shapes(proto))
    for number, node in enumerate(model.graph):
        node.name = f"{node.op_type}_{number}"
    return model


def convolutions(middle: str, constants: dict[str, tuple[int, ...]], last: str = "") -> ir.Model:
    """Conv, `middle` from its output `y` to `x`, and a Conv with the attributes `last` that reads x."""
    text = f"""<{HEAD}> n (float[N, 3, 8, 8] image) => (float[N, 4, H, W] out) {{
        y = Conv <pads = [1, 1, 1, 1]> (image, w0, b0)
        {middle}
        out = Conv {last} (x, w1, b1)
    }}"""
    shapes = {"w0": (CHANNELS, 3, 3, 3), "b0": (CHANNELS,), "w1": (4, CHANNELS, 1, 1), "b1": (4,)}
    return network(text, {**shapes, **constants})


def tokens(middle: str, constants: dict[str, tuple[int, ...]]) -> ir.Model:
    """MatMul + Add, `middle` from their result `y` to `x`, and two MatMuls that read x."""
    text = f"""<{HEAD}> n (float[N, 5, 3] image) => (float[N, 5, 4] out, float[N, 5, 4] other) {{
        m = MatMul (image, w0)
        y = Add (m, b0)
        {middle}
        p = MatMul (x, w1)
        out = Add (b1, p)
        q = MatMul (x, w2)
        other = Add (q, b2)
    }}"""
    shapes = {"w0": (3, CHANNELS), "b0": (CHANNELS,), "w1": (CHANNELS, 4), "b1": (4,)}
    return network(text, {**shapes, "w2": (CHANNELS, 4), "b2": (4,), **constants})


def data(model: ir.Model, seed: int = 1, images: int = 3) -> dict[str, np.ndarray]:
    shape = [images, *list(model.graph.inputs[0].shape)[1:]]
    values = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return {model.graph.inputs[0].name: values}


def run(model: ir.Model) -> dict[str, np.ndarray]:
    return open_session(model, Execution.REFERENCE).run(data(model))


def weighted(model: ir.Model) -> set[str]:
    return {n.name for n in model.graph if n.op_type in ("Conv", "Gemm", "MatMul")}


def site_of(model: ir.Model, tensor: str):
    return next(site for site in find_sites(model, weighted(model)) if site.tensor == tensor)


def assert_same_function(model: ir.Model, changed: ir.Model) -> None:
    expected, found = run(model), run(changed)
    for name, values in expected.items():
        # factors within 1/4 and 4 and a dozen operations on sums of at most 54 terms in float32: each
        # rounds by 2^-24 of the sum of magnitudes, which is within a few times the largest result
        atol = 12 * 54 * 2.0**-24 * 16 * max(1.0, float(np.abs(values).max()))
        np.testing.assert_allclose(found[name], values, rtol=0, atol=atol)


SILU = "s = Sigmoid (y)\nx = Mul (y, s)"
HARD_SWISH = "s = HardSwish (y)\nx = Identity (s)"
GELU = "h = Mul (y, half)\nd = Div (y, root)\ne = Erf (d)\nf = Add (e, one)\nx = Mul (h, f)"
GATE = """p = GlobalAveragePool (y)
    g = Sigmoid (p)
    x = Mul (y, g)"""

# (network, whether a scale needs no operator, whether a shift needs none)
MADE_BY = {
    "a convolution": (lambda: convolutions("x = Identity (y)", {}), True, True),
    "ReLU and pooling": (
        lambda: convolutions("r = Relu (y)\nx = MaxPool <kernel_shape = [2, 2]> (r)", {}), True, False,
    ),
    "SiLU": (lambda: convolutions(SILU, {}), False, False),
    "hard-swish": (lambda: convolutions(HARD_SWISH, {}), False, False),
    "hard-swish with its factor": (
        lambda: convolutions("h = HardSigmoid (y)\nz = Mul (y, h)\nx = Mul (z, g)", {"g": (1,)}),
        True, False,
    ),
    "an added constant": (
        lambda: convolutions("x = Add (y, a)", {"a": (CHANNELS, 1, 1)}), True, True,
    ),
    "a divided one": (lambda: convolutions("s = Sigmoid (y)\nx = Div (s, g)", {"g": ()}), True, False),
    "a gate": (lambda: convolutions("q = Abs (y)\n" + GATE.replace("(y, g)", "(q, g)"), {}), True, False),
    "a residual sum": (lambda: convolutions("r = Relu (y)\nx = Add (r, y)", {}), False, False),
    "MatMul and Add": (lambda: tokens("x = Identity (y)", {}), True, True),
    "GELU": (
        lambda: tokens(GELU, {"half": (), "root": (1,), "one": ()}), True, False,
    ),
    "LayerNormalization": (
        lambda: tokens("x = LayerNormalization (y, g, b)", {"g": (CHANNELS,), "b": (CHANNELS,)}),
        True, True,
    ),
    "LayerNormalization without a bias": (
        lambda: tokens("x = LayerNormalization (y, g)", {"g": (CHANNELS,)}), True, True,
    ),
    "the input": (
        lambda: network(
            f"<{HEAD}> n (float[N, {CHANNELS}, 4, 4] x) => (float[N, 4, 4, 4] out)"
            "{ out = Conv (x, w1, b1) }",
            {"w1": (4, CHANNELS, 1, 1), "b1": (4,)},
        ),
        False, False,
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", MADE_BY)
@pytest.mark.parametrize("shifted", [False, True])
def test_the_function_stays_the_same_whatever_made_the_tensor(what: str, shifted: bool) -> None:
    make, scale_is_free, shift_is_free = MADE_BY[what]
    model = make()
    rng = np.random.default_rng(2)
    scale = np.exp2(rng.uniform(-2, 2, CHANNELS))
    shift = rng.normal(size=CHANNELS) if shifted else np.zeros(CHANNELS)
    change = Rescaling(site_of(model, "x"), scale, shift)
    assert change.is_free == (shift_is_free if shifted else scale_is_free)
    before = len(model.graph)
    changed, read = rescaled(model, [change])
    assert_same_function(model, changed)
    gates = sum(absorber.kind == "gate" for absorber in change.site.absorbers)
    inserted = gates if change.is_free else 1 + shifted
    assert len(changed.graph) - before == inserted
    assert (read["x"] == "x") == change.is_free


@settings(max_examples=40)
@given(st.data())
def test_the_function_stays_the_same_for_all_groups_kernels_and_readers(
    draw: st.DataObject,
) -> None:
    groups = draw.draw(st.sampled_from([1, 2, 3, CHANNELS]))
    kernel = draw.draw(st.sampled_from([1, 2, 3]))
    padded = draw.draw(st.booleans())
    outputs = groups * draw.draw(st.integers(1, 2))
    pads = [1, 1, 1, 1] if padded else [0, 0, 0, 0]
    outs = "float[N, 4, H, W] out, float[N, C, H, W] other, float[N, D, H, W] third"
    text = f"""<{HEAD}> n (float[N, 3, 8, 8] image) => ({outs}) {{
        y = Conv <pads = [1, 1, 1, 1]> (image, w0, b0)
        s = Sigmoid (y)
        x = Mul (y, s)
        out = Conv (x, w1)
        other = Conv <group = {groups}, pads = {pads}> (x, w2, b2)
        third = Abs (x)
    }}"""
    shapes = {"w0": (CHANNELS, 3, 3, 3), "b0": (CHANNELS,), "w1": (4, CHANNELS, 1, 1)}
    reader = {"w2": (outputs, CHANNELS // groups, kernel, kernel), "b2": (outputs,)}
    model = network(text, {**shapes, **reader}, seed=draw.draw(st.integers(0, 99)))
    site = site_of(model, "x")
    assert site.shiftable != padded
    exponents = draw.draw(st.lists(st.floats(-2, 2), min_size=CHANNELS, max_size=CHANNELS))
    shift = np.full(CHANNELS, 0.0 if padded else draw.draw(st.floats(-1, 1)))
    scale = np.exp2(exponents)
    changed, read = rescaled(model, [Rescaling(site, scale, shift)])
    assert_same_function(model, changed)
    assert (read["x"] == "x") == ((scale == 1.0).all() and not shift.any())
    assert next(n for n in changed.graph if n.op_type == "Abs").inputs[0].name == "x"


def test_a_tensor_that_leaves_the_network_or_is_read_in_float_keeps_its_name_and_values() -> None:
    model = convolutions("x = Relu (y)", {})
    model.graph.outputs.append(next(v for v in values_of(model) if v.name == "x"))
    site = site_of(model, "x")
    assert not site.is_free
    changed, _ = rescaled(model, [Rescaling(site, np.full(CHANNELS, 4.0), np.zeros(CHANNELS))])
    assert_same_function(model, changed)


def values_of(model: ir.Model) -> list[ir.Value]:
    return [value for node in model.graph for value in node.outputs]


def test_layers_in_float_are_no_readers() -> None:
    model = tokens("x = Identity (y)", {})
    layers = sorted(weighted(model))
    (site,) = (s for s in find_sites(model, layers[:-1]) if s.tensor == "x")
    assert len(site.readers) == 1
    assert not site.is_free


def unlike(one_sided: bool = False, middle: str = "s = Sigmoid (y)\nx = Mul (y, s)") -> ir.Model:
    """SiLU between 1x1 convolutions; its channels differ by a factor of about 200."""
    model = network(
        f"""<{HEAD}> n (float[N, 3, 8, 8] image) => (float[N, 8, 8, 8] out) {{
            y = Conv (image, w0, b0)
            {middle}
            out = Conv (x, w1, b1)
        }}""",
        {"w0": (32, 3, 1, 1), "b0": (32,), "w1": (8, 32, 1, 1), "b1": (8,)},
    )
    factors = np.ones(32) if one_sided else np.geomspace(0.2, 40.0, 32)
    for name, shape, power in (("w0", (32, 1, 1, 1), 1.0), ("w1", (1, 32, 1, 1), -1.0)):
        value = model.graph.initializers[name]
        content = value.const_value.numpy() * factors.reshape(shape) ** power
        value.const_value = ir.tensor(content.astype(np.float32), name=name)
    return model


def ready(model: ir.Model) -> tuple[Candidate, Material]:
    options = CalibrateOptions(method="minmax")

    def calibrated(artifact: Artifact) -> Artifact:
        return calibrate(artifact, Noise(), watched_tensors(artifact.model), options)

    artifact = calibrated(Artifact("unlike", model, model))
    feeds = [sample.load() for sample in Noise()]
    return Candidate(artifact), Material(feeds=feeds, calibrate=calibrated)


class Noise(Images):
    """Images of noise, 3 x 8 x 8."""

    def __init__(self) -> None:
        self._seed = 0
        self._images = np.random.default_rng(0).normal(size=(24, 3, 8, 8)).astype(np.float32)


def noise_db(model: ir.Model, candidate: Candidate) -> float:
    expected, found = (run(m)["out"].astype(np.float64) for m in (model, candidate.network()))
    return float(10 * np.log10(((found - expected) ** 2).sum() / (expected**2).sum()))


def test_channels_of_unlike_size_are_scaled_and_the_engine_is_nearer_to_float() -> None:
    model = unlike()
    plain, material = ready(model)
    found = dict(rescale_channels(lambda: plain, material))
    scaled = found["1 tensor scaled, 1 more elementwise operator in front of layers"]
    assert_same_function(model, scaled.artifact.model)
    # of 32 channels from 0.2 to 40 under one step of 40 / 127, most lose 2 to 7 bits, 6 dB each
    assert noise_db(model, scaled) < noise_db(model, plain) - 6


def test_scaled_tensors_have_ranges_of_their_own_and_those_of_the_rule_of_most_others() -> None:
    plain, material = ready(unlike())
    calibration = plain.artifact.calibration.chosen_with("minmax")
    artifact = replace(plain.artifact, calibration=replace(calibration, method=BY_EFFECT))
    start = Candidate(artifact)
    found = list(rescale_channels(lambda: start, material))
    half = len(found) // 2
    assert half
    for (what, own), (said, by_rule) in zip(found[:half], found[half:], strict=True):
        assert said == f"{what}, their ranges by the rule of the others"
        ours, theirs = (one.artifact.calibration.ranges for one in (own, by_rule))
        changed = theirs.keys() - calibration.ranges.keys()
        assert changed
        for name in changed:
            assert ours[name].amax != theirs[name].amax == theirs[name].observed_amax
        assert all(ours[name] == theirs[name] for name in theirs.keys() - changed)
    # where one is kept, ranges are chosen anew for it
    best = [start]
    proposals = rescale_channels(lambda: best[0], material)
    best[0] = next(proposals)[1]
    assert len([*proposals]) == half - 1


def test_every_second_output_of_a_large_layer_stands_for_its_neighbour(monkeypatch) -> None:
    model = unlike()
    weight = model.graph.initializers["w1"]
    content = np.repeat(weight.const_value.numpy()[::2], 2, axis=0)
    weight.const_value = ir.tensor(content, name="w1")
    site, feeds = site_of(model, "x"), [sample.load() for sample in Noise()]
    sample = channel_samples(model, [site], feeds)["x"]
    nodes = {node.name or "": node for node in model.graph}
    of_all = best_choices(site, sample, nodes)
    monkeypatch.setattr("trtbuild.search.channels.choice._MOST_WEIGHTS", content.size // 2)
    for found, expected in zip(best_choices(site, sample, nodes), of_all, strict=True):
        # sums of some tens of positive float64, in another order
        assert found.error == pytest.approx(expected.error, rel=100 * 2.0**-52)


def test_the_values_drawn_of_a_tensor_depend_on_no_other_tensor() -> None:
    model = unlike()
    feeds = [sample.load() for sample in Noise()]
    sites = [site_of(model, "x"), replace(site_of(model, "x"), tensor="y")]
    both, alone = channel_samples(model, sites, feeds), channel_samples(model, sites[:1], feeds)
    np.testing.assert_array_equal(both["x"].values, alone["x"].values)
    reverse = channel_samples(model, sites[::-1], feeds)
    for name, sample in reverse.items():
        np.testing.assert_array_equal(sample.values, both[name].values)


CLIP = "zero = Constant <value_float = 0.0> ()\nhigh = Constant <value_float = 30.0> ()\n"


def test_no_channel_is_scaled_up_beyond_the_limit_of_a_clip_that_stays() -> None:
    model = unlike(
        middle=f"{CLIP}c = Clip (y, zero, high)\nx = MaxPool <kernel_shape = [1, 1]> (c)"
    )
    site = site_of(model, "x")
    assert (site.limit, site.is_free, site.absorbs_shift) == (30.0, True, False)
    plain, material = ready(model)
    # one proposal: shifts gain nothing, and no operator is inserted
    (what, scaled), _ = rescale_channels(lambda: plain, material)
    assert what == "1 tensor scaled or shifted, no more operators"
    assert noise_db(model, scaled) < noise_db(model, plain) - 6
    before, after = (
        open_session(tapped(m, ["c", "out"]), Execution.REFERENCE)
        for m in (model, scaled.artifact.model)
    )
    largest = np.zeros(32)
    for (
        feeds
    ) in material.feeds:  # the images that set the scales: the clip cuts off no more of them
        expected, got = before.run(feeds), after.run(feeds)
        atol = 1e-5 * float(
            np.abs(expected["out"]).max()
        )  # sums of 32 in float32: below 32 * 2^-23
        np.testing.assert_allclose(got["out"], expected["out"], rtol=0, atol=atol)
        largest = np.maximum(largest, got["c"].max(axis=(0, 2, 3)))
    assert largest.max() <= 30.0
    assert (
        np.sort(largest)[4:].min() > 1.0
    )  # from 0.2 and below, a few channels that are mostly zero apart


def test_behind_the_mean_of_a_clip_an_operator_is_inserted_since_what_it_cuts_off_is_not_seen() -> (
    None
):
    model = unlike(
        middle=f"{CLIP}c = Clip (y, zero, high)\nx = AveragePool <kernel_shape = [1, 1]> (c)"
    )
    assert (site_of(model, "x").limit, site_of(model, "x").is_free) == (None, False)


def test_a_one_sided_tensor_is_shifted_into_the_signed_range() -> None:
    model = unlike(one_sided=True, middle="x = Sigmoid (y)")
    plain, material = ready(model)
    what, shifted = next(iter(rescale_channels(lambda: plain, material)))
    assert what.startswith("1 tensor scaled or shifted")
    read = next(n for n in shifted.artifact.model.graph if n.name == "Conv_2").inputs[0].producer()
    assert read.op_type == "Add"
    assert (array(read.inputs[1]) < 0).all()  # every channel lies above zero
    assert_same_function(model, shifted.artifact.model)
    # twice as many steps: 6 dB, less the weights' own rounding and the wider window
    assert noise_db(model, shifted) < noise_db(model, plain) - 2


def test_the_rounding_stays_directly_in_front_of_the_layers_in_both_forms() -> None:
    plain, material = ready(unlike())
    _, scaled = list(rescale_channels(lambda: plain, material))[1]
    artifact = scaled.realized()
    assert artifact.quantized is not None
    for model in (artifact.quantized, portable_form(artifact)):
        layers = [node for node in model.graph if node.op_type == "Conv"]
        before = [layer.inputs[0].producer().inputs[0].producer() for layer in layers]
        assert [node.op_type for node in before] == ["QuantizeLinear"] * 2
        assert before[1].inputs[0].producer().op_type == "Mul"
    kinds = [node.op_type for node in artifact.quantized.graph]
    assert kinds.count("QuantizeLinear") == 2
