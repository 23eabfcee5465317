"""Networks that mix the samples of a batch are seen, and are searched one sample at a time."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from tests.fakes import FunctionSession
from trtbuild.artifact import Artifact
from trtbuild.calibration import CalibrateOptions, calibrate
from trtbuild.cli.main import run
from trtbuild.data import Sample, Source, batches
from trtbuild.data.samples import array_key
from trtbuild.model.reading import name_nodes
from trtbuild.model.writing import write_model
from trtbuild.quantization import insert_qdq, watched_tensors
from trtbuild.runtime.onnxruntime import open_session
from trtbuild.search.candidate import Candidate
from trtbuild.search.mixing import mixed_output
from trtbuild.search.recalibration import Recalibration
from trtbuild.search.stage import meet_budget
from trtbuild.verification.compare import compare
from trtbuild.verification.gate import Gate

RNG = np.random.default_rng(0)
CONSTANTS = {
    "w": RNG.normal(size=(8, 8)).astype(np.float32),
    "gates": RNG.normal(size=(1, 24, 8)).astype(np.float32),
    "zero": np.array(0),
    "first": np.array([0]),
    "second": np.array([1]),
    "flat": np.array([1, -1]),
    "pairs": np.array([-1, 16]),
    "pads": np.array([1, 0, 0, 0]),
}
SUMS = "m = MatMul(x, w) s = CumSum(m, zero) y = MatMul(s, w)"
# Nodes, and whether samples mix in an open and in a fixed batch.
NETWORKS = {
    "independent": ("m = MatMul(x, w) y = Relu(m)", False, False),
    "a recurrent layer over one step": (
        "s = Unsqueeze(x, first) t, h = GRU<hidden_size = 8>(s, gates, gates) y = Squeeze(h, first)",
        False,
        False,
    ),
    "a recurrent layer over samples": (
        "s = Unsqueeze(x, second) t, h = GRU<hidden_size = 8>(s, gates, gates) y = Squeeze(t, second)",
        True,
        True,
    ),
    "later samples depend on earlier ones": (SUMS, True, True),
    "a mean": ("m = ReduceMean<axes = [0]>(x) y = Sub(x, m)", True, True),
    "a share of the batch": (
        "d = Shape(x) n = Gather(d, zero) f = Cast<to = 1>(n) y = Div(x, f)",
        True,
        False,
    ),
    "a row in front": ("y = Pad(x, pads)", True, True),
    "one row for all": ("y = Reshape(x, flat)", True, False),
    "pairs of samples": ("y = Reshape(x, pairs)", False, False),
    "positions of what was found": (
        "n = NonZero(x) t = Transpose(n) y = Cast<to = 1>(t)",
        False,
        False,
    ),
    "boxes that no sample changes": ("y = Identity(w)", False, False),
    "random": ("r = RandomNormalLike(x) y = Add(x, r)", False, False),
}


class Rows(Source):
    """Samples of the input."""

    def __init__(self, count: int = 8) -> None:
        self.rows = np.random.default_rng(1).normal(size=(count, 1, 8)).astype(np.float32)

    @property
    def description(self) -> str:
        return "rows"

    def __iter__(self):
        for number, row in enumerate(self.rows):
            yield Sample(str(number), array_key([row]), lambda row=row: {"x": row})


def network(nodes: str, lead: str = "N") -> ir.Model:
    proto = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> g (float[{lead}, 8] x) => (float[A, B] y) {{ {nodes} }}'
    )
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array(array, name) for name, array in CONSTANTS.items()
    )
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


@pytest.mark.parametrize(("nodes", "is_open", "is_fixed"), NETWORKS.values(), ids=NETWORKS)
def test_an_output_that_depends_on_other_samples_is_seen(nodes, is_open, is_fixed) -> None:
    for lead, wanted in (("N", is_open), ("4", is_fixed)):
        model = network(nodes, lead)
        batch = next(batches(Rows(), 4))
        assert mixed_output(model, open_session(model), batch) == ("y" if wanted else None)


def test_one_sample_mixes_with_no_other() -> None:
    model = network(SUMS)
    (alone,) = batches(Rows(1), 4)
    assert mixed_output(model, open_session(model), alone) is None


@pytest.mark.parametrize(
    ("change", "wanted"), [(0.0, None), (1e-5, None), (0.005, None), (0.02, "y"), (np.nan, "y")]
)
def test_rounding_in_batches_of_another_size_is_no_mixing(change: float, wanted) -> None:
    session = FunctionSession(lambda x: x * np.float32(1 + change if len(x) > 1 else 1))
    session.outputs = open_session(network(SUMS)).outputs
    assert mixed_output(network(SUMS), session, next(batches(Rows(), 4))) == wanted


def test_a_network_that_is_known_to_keep_samples_apart_is_not_run() -> None:
    model = network(NETWORKS["independent"][0])
    session = FunctionSession(lambda x: x)
    session.outputs = open_session(model).outputs
    assert mixed_output(model, session, next(batches(Rows(), 4))) is None
    assert session.num_runs == 0


def test_a_search_judges_each_sample_alone_where_samples_mix() -> None:
    model = network(SUMS)
    name_nodes(model)
    options = CalibrateOptions(method="minmax")
    ready = calibrate(Artifact("it", model, model), Rows(), watched_tensors(model), options)
    tuned = meet_budget(Candidate(ready), Recalibration(Rows(), options), Gate(min_sqnr=-50.0))
    quantized = insert_qdq(ready).quantized
    alone, together = (
        compare(open_session(model), open_session(quantized), batches(Rows(), size)).outputs[0]
        for size in (1, 16)
    )
    assert tuned.steps[0].sqnr_db == pytest.approx(alone.sqnr_db.value)
    assert together.sqnr_db.value < alone.sqnr_db.value - 1


@pytest.mark.parametrize(("lead", "advice"), [("N", "--batch-size 1"), ("4", "a batch of 1")])
def test_a_mixed_batch_is_named_in_a_warning(lead, advice, tmp_path, capsys) -> None:
    write_model(network(SUMS, lead), tmp_path / "net.onnx")
    for name, sign in (("x", 1), ("others", -1)):
        np.savez(tmp_path / f"{name}.npz", x=sign * Rows(16).rows[:, 0])
    files = {name: str(tmp_path / name) for name in ("net.onnx", "x.npz", "others.npz", "out")}
    given = [files["net.onnx"], "--data", files["x.npz"], "--verify-data", files["others.npz"]]
    run(
        ["engine", *given, "--int8", "--no-latency", "--backend", "onnxruntime", "-o", files["out"]]
    )
    wanted = "warning: the network mixes the samples of a batch: 'y' of a sample depends on"
    said = capsys.readouterr().err
    assert wanted in said
    assert advice in said
    run(["verify", files["net.onnx"], f"{files['out']}/net.int8.onnx", *given[1:3]])
    assert wanted in capsys.readouterr().err
