"""``trtbuild engine`` and the stages as a script uses them: files, JSON, quiet, signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from tests.command import FAST, HANGS_S, await_text, trtbuild
from tests.models import NETWORKS
from tests.trtbuild.quantization.tensorrt_rules import int8_layers

PROJECT = Path(__file__).resolve().parents[3]
CNN = NETWORKS["opset_13"]


@pytest.fixture
def files(tmp_path):
    return (*CNN.save(tmp_path), tmp_path / "out")


def engine(capsys, files, *options):
    model, data, out = files
    return trtbuild(
        *(capsys, "engine", model, "--int8", "--data", data, "-o", out, "--no-latency"),
        *(*FAST, *options),
    )


def test_files_and_what_the_manifest_says_of_them(files, capsys):
    from trtbuild.files import file_digest

    assert engine(capsys, files, "--effort", "normal").code == 0
    out = files[2]
    manifest = json.loads((out / "net.manifest.json").read_text())
    written = {file.name for file in out.iterdir()}
    assert written == {*manifest["files"], "net.manifest.json"}
    assert {"net.int8.onnx", "net.onnxruntime.onnx", "net.calibration.json"} <= written
    for name, entry in manifest["files"].items():
        assert entry["digest"] == file_digest(out / name)
        assert entry["bytes"] == (out / name).stat().st_size
        assert entry["what"]
    assert manifest["model"]["digest"] == file_digest(files[0])

    for network in ("net.int8.onnx", "net.onnxruntime.onnx"):
        told = trtbuild(capsys, "inspect", out / network, "--json").json["nodes"]
        asked = {one["node"]: one["int8"] for one in manifest["layers"]}
        assert {one["node"]: one["asked"] == "INT8" for one in told} == asked


def test_json_is_all_of_standard_output(files, capsys):
    done = engine(capsys, files, "--json")
    assert done.json == json.loads((files[2] / "net.manifest.json").read_text())
    quiet = engine(capsys, files, "--json", "--quiet")
    assert quiet.err == ""
    assert quiet.json["passed"] is True


def test_quiet_says_nothing(files, capsys):
    done = engine(capsys, files, "--quiet")
    assert (done.code, done.out, done.err) == (0, "", "")


def test_the_verdict_is_shown(files, capsys):
    done = engine(capsys, files, "--min-sqnr", "10")
    assert "\nSHIP: every limit holds" in done.out
    assert "3 of 3" in done.out
    done = engine(capsys, files, "--min-sqnr", "90")
    assert done.code == 1
    assert "DO NOT SHIP" in done.out


def test_the_same_build_twice_gives_the_same_files(files, capsys):
    contents = []
    for batch_size in (8, 3):
        assert engine(capsys, files, "--effort", "normal", "--batch-size", batch_size).code == 0
        names = ("net.int8.onnx", "net.onnxruntime.onnx", "net.calibration.json")
        contents.append([(files[2] / name).read_bytes() for name in names])
    assert contents[0] == contents[1]


def test_verification_is_on_data_that_calibration_has_not_seen(files, capsys):
    manifest = engine(capsys, files, "--json").json
    details = next(s for s in manifest["stages"] if s["stage"] == "calibrate")["details"]
    verified = {v["num_images"] for v in manifest["verification"].values()}
    assert verified == {3}  # 5 % of 64
    assert details["num_samples"] == "61"


def test_data_of_its_own_verifies_and_is_taken_out_of_calibration(files, capsys, tmp_path):
    arrays = CNN.arrays()
    np.savez(tmp_path / "verify.npz", x=arrays["x"][:10])
    manifest = engine(capsys, files, "--json", "--verify-data", tmp_path / "verify.npz").json
    details = next(s for s in manifest["stages"] if s["stage"] == "calibrate")["details"]
    assert details["num_samples"] == "54"
    assert {v["num_images"] for v in manifest["verification"].values()} == {10}


@pytest.mark.parametrize(
    ("pattern", "left"), [("Gemm", 2), ("Conv_c", 2), ("Conv_*", 1), ("*", None), ("[Cc]onv*", 1)]
)
def test_layers_kept_in_float(files, capsys, pattern, left):
    done = engine(capsys, files, "--float", pattern, "--json")
    if left is None:
        assert "would run in INT8" in done.sentence
        return
    assert len(int8_layers(onnx.load(files[2] / "net.int8.onnx"))) == left
    reasons = [layer["reason"] for layer in done.json["layers"] if not layer["int8"]]
    assert any(f"--float '{pattern}'" in reason for reason in reasons)


def test_stages_one_by_one_give_what_the_whole_job_gives(files, capsys, tmp_path):
    model, _, out = files
    assert engine(capsys, files, "--calibrator", "entropy").code == 0
    calibration = out / "net.calibration.json"
    for form, name in (("tensorrt", "net.int8.onnx"), ("onnxruntime", "net.onnxruntime.onnx")):
        alone = tmp_path / "alone.onnx"
        done = trtbuild(
            *(capsys, "quantize", model, "--calibration", calibration, "-o", alone, "--form", form)
        )
        assert done.code == 0, done.err
        assert alone.read_bytes() == (out / name).read_bytes()


def test_a_calibration_is_reused_and_refused_for_another_graph(files, capsys, tmp_path):
    out = files[2]
    assert engine(capsys, files, "--calibrator", "entropy").code == 0
    first = (out / "net.int8.onnx").read_bytes()
    kept = tmp_path / "kept.json"
    kept.write_bytes((out / "net.calibration.json").read_bytes())
    assert engine(capsys, files, "--calibration", kept).code == 0
    assert (out / "net.int8.onnx").read_bytes() == first
    NETWORKS["residual"].save(tmp_path)
    sentence = engine(capsys, files, "--calibration", kept).sentence
    assert "another graph" in sentence
    assert (
        trtbuild(capsys, "quantize", files[0], "--calibration", kept, "--list").sentence == sentence
    )


def test_list_shows_every_node_with_its_reason(files, capsys):
    done = trtbuild(capsys, "quantize", files[0], "--list", "--json")
    assert done.code == 0
    layers, groups = done.json["layers"], done.json["groups"]
    assert {entry["op_type"] for entry in layers} >= {"Conv", "Gemm", "Relu"}
    assert all(entry["reason"] for entry in (*layers, *groups))
    assert {entry["kind"] for entry in groups} >= {"layer", "pool"}


def heed_signals():
    """Restore signals: background jobs ignore Ctrl-C, jobs of nohup SIGHUP, and children inherit that."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "trtbuild", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_signals,  # noqa: PLW1509
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )


def test_the_program_separates_output_from_errors(files):
    model, data, out = files
    process = start(
        *("engine", model, "--int8", "--data", data, "-o", out, "--no-latency", *FAST, "--json")
    )
    said, complained = process.communicate(timeout=HANGS_S)
    assert process.returncode == 0, complained
    assert json.loads(said)["name"] == "net"
    process = start("engine", model, "--int8", "--data", "absent.npz", "-o", out)
    said, complained = process.communicate(timeout=HANGS_S)
    assert process.returncode == 2
    assert said == ""
    assert complained.splitlines() == ["trtbuild: the data 'absent.npz' does not exist."]


# Slow as soon as the output folder exists, which is made right before calibration.
READER = """
import pathlib, time
import numpy as np
def slow():
    for number in range(1000):
        if pathlib.Path("out").exists():
            time.sleep(0.02)
            if number == 50:
                pathlib.Path("running").write_text("now")
        yield {"x": np.random.default_rng(number).standard_normal((1, 3, 8, 8)).astype("float32")}
"""


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX")
@pytest.mark.parametrize(
    ("number", "code", "word"),
    [
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 143, "SIGTERM"),
        (signal.SIGHUP, 129, "SIGHUP"),
    ],
)
def test_ended_by_a_signal_leaves_nothing(files, tmp_path, monkeypatch, number, code, word):
    model, _, out = files
    monkeypatch.chdir(tmp_path)
    (tmp_path / "slow_reader.py").write_text(READER)
    process = start("engine", model, "--int8", "--data", "slow_reader:slow", "-o", out)
    await_text(tmp_path / "running", process)
    process.send_signal(number)
    said, complained = process.communicate(timeout=HANGS_S)
    assert process.returncode == code, complained
    assert said == ""
    assert "Traceback" not in complained
    assert word in complained
    assert list(out.iterdir()) == []


ENDLESS = """<ir_version: 10, opset_import: ["" : 21]>
    endless (float[1, 8] x) => (float[1, 8] y) <int64 steps = {4611686018427387904}> {
        y = Loop(steps, , x) <body = b (int64 i, bool d, float[1, 8] s) => (bool e, float[1, 8] t)
            { e = Identity(d) t = Tanh(s) }>
    }"""
# Says when the pass begins whose samples are run; another one before it looks at the data.
FEW_SAMPLES = """
import pathlib
import numpy as np
passes = 0
def few():
    global passes
    passes += 1
    for number in range(6):
        if passes == 2:
            pathlib.Path("running").write_text("now")
        yield {"x": np.full((1, 8), number, np.float32)}
"""


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX")
@pytest.mark.parametrize(
    "words",
    [
        ("calibrate", "endless.onnx", "--all-tensors", "-o", "ranges.json"),
        ("verify", "endless.onnx", "endless.onnx"),
    ],
)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_never_ends_is_stopped_by_a_signal(tmp_path, monkeypatch, words, number, code):
    monkeypatch.chdir(tmp_path)
    onnx.save(onnx.parser.parse_model(ENDLESS), "endless.onnx")
    (tmp_path / "few_samples.py").write_text(FEW_SAMPLES)
    process = start(*words, "--data", "few_samples.py:few")
    await_text(tmp_path / "running", process)
    process.send_signal(number)
    _, complained = process.communicate(timeout=HANGS_S)
    assert process.returncode == code, complained
    assert "Traceback" not in complained
    assert "cannot run" not in complained


POOLED = """
import multiprocessing
import numpy as np
def drawn(seed):
    return np.random.default_rng(seed).standard_normal((1, 3, 8, 8)).astype("float32")
def data():
    with multiprocessing.get_context("fork").Pool(2) as pool:
        yield from pool.map(drawn, range(8))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a forked process has our handlers of signals")
@pytest.mark.parametrize("spec", ["pooled_reader:data", "pooled_reader.py:data"])
def test_processes_of_a_users_pool_end_without_a_word_and_stop_no_runs(
    files, tmp_path, monkeypatch, spec
):
    """Leaving the block of a pool ends its processes by SIGTERM."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pooled_reader.py").write_text(POOLED)
    process = start("calibrate", files[0], "--data", spec, "-o", "r.json", "-q")
    _, complained = process.communicate(timeout=HANGS_S)
    assert (process.returncode, complained) == (0, "")


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX")
@pytest.mark.usefixtures("no_signal_ignored")
def test_networks_run_again_after_a_signal(files, tmp_path, monkeypatch, capsys):
    model, data, _ = files
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STOP", "SIGINT")
    (tmp_path / "hiding_reader.py").write_text(HIDING)
    stopped = trtbuild(
        capsys, "calibrate", model, "--data", "hiding_reader.py:data", "-o", "a.json"
    )
    assert stopped.code == 130
    assert trtbuild(capsys, "calibrate", model, "--data", data, "-o", "b.json").code == 0


HIDING = """
import os, signal
def data():
    try:
        os.kill(os.getpid(), getattr(signal, os.environ["STOP"]))
        yield {}
    finally:
        raise RuntimeError("the clean-up fails")
"""


@pytest.fixture
def no_signal_ignored():
    """Default signals, as in a terminal: nohup and background jobs ignore some."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX")
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
@pytest.mark.usefixtures("no_signal_ignored")
def test_a_signal_keeps_its_exit_code_though_the_clean_up_fails(
    files, tmp_path, monkeypatch, capsys, name, code
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STOP", name)
    (tmp_path / "hiding_reader.py").write_text(HIDING)
    given = ("--data", "hiding_reader.py:data", "-o", "ranges.json")
    done = trtbuild(capsys, "calibrate", files[0], *given)
    assert done.code == code
    assert "Traceback" not in done.err


@pytest.mark.skipif(os.name == "nt", reason="of POSIX systems")
@pytest.mark.parametrize("arguments", [("--help",), ("optimize", "--list"), ("doctor", "--json")])
def test_output_that_nobody_reads_ends_in_141(arguments):
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "trtbuild", *arguments]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert done.returncode == 141
    assert b"Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_messages_that_cannot_be_written_change_no_exit_code(files, tmp_path):
    """Progress and warnings that cannot be written lose no work; a mistake keeps its exit code."""
    model, data, _ = files
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with Path("/dev/full").open("w") as full:
        for network, code in ((model, 0), (tmp_path / "absent.onnx", 2)):
            given = ("calibrate", network, "--data", data, "-o", tmp_path / "ranges.json")
            command = [sys.executable, "-m", "trtbuild", *map(str, given)]
            done = subprocess.run(
                command, stderr=full, stdout=subprocess.DEVNULL, env=buffered, check=False
            )
            assert done.returncode == code
    assert (tmp_path / "ranges.json").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("given", [["doctor"], ["doctor", "--json"]])
def test_output_that_cannot_be_written_is_an_error(given):
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-m", "trtbuild", *given]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, env=buffered, check=False
        )
    assert done.returncode == 2
    said = done.stderr.decode().splitlines()
    assert said[-1] == "trtbuild: the system refuses a file: No space left on device."
    assert not any("Traceback" in line for line in said)


def test_version_and_help(capsys):
    done = trtbuild(capsys, "--help")
    assert done.code == 0
    for command in ("engine", "calibrate", "optimize", "quantize", "verify", "bench"):
        assert command in done.out
    assert trtbuild(capsys, "engine", "--help").code == 0
    assert trtbuild(capsys, "nonsense").code == 2


@pytest.fixture
def heavy_tailed(tmp_path):
    """A network, and data with mostly small values and a few a thousand times larger."""
    rng = np.random.default_rng(3)
    shape = (64, 3, 8, 8)
    large = rng.random(shape) < 0.003
    x = np.where(large, rng.normal(size=shape) * 50, rng.normal(size=shape) * 0.05)
    np.savez(tmp_path / "tails.npz", x=x.astype(np.float32))
    model, _ = NETWORKS["residual"].save(tmp_path)
    return model, tmp_path / "tails.npz", tmp_path / "out"


def test_a_collapse_without_a_limit_is_not_called_passed(heavy_tailed, capsys):
    model, data, out = heavy_tailed
    arguments = ("engine", model, "--int8", "--data", data, "-o", out, "--no-latency")
    entropy = ("--calibrator", "entropy")
    done = trtbuild(capsys, *arguments, *entropy, "--report", out.parent / "page.html")
    assert done.code == 0
    assert "NOT JUDGED: no limit was set, and output" in done.out
    assert "PASSED" not in done.out
    assert "with --calibrator" in done.out
    assert "NOT JUDGED" in (out.parent / "page.html").read_text()
    manifest = json.loads((out / f"{model.stem}.manifest.json").read_text())
    assert manifest["unjudged_collapse"]
    better = manifest["better_rule"]
    assert better["sqnr_db"] > better["own_db"] + 3
    again = trtbuild(capsys, *arguments, *better["option"].split())
    found = json.loads((out / f"{model.stem}.manifest.json").read_text())
    figures = [o["sqnr_db"]["value"] for o in found["verification"]["tensorrt_form"]["outputs"]]
    # the rule's figure was measured on a part of the images compared here
    assert again.code == 0
    assert min(figures) > better["own_db"] + 1
    judged = trtbuild(capsys, *arguments, "--min-sqnr", "1", "--no-tune")
    assert "NOT JUDGED" not in judged.out
