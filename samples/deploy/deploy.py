"""Build an engine on the machine that will run it, and install it only if it is good.

    python deploy.py /opt/app/engines/resnet20 -- resnet20.onnx --int8 --data calib.npz --min-sqnr 25
    python deploy.py /opt/app/engines/resnet20 --check "python infer.py {engine} probe.npz" -- ...
    python deploy.py /opt/app/engines/resnet20 --rollback

Arguments after ``--`` go to ``trtbuild engine``. If its build or one of its limits fails, nothing changes. A
good engine gets a folder of its own under ``releases``, with its manifest and calibration. Then the link
``current`` is moved to it in one step, so that a program that opens ``current/...`` finds the old engine or
the new one and never a mixture. ``--check`` runs a command on the installed engine and moves the link back
if it fails. ``--rollback`` goes back by hand. An engine that ``infer.py`` beside this program cannot run is
not installed: the portable engine, a plan for RTX, a plan without weights, with plugins of your own, or with
inputs that hold shapes.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CANNOT_RUN = 3  # trtbuild's exit code for something missing


def build(staging: Path, options: list[str]) -> int:
    """Build and verify into `staging`; return the exit code of ``trtbuild engine``."""
    command = [sys.executable, "-m", "trtbuild", "engine", *options, "-o", str(staging)]
    return subprocess.run(command, check=False).returncode


def engine_of(release: Path) -> Path:
    """The engine file of a release, named in its manifest."""
    (manifest,) = release.glob("*.manifest.json")
    return release / json.loads(manifest.read_text())["engine"]["file"]


def why_not_run(release: Path) -> str:
    """Return why ``infer.py`` cannot run the engine of a release; empty where it can."""
    (path,) = release.glob("*.manifest.json")
    manifest = json.loads(path.read_text())
    engine = manifest["engine"]
    details = engine.get("details", {})
    if engine.get("backend") != "tensorrt":
        return (
            f"'{engine['file']}' is for {engine.get('backend')}, and infer.py runs plans of TensorRT; build "
            "with --backend tensorrt, where `trtbuild doctor` finds TensorRT and a GPU"
        )
    if manifest.get("recipe", {}).get("tensorrt", {}).get("strip_plan"):
        return "the plan holds no weights, and infer.py does not refit; build without --strip-plan"
    if details.get("plugins"):
        return "the plan needs plugins of your own, which infer.py does not load"
    if any(details.get("profile_values") or ()):
        return "an input of the plan holds a shape, which infer.py does not give in host memory"
    return engine.get("not_opened", "")


def point(link: Path, release: Path) -> None:
    """Move a link to a release in one step: a new link is renamed over the old one."""
    new = link.with_name(f".{link.name}.{os.getpid()}")
    new.unlink(missing_ok=True)
    new.symlink_to(os.path.relpath(release, link.parent))
    new.replace(link)


def install(folder: Path, staging: Path) -> Path:
    """Make `staging` the current release; the one before becomes ``previous``."""
    name = time.strftime("%Y%m%d-%H%M%S")
    release = folder / "releases" / name
    number = 1
    while release.exists():
        number += 1
        release = release.with_name(f"{name}-{number}")
    staging.rename(release)
    release.chmod(0o755)
    now = time.time_ns()
    os.utime(release, ns=(now, now))  # a system's own times of files may be milliseconds apart
    current = folder / "current"
    if current.exists():
        point(folder / "previous", current.resolve())
    point(current, release)
    return release


def roll_back(folder: Path) -> None:
    """Make the previous release the current one again."""
    previous = folder / "previous"
    if not previous.exists():
        sys.exit(f"there is no previous release in '{folder}'")
    bad, good = (folder / "current").resolve(), previous.resolve()
    point(folder / "current", good)
    point(previous, bad)
    print(f"current is {good.name} again; {bad.name} is kept as previous")


def works(folder: Path, check: str) -> bool:
    """Run the check on the installed engine."""
    engine = engine_of(folder / "current")
    command = [part.replace("{engine}", str(engine)) for part in shlex.split(check)]
    return subprocess.run(command, check=False).returncode == 0


def remove_old(folder: Path, keep: int) -> None:
    """Remove all but the newest releases; keep those that a link points to."""
    linked = {(folder / name).resolve() for name in ("current", "previous")}
    releases = [path for path in (folder / "releases").iterdir() if path.is_dir()]
    releases.sort(key=lambda path: path.stat().st_mtime_ns)
    for release in releases[:-keep]:
        if release.resolve() not in linked:
            shutil.rmtree(release)


def deploy(folder: Path, options: list[str], check: str | None, keep: int) -> int:
    """Build, install, check; return 0, the exit code of ``trtbuild engine``, 3, or 1 for a failed check."""
    (folder / "releases").mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one deployment at a time
        staging = Path(tempfile.mkdtemp(prefix=".staging.", dir=folder))
        try:
            code = build(staging, options)
            if code:
                print(f"not installed: trtbuild engine ended with {code}", file=sys.stderr)
                return code
            reason = why_not_run(staging)
            if reason:
                print(f"not installed: {reason}", file=sys.stderr)
                return CANNOT_RUN
            release = install(folder, staging)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        if check and not works(folder, check):
            print(f"the check failed on {release.name}", file=sys.stderr)
            if (folder / "previous").exists():
                roll_back(folder)
            else:
                (
                    folder / "current"
                ).unlink()  # without an earlier release, none is better than a bad one
            return 1
        remove_old(folder, keep)
    print(f"installed {engine_of(folder / 'current')}")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Read the arguments and deploy, or go back."""
    given = sys.argv[1:] if arguments is None else arguments
    own, separator, options = given, "", []
    if "--" in given:
        at = given.index("--")
        own, separator, options = given[:at], "--", given[at + 1 :]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where releases and the link 'current' are")
    parser.add_argument("--check", help="command that must succeed; {engine} is the engine's path")
    parser.add_argument("--keep", type=int, default=3, help="releases to keep")
    parser.add_argument("--rollback", action="store_true", help="make the previous release current")
    parsed = parser.parse_args(own)
    if parsed.rollback:
        roll_back(parsed.folder)
        return 0
    if not separator:
        parser.error("give the arguments of `trtbuild engine` after --")
    return deploy(parsed.folder, options, parsed.check, parsed.keep)


if __name__ == "__main__":
    sys.exit(main())
