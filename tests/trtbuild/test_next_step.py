"""The next step of a verdict: its command works, and keeps all options of the first."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from tests.fakes import FunctionSession, batches_of
from tests.trtbuild.verification.small_network import images, quantized
from trtbuild.cli.main import run
from trtbuild.jobs.engine import build_engine
from trtbuild.jobs.next_step import after_engine, after_verify
from trtbuild.model import write_model
from trtbuild.options.calibrate import CalibrateOptions
from trtbuild.options.command import command_line
from trtbuild.options.compare import TaskOptions
from trtbuild.options.data import DataRecipe
from trtbuild.options.effort import Effort
from trtbuild.options.preprocess import Preprocess
from trtbuild.options.tables import to_table
from trtbuild.recipes import EngineRecipe, VerifyRecipe
from trtbuild.verification.compare import Comparison, compare
from trtbuild.verification.gate import Finding, Gate, Verdict, judge
from trtbuild.verification.intervals import Estimate
from trtbuild.verification.layers import ActivationError, LayerReport
from trtbuild.verification.ruling import floors, rule
from trtbuild.verification.tasks.base import Figure, TaskScore


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    artifact = quantized()
    write_model(artifact.source, tmp_path / "float.onnx")
    write_model(artifact.quantized, tmp_path / "int8.onnx")
    np.savez(tmp_path / "my images.npz", image=images(3, 40))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(capsys: pytest.CaptureFixture[str], command: str | list[str], code: int = 0) -> dict:
    words = shlex.split(command)[1:] if isinstance(command, str) else command
    assert run([*words, "--json"]) == code
    found: dict = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize(
    "recipe",
    [
        EngineRecipe(model=Path("float.onnx"), data=DataRecipe(data="my images.npz")),
        EngineRecipe(
            model=Path("float.onnx"),
            output=Path("an other"),
            data=DataRecipe(
                data="my images.npz",
                num_images=9,
                preprocess=Preprocess(
                    scale=1 / 255,
                    mean=(0.5, 0.25, 1.0),
                    std=(0.1, 0.2, 0.3),
                    resize=(12, 14),
                    crop=12,
                ),
                batch_axes={"image": 0},
                skip_broken=True,
            ),
            calibrate=CalibrateOptions(
                workers=2, method="percentile", method_options={"percentile": 99.5}
            ),
            effort=Effort.FAST,
            float_patterns=("Conv*",),
            task=TaskOptions(kind="classify"),
            gate=Gate(min_sqnr=20.5, min_agreement=95),
            latency=None,
            strict=True,
        ),
        EngineRecipe(model=Path("float.onnx"), data=DataRecipe(random_data=True), tune=None),
    ],
)
def test_a_recipe_as_a_command_line(folder: Path, recipe: EngineRecipe, capsys) -> None:
    del folder
    command = command_line("engine", (str(recipe.model), "--int8"), recipe, {})
    found = said(capsys, f"{command} --dry-run")["recipe"]
    wanted = json.loads(json.dumps(to_table(recipe)))
    if recipe.latency is not None:  # the command's own default differs
        del found["latency"], wanted["latency"]
    assert found == wanted


def test_added_options_take_the_place_of_others_and_repeated_ones_stand_beside(
    folder: Path,
) -> None:
    del folder
    recipe = EngineRecipe(
        model=Path("m.onnx"),
        data=DataRecipe(data="d.npz", constants={"factor": [1.0, 2.5]}),
        effort=Effort.FAST,
        float_groups=("first",),
    )
    added = {"--effort": "high", "--float-group": "second one"}
    words = shlex.split(command_line("engine", ("m.onnx",), recipe, added))
    assert words[words.index("--constant") + 1] == "factor=1,2.5"
    assert words.count("--effort") == 1
    assert words[words.index("--effort") + 1] == "high"
    assert [w for f, w in itertools.pairwise(words) if f == "--float-group"] == [
        "first",
        "second one",
    ]


def test_the_steps_lead_to_a_verdict(folder: Path, capsys) -> None:
    del folder
    build = ["engine", "float.onnx", "--int8", "--data", "my images.npz", "--no-latency"]
    build += ["--backend", "onnxruntime", "--task", "classify", "--effort", "fast"]
    few = said(capsys, build)
    # only two of 40 samples verify, too few for a verdict
    assert few["next_step"]["command"].endswith("--verify-data MORE_SAMPLES")
    np.savez("more.npz", image=images(4, 60))
    step = few["next_step"]["command"].replace("MORE_SAMPLES", "more.npz")
    step = said(capsys, step)["next_step"]["command"]
    assert step.endswith("--min-agreement 95")
    judged = step.replace("--min-agreement 95", "--min-sqnr 200 --no-tune")
    assert run(shlex.split(judged)[1:]) == 1
    out = capsys.readouterr().out
    assert "DO NOT SHIP: TensorRT's form: SQNR of 'logits': " in out
    assert "what next: let it search for the cheapest way to meet the limit: trtbuild engine" in out
    step = said(capsys, judged, 1)["next_step"]["command"]
    assert "--no-tune" not in step
    assert said(capsys, step, 1)["next_step"]["command"].endswith("--effort high")


def test_other_samples_have_other_labels(folder: Path, capsys) -> None:
    session = onnxruntime.InferenceSession("float.onnx")
    [scores] = session.run(None, {"image": images(3, 40)})
    np.save(folder / "classes.npy", scores.argmax(1))
    command = ["verify", "float.onnx", "int8.onnx", "--data", "my images.npz"]
    command += ["--labels", "classes.npy", "--max-top1-drop", "3"]
    words = shlex.split(said(capsys, command)["next_step"]["command"])
    assert words[words.index("--labels") + 1] == "MORE_LABELS"
    assert words[-2:] == ["--data", "MORE_SAMPLES"]
    assert "classes.npy" not in words


def test_the_step_after_verify(folder: Path, capsys) -> None:
    (folder / "mine.py").write_text("def right(outputs, labels, names):\n    return 1.0\n")
    command = ["verify", "float.onnx", "int8.onnx", "--data", "my images.npz", "--task", "classify"]
    command += ["--metric", "mine.py:right"]
    step = said(capsys, command)["next_step"]["command"]
    assert " --metric mine.py:right " in step
    assert step.endswith("--min-agreement 95")
    few = said(capsys, [*command, "--num-images", "4"])["next_step"]["command"]
    assert few.endswith(" --data MORE_SAMPLES")
    assert "--num-images" not in few
    failed = said(capsys, [*command, "--min-sqnr", "200"], 1)["next_step"]["command"]
    assert failed.endswith("--layers")
    assert said(capsys, failed, 1)["layers"]["layers"]
    shipped = said(capsys, [*command, "--min-sqnr", "4"])
    assert (shipped["ruling"]["word"], shipped["next_step"]) == ("SHIP", None)


def with_sqnr(result, value_db: float):
    """The result with every output of every form at this SQNR."""
    db = Estimate(value_db, value_db - 0.5, value_db + 0.5)
    comparisons = {
        name: dataclasses.replace(
            one,
            task=None,
            outputs=tuple(
                dataclasses.replace(output, sqnr_db=db, parts=(), worst_part="")
                for output in one.outputs
            ),
        )
        for name, one in result.comparisons.items()
    }
    return dataclasses.replace(result, comparisons=comparisons)


BUILT_FAST = EngineRecipe(
    model=Path("float.onnx"),
    data=DataRecipe(data="my images.npz"),
    effort=Effort.FAST,
    backend="onnxruntime",
    latency=None,
)


def test_outputs_that_keep_nothing_lead_to_the_preprocessing(folder: Path) -> None:
    del folder
    recipe = BUILT_FAST
    result = build_engine(recipe)
    noise = dataclasses.replace(with_sqnr(result, -0.3), layers=LayerReport(8, (), ()))
    step = after_engine(noise, recipe)
    assert step is not None
    assert step.why.startswith("check that the preprocessing is what the network expects")
    assert "--preprocess PREPROCESS.toml" in step.command
    assert "--min-" not in step.command
    scaled = dataclasses.replace(recipe.data, preprocess=Preprocess(scale=2.0))
    again = after_engine(noise, dataclasses.replace(recipe, data=scaled))
    assert again is not None
    assert "--scale" not in again.command  # it would override the file
    spoilt = ActivationError("x", 0.01, -1.28, 1.27, 2.0, 40.0, 99.0)
    clipped = dataclasses.replace(noise, layers=LayerReport(8, (), (spoilt,)))
    for other in (with_sqnr(result, 5.0), clipped):
        step = after_engine(other, recipe)
        assert step is not None
        assert "preprocess" not in step.why


def test_an_output_called_cache_is_not_the_calibration_cache(folder: Path) -> None:
    del folder
    far = with_sqnr(build_engine(BUILT_FAST), 5.0)
    comparisons = {
        name: dataclasses.replace(
            one, outputs=tuple(dataclasses.replace(o, name="key_cache") for o in one.outputs)
        )
        for name, one in far.comparisons.items()
    }
    far = dataclasses.replace(far, comparisons=comparisons)
    assert any("'key_cache'" in why for why in far.below_floor)
    given = dataclasses.replace(BUILT_FAST.tensorrt, cache=Path("old.cache"))
    step = after_engine(far, dataclasses.replace(BUILT_FAST, tensorrt=given))
    assert step is not None
    assert "cache convert" not in step.command
    without = dataclasses.replace(far.engine, without_effect=("cache",))
    step = after_engine(
        dataclasses.replace(far, engine=without), dataclasses.replace(BUILT_FAST, tensorrt=given)
    )
    assert step is not None
    assert step.command.startswith("trtbuild cache convert old.cache float.onnx")


def test_a_limit_that_more_float_would_meet_leads_to_max_float(folder: Path) -> None:
    del folder
    recipe = dataclasses.replace(BUILT_FAST, gate=Gate(min_sqnr=200))
    result = build_engine(recipe)
    assert result.tuned is not None
    for enough, end in ((75.0, "--max-float 75"), (None, "--effort high")):
        tuned = dataclasses.replace(result.tuned, enough_float_percent=enough)
        step = after_engine(dataclasses.replace(result, tuned=tuned), recipe)
        assert step is not None
        assert step.command.endswith(end)


def test_ranges_from_a_file_are_left_for_data_that_calibrate(folder: Path) -> None:
    del folder
    built = build_engine(BUILT_FAST)
    failed = Verdict(False, (Finding("SQNR", "dB", 200, False, 40.0, False),))
    failing = dataclasses.replace(built, verdicts=dict.fromkeys(built.verdicts, failed))
    ranges = Path("out/float.calibration.json")
    for data in (DataRecipe(verify_data="my images.npz"), BUILT_FAST.data):
        again = dataclasses.replace(BUILT_FAST, calibration=ranges, data=data)
        step = after_engine(failing, again)
        assert step is not None
        assert "--calibration" not in step.command
        assert step.command.endswith("--data MORE_SAMPLES") == (data.data is None)


@pytest.mark.parametrize("out_of_reach", [False, True])
def test_samples_out_of_reach_lead_to_a_better_engine(folder: Path, out_of_reach: bool) -> None:
    del folder
    recipe = BUILT_FAST
    result = build_engine(recipe)
    name, comparison = next(iter(result.comparisons.items()))
    needed = 50 * comparison.num_images + out_of_reach
    near = Finding("SQNR", "dB", 20, False, 20.01, True, settled=False, num_needed=needed)
    verdict = Verdict(True, (near,))
    ruling = rule([verdict])
    doubtful = dataclasses.replace(result, verdicts={name: verdict})
    alone = {"int8": False}, {"weights_only": True}
    asked = VerifyRecipe(reference=Path("float.onnx"), engine=Path("int8.onnx"), data=recipe.data)
    steps = (
        after_engine(doubtful, recipe),
        *(after_engine(doubtful, dataclasses.replace(recipe, **one)) for one in alone),
        after_verify(ruling, comparison, verdict, asked),
    )
    commands = [step.command for step in steps if step is not None]
    if out_of_reach:
        assert commands[0].endswith("--effort high")
        # a build that chooses no ranges
        assert all(one.endswith("--verify-data MORE_SAMPLES") for one in commands[1:3])
        assert commands[3].endswith("--layers")
    else:
        assert all(command.endswith("data MORE_SAMPLES") for command in commands)
        assert all(step.why == f"verify on about {needed} samples" for step in steps)


@pytest.mark.parametrize("alone", [{"int8": False, "fp16": True}, {"weights_only": True}])
def test_where_nothing_is_calibrated_no_calibration_is_asked_for(folder: Path, alone: dict) -> None:
    del folder
    recipe = EngineRecipe(
        model=Path("float.onnx"),
        data=DataRecipe(data="my images.npz"),
        backend="onnxruntime",
        latency=None,
        weights_only=True,
    )
    result = build_engine(recipe)
    failed = Verdict(False, (Finding("SQNR", "dB", 200, False, 40.0, False),))
    failing = dataclasses.replace(result, verdicts=dict.fromkeys(result.verdicts, failed))
    step = after_engine(failing, dataclasses.replace(recipe, **{"weights_only": False, **alone}))
    assert step is not None
    assert step.command.endswith("--verify-data MORE_SAMPLES")
    assert "--effort" not in step.command


@pytest.mark.parametrize(("num_samples", "step"), [(19, "MORE_SAMPLES"), (20, "95")])
def test_a_share_of_few_samples_is_no_figure_for_a_limit(num_samples: int, step: str) -> None:
    """Each sample of 20 moves it by five points, and the limit that is proposed leaves five."""
    agreement = Figure("top-1 agreement", "%", Estimate(100, 80, 100))
    task = TaskScore("classify", "", num_samples, agreement)
    verdict = Verdict(True, ())
    asked = VerifyRecipe(
        reference=Path("n.onnx"), engine=Path("n.plan"), data=DataRecipe(data="d.npz")
    )
    comparison = Comparison("engine", num_samples, (), task=task)
    found = after_verify(rule([verdict]), comparison, verdict, asked)
    assert found is not None
    assert found.command.endswith(step)


def test_lists_of_unlike_lengths_lead_to_a_judge_and_to_no_limit_that_they_cannot_meet() -> None:
    lists = {len(one): FunctionSession(lambda x, one=one: one) for one in (np.eye(3), np.eye(2, 3))}
    comparison = compare(
        lists[3], lists[2], batches_of(np.zeros((20, 1), np.float32), batch_size=1)
    )
    verdict = judge(comparison, Gate())
    asked = VerifyRecipe(
        reference=Path("n.onnx"), engine=Path("n.plan"), data=DataRecipe(data="d.npz")
    )
    found = after_verify(rule([verdict]), comparison, verdict, asked)
    assert found is not None
    assert found.command.endswith("--judge MODULE:FUNCTION")

    agreement = Figure("top-1 agreement", "%", Estimate(100, 95, 100))
    judged = replace(comparison, task=TaskScore("classify", "", 20, agreement))
    verdict = judge(judged, Gate(min_agreement=50))
    ruling = rule([verdict], floors({"engine": judged}, [verdict]))
    assert ruling.word == "NOT JUDGED"
    by_task = replace(asked, task=TaskOptions(kind="classify"), gate=Gate(min_agreement=50))
    found = after_verify(ruling, judged, verdict, by_task)
    assert found is not None
    assert "--judge MODULE:FUNCTION" in found.command
    assert "--task" not in found.command  # it excludes a judge
