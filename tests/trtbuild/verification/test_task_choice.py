"""The measured task: named by the user, or found in the graph without doubt; and its consequences."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from tests.fakes import FakeBatch, FunctionSession, batches_of
from tests.trtbuild.model.test_parts import BOXES_AND_SCORES, HEADS, LEVELS
from trtbuild.cli.main import run
from trtbuild.errors import OptionError
from trtbuild.options.compare import ComparisonOptions, TaskOptions
from trtbuild.search.score import figure, meets, score
from trtbuild.verification.compare import compare
from trtbuild.verification.gate import Gate, judge
from trtbuild.verification.tasks.choose import choose_task, task_kind

HEAD = '<ir_version: 8, opset_import: ["" : 17]>'
YOLO = {"wb": (4, 8, 1), "ws": (18, 8, 1)}


def proto_of(text: str, **weights: tuple[int, ...]) -> onnx.ModelProto:
    proto = onnx.parser.parse_model(f"{HEAD}\n{text}")
    for name, shape in weights.items():
        values = np.zeros(shape, np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    return proto


def chosen(text: str, *, has_labels: bool = False, options=None, **weights: tuple[int, ...]) -> str:
    model = ir.serde.deserialize_model(proto_of(text, **weights))
    task = choose_task(options or TaskOptions(), model, has_labels=has_labels)
    if task is None:
        return ""
    inner = getattr(task(), "_task", None) or task()
    return f"{type(inner).__name__} {getattr(inner, '_layout', '')}".strip()


def end(operators: str, shape: str, source: str = "float[n, 3, 64, 64] x") -> str:
    return f"agraph ({source}) => (float[{shape}] y) {{ {operators} }}"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (TaskOptions(), "classify"),
        (TaskOptions(kind="embed"), "embed"),
        (TaskOptions(kind="none"), "none"),
        (TaskOptions(box_layout="yolov8"), "detect"),
        (TaskOptions(coco=Path("boxes.json")), "detect"),
    ],
)
def test_a_named_task_overrides_the_graphs(options, expected) -> None:
    text = end("y = Softmax<axis = 1>(x)", "n, 10", "float[n, 10] x")
    assert task_kind(options, ir.serde.deserialize_model(proto_of(text))) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (end("y = Softmax<axis = 1>(x)", "n, 10", "float[n, 10] x"), "Classify"),
        (end("y = Relu(x)", "n, 10", "float[n, 10] x"), ""),
        (end("y = LpNormalization<axis = 1>(x)", "n, 10", "float[n, 10] x"), "Embed"),
        (end("n = ReduceL2<axes = [1]>(x)\n e = Clip(n)\n y = Div(x, e)", "n, 9", "float[n, 9] x"),
         "Embed"),
        (end("y = Softmax<axis = 2>(x)", "n, 20, 97", "float[n, 20, 97] x"), "CTC"),
        (end("z = Cast<to = 1>(x)\n y = Softmax<axis = 2>(z)", "n, 20, 97", "int64[n, 20, 97] x"), ""),
        (end("z = Conv(x, w)\n y = Sigmoid(z)", "n, 1, 64, 64"), "Segment"),
        (end("z = Conv(x, w)\n y = Softmax<axis = 1>(z)", "n, 2, 16, 16"), "Segment"),
        (end("y = Conv(x, w)", "n, 21, 64, 64"), "Segment"),
        (end("y = Conv(x, w)", "n, 21, 16, 16"), ""),
        (end("y = Conv(x, w)", "n, 3, 128, 128"), "Restore"),
        (end("y = Conv(x, w)", "n, 3, 100, 100"), ""),
    ],
)  # fmt: skip
def test_unambiguous_graphs_name_their_task(text: str, expected: str) -> None:
    weights = {"w": (1, 3, 1, 1)} if "Conv" in text else {}
    assert chosen(text, **weights) == expected


def test_detectors_by_their_parts() -> None:
    assert chosen(BOXES_AND_SCORES, **YOLO) == "Detect yolov8"
    assert chosen(LEVELS, **HEADS) == "Detect yolox"
    decoded = LEVELS.replace("Concat<axis = 1>(b1,", "Concat<axis = 1>(d1,").replace(
        "Concat<axis = 1>(b2,", "Concat<axis = 1>(d2,"
    )
    for level in "12":
        decoded = decoded.replace(f"p{level} =", f"d{level} = Exp(b{level})  p{level} =")
    assert chosen(decoded, **HEADS) == "Detect yolov5"


def pair(boxes: str, scores: str) -> str:
    return f"""
    agraph (float[n, 90, 4] a, float[n, 90, 7] c) => (float[n, 90, 7] y, float[n, 90, 4] b) {{
      y = {scores}  b = {boxes}
    }}"""


def test_detectors_of_two_outputs() -> None:
    assert chosen(pair("Exp(a)", "Softmax<axis = 2>(c)")) == "Detect ssd"
    assert chosen(pair("Sigmoid(a)", "MatMul(c, w)"), w=(7, 7)) == "Detect detr"
    assert chosen(pair("Relu(a)", "Relu(c)")) == ""


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [("ddd", "Detect nms"), ("pqr", "Detect nms"), ("555", "Detect nms"), ("566", ""), ("5dd", "")],
)
def test_boxes_behind_suppression_have_one_length_whatever_its_names(lengths, expected) -> None:
    boxes, scores, kinds = lengths
    ends = f"float[{boxes}, 4] b, float[{scores}] s, int64[{kinds}] k"
    text = f"""agraph ({ends}, float[1, 8, 4] given, float[1, 3, 8] found)
      => (float[{boxes}, 4] y, float[{scores}] t, int64[{kinds}] l) {{
      n = NonMaxSuppression(given, found)  y = Identity(b)  t = Identity(s)  l = Identity(k)
    }}"""
    assert chosen(text) == expected


def test_sizes_that_the_exporter_only_names_are_found() -> None:
    unit = """agraph (float[n, 8] x) => (float[n, Divy_dim_1] y) {
      z = MatMul(x, w)  s = ReduceL2<axes = [1]>(z)  k = Shape(z)  e = Expand(s, k)  y = Div(z, e)
    }"""
    assert chosen(unit, w=(8, 48)) == "Embed"
    assert chosen(unit, w=(8, 4)) == ""
    queries = pair("Sigmoid(a)", "MatMul(c, w)").replace(
        "(float[n, 90, 7] y, float[n, 90, 4] b)", "(float[n, q, 7] y, float[n, q, 4] b)"
    )
    assert chosen(queries, w=(7, 7)) == "Detect detr"


def test_labels_say_that_scores_are_of_classes() -> None:
    text = end("y = Relu(x)", "n, 10", "float[n, 10] x")
    assert chosen(text, has_labels=True) == "Classify"


def test_what_the_user_says_comes_first(tmp_path: Path) -> None:
    text = end("y = Softmax<axis = 1>(x)", "n, 10", "float[n, 10] x")
    assert chosen(text, options=TaskOptions(kind="none")) == ""
    assert chosen(text, options=TaskOptions(kind="embed")) == "Embed"
    assert chosen(text, options=TaskOptions(box_layout="ssd")) == "Detect ssd"
    assert chosen(BOXES_AND_SCORES, options=TaskOptions(kind="detect"), **YOLO) == "Detect yolov8"
    with pytest.raises(OptionError, match="--box-layout"):
        chosen(text, options=TaskOptions(kind="detect"))
    script = tmp_path / "mine.py"
    script.write_text("def near(reference, candidate, labels, names):\n    return 1.0\n")
    assert chosen(text, options=TaskOptions(judge=f"{script}:near")) == "OwnJudge"
    with pytest.raises(OptionError, match="has no 'far'"):
        chosen(text, options=TaskOptions(judge=f"{script}:far"))
    for wrong in ({"kind": "sort"}, {"box_layout": "yolov9"}, {"kind": "ctc", "box_layout": "ssd"}):
        with pytest.raises(OptionError):
            TaskOptions(**wrong)


IMAGES = np.random.default_rng(7).normal(size=(40, 6)).astype(np.float32)


def compared(function, kind: str = "classify"):
    session, options = FunctionSession(lambda x: x), TaskOptions(kind=kind)
    found = ComparisonOptions(make_task=choose_task(options, None))
    return compare(session, FunctionSession(function), batches_of(IMAGES), found)


def turned(count: int):
    """Change the class of the first `count` images."""
    wrong = {row.tobytes() for row in IMAGES[:count]}
    return lambda x: np.stack([-row if row.tobytes() in wrong else row for row in x])


def test_a_limit_is_on_the_main_figure() -> None:
    found = compared(turned(4))
    assert figure(found) == 90.0
    assert judge(found, Gate(min_agreement=90)).passed
    (failure,) = judge(found, Gate(min_agreement=94)).failures
    assert failure.what == "same class"
    assert failure.unit == "%"
    with pytest.raises(OptionError, match="--task"):
        judge(replace(found, task=None), Gate(min_agreement=90))
    # the search requires more than the limit: half of the way to the interval's lower end
    assert not meets(found, Gate(min_agreement=90))
    assert meets(found, Gate(min_agreement=80))


def test_a_task_decides_over_sqnr() -> None:
    near, far = compared(lambda x: x * np.float32(0.1), "embed"), compared(turned(2), "embed")
    assert near.output("y").sqnr_db.value < far.output("y").sqnr_db.value
    assert score(near) > score(far)


def test_an_unasked_task_that_does_not_fit_is_left_out() -> None:
    text = BOXES_AND_SCORES
    task = choose_task(TaskOptions(), ir.serde.deserialize_model(proto_of(text, **YOLO)))
    options = ComparisonOptions(make_task=task)
    session = FunctionSession(lambda x: x)
    found = compare(session, session, batches_of(IMAGES), options)
    assert found.task is None


def test_offsets_from_anchors_are_no_boxes_unless_the_user_says_so() -> None:
    """Two outputs with a Softmax look like SSD; half of the offsets have their corners in the wrong order."""
    text = (
        "agraph (float[n, 3, 64, 64] x) => (float[n, 84, 4] boxes, float[n, 84, 5] scores)"
        " { boxes = MatMul(x, wb)\n z = MatMul(x, ws)\n scores = Softmax<axis = 2>(z) }"
    )
    model = ir.serde.deserialize_model(proto_of(text, wb=(64, 4), ws=(64, 5)))
    rng = np.random.default_rng(5)
    shares = rng.dirichlet(np.ones(5), (4, 84)).astype(np.float32)
    offsets = rng.normal(size=(4, 84, 4)).astype(np.float32)
    corners = np.sort(rng.uniform(size=(4, 84, 2, 2)), axis=2).reshape(4, 84, 4).astype(np.float32)

    def measured(boxes: np.ndarray, **said: str) -> str:
        outputs = {"boxes": boxes, "scores": shares}
        names = [f"sample {i}" for i in range(4)]
        task = choose_task(TaskOptions(**said), model)
        assert task is not None
        judge_of_boxes = task()
        judge_of_boxes.add(FakeBatch({"x": IMAGE}, None, names), outputs, outputs)
        found = judge_of_boxes.result()
        return "" if found is None else found.task

    assert measured(corners) == measured(corners, kind="detect") == "detect"
    assert measured(offsets) == ""
    with pytest.raises(OptionError, match="layout ssd"):
        measured(offsets, kind="detect")
    assert measured(offsets, kind="detect", box_layout="ssd") == "detect"


@pytest.fixture(scope="module")
def detector(tmp_path_factory) -> Path:
    """A float YOLOv8 head and one without scores, with data."""
    folder = tmp_path_factory.mktemp("detector")
    rng = np.random.default_rng(2)
    whole = proto_of(BOXES_AND_SCORES)
    weights = {"wb": rng.normal(size=(4, 8, 1)) * 0.3, "ws": rng.normal(size=(18, 8, 1))}
    for name, values in weights.items():
        tensor = onnx.numpy_helper.from_array(values.astype(np.float32), name)
        whole.graph.initializer.append(tensor)
    onnx.save(whole, folder / "float.onnx")
    whole.graph.initializer[1].CopyFrom(
        onnx.numpy_helper.from_array(np.full((18, 8, 1), -9, np.float32), "ws")
    )
    onnx.save(whole, folder / "blind.onnx")
    data = np.abs(rng.normal(size=(6, 8, 100))).astype(np.float32)
    np.savez(folder / "data.npz", x=data)
    return folder


def test_the_command_judges_a_detector_by_its_boxes(detector: Path, capsys) -> None:
    paths = [str(detector / name) for name in ("float.onnx", "blind.onnx")]
    data = ["--data", str(detector / "data.npz"), "--box-layout", "yolov8"]
    assert run(["verify", *paths, *data, "--min-agreement", "90", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    task = found["comparison"]["task"]
    assert (task["task"], task["main"]["name"], task["main"]["unit"]) == (
        "detect",
        "F1 of boxes",
        "%",
    )
    assert task["main"]["estimate"]["value"] == 0.0
    assert [f["what"] for f in found["verdict"]["findings"] if not f["passed"]] == ["F1 of boxes"]
    assert run(["verify", paths[0], paths[0], *data, "--min-agreement", "100"]) == 0
    said = capsys.readouterr().out
    assert "F1 of boxes" in said
    assert "layout yolov8" in said
    # what reads no images is no detector, unless the user says so
    for unsaid in ([], ["--task", "none"]):
        assert run(["verify", *paths, *data[:2], *unsaid, "--min-agreement", "90"]) == 2


IMAGE = np.random.default_rng(3).uniform(size=(4, 3, 64, 64)).astype(np.float32)


def guessed(text: str, outputs, feed: np.ndarray = IMAGE, **weights: tuple[int, ...]) -> str:
    """The task measured for a network with this graph and `outputs` on `feed`; empty for none."""
    model = ir.serde.deserialize_model(proto_of(text, **weights))
    task = choose_task(TaskOptions(), model)
    session = FunctionSession(outputs)
    found = compare(session, session, batches_of(feed), ComparisonOptions(make_task=task))
    return "" if found.task is None else found.task.task


def rows_of(x: np.ndarray, *columns: float) -> np.ndarray:
    """The same 84 boxes for each image, ``[N, 4 + 1, 84]``: centre, size and score of one class."""
    one = np.repeat(np.array(columns, np.float32)[:, None], 84, 1)
    return np.repeat(one[None], len(x), 0)


CTC_END = end("z = MatMul(x, w)\n y = Softmax<axis = 2>(z)", "n, 20, 5", "float[n, 20, 8] x")
STEPS = np.random.default_rng(4).normal(size=(6, 20, 8)).astype(np.float32)


def steps_of(*classes: int):
    """Scores ``[N, 20, 5]`` of these classes, repeated."""
    scores = np.eye(5, dtype=np.float32)[np.resize(classes, 20)]
    return lambda x: np.repeat(scores[None], len(x), 0)


def test_a_wrong_guess_is_worse_than_none() -> None:
    # 4 channels beside a Sigmoid are boxes where they have sizes and lie in the images
    head = BOXES_AND_SCORES.replace("float[n, 8, 100] x", "float[n, 3, 64, 64] x")
    assert guessed(head, lambda x: rows_of(x, 30, 30, 9, 9, 0.9), **YOLO) == "detect"
    assert guessed(head, lambda x: rows_of(x, 30, 30, -9, 9, 0.9), **YOLO) == ""
    assert guessed(head, lambda x: rows_of(x, 900, 30, 9, 9, 0.9), **YOLO) == ""
    # a text has blanks; classes of frames stay for several steps
    assert guessed(CTC_END, steps_of(0, 0, 1, 0, 0, 2, 2), STEPS, w=(8, 5)) == "ctc"
    assert guessed(CTC_END, steps_of(*[1] * 7, *[2] * 7, *[0] * 6), STEPS, w=(8, 5)) == ""
    assert guessed(CTC_END, steps_of(*[0] * 12, *[3] * 8), STEPS, w=(8, 5)) == ""
    # a Sigmoid gives masks, depths and heat maps
    sigmoid = end("z = Conv(x, w)\n y = Sigmoid(z)", "n, 1, 64, 64")
    convolution = {"w": (1, 3, 1, 1)}
    assert (
        guessed(sigmoid, lambda x: (x[:, :1] > 0.5).astype(np.float32), **convolution) == "segment"
    )
    assert guessed(sigmoid, lambda x: x[:, :1], **convolution) == ""
    # three channels of the input's size are an image of it, or scores of three classes
    same = end("y = Conv(x, w)", "n, 3, 64, 64")
    assert (
        guessed(same, lambda x: np.float32(0.9) * x + np.float32(0.05), **convolution) == "restore"
    )
    assert guessed(same, lambda x: x[:, :, ::-1].copy(), **convolution) == ""
    # rows in the other order are independent: the correlation is 0.74, and 0.67
    assert guessed(same, lambda x: 0.525 * x + 0.475 * x[:, :, ::-1], **convolution) == "restore"
    assert guessed(same, lambda x: 0.475 * x + 0.525 * x[:, :, ::-1], **convolution) == ""
    # of an open size, too
    open_size = end("y = Conv(x, w)", "n, 3, H, W", "float[n, 3, h, w] x")
    assert guessed(open_size, lambda x: np.float32(0.9) * x, **convolution) == "restore"
    assert guessed(open_size, lambda x: x[:, :, ::-1].copy(), **convolution) == ""
    # four values of unit length are a rotation; of attention, the last axis is no class of pixels
    rotation = end("y = LpNormalization<axis = 1>(x)", "n, 4", "float[n, 4] x")
    assert chosen(rotation) == ""
    assert (
        chosen(end("z = Conv(x, w)\n y = Softmax<axis = 3>(z)", "n, 8, 16, 16"), w=(8, 3, 1, 1))
        == ""
    )
    # 384 values are an embedding only where they have unit length
    assert chosen(end("y = MatMul(x, w)", "n, 384", "float[n, 8] x"), w=(8, 384)) == ""


def test_the_plugin_takes_a_task(detector: Path) -> None:
    from trtbuild.pytest_plugin import AccuracyAssertion

    given = (detector / "float.onnx", detector / "blind.onnx")
    with pytest.raises(AssertionError, match="F1 of boxes"):
        AccuracyAssertion()(
            *given, data=detector / "data.npz", task="detect", box_layout="yolov8", min_agreement=50
        )
