"""``trtbuild rebuild``: repeats a build, and reports the differences."""

from __future__ import annotations

from pathlib import Path

import click

from trtbuild.cli.help import SectionedCommand
from trtbuild.cli.output import Output, output_options

__all__ = ["command"]


@click.command(
    "rebuild",
    cls=SectionedCommand,
    examples=(
        ("rebuild out/", "from the files where they were"),
        ("rebuild out/model.manifest.json --data calib.npz -o again", "the data have moved"),
        ("rebuild out/model.manifest.json --json", "what differs, for programs"),
    ),
)
@click.argument("manifest", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path),
              help="Folder for the new build.  [default: rebuilt, beside the manifest]")  # fmt: skip
@click.option("--model", type=click.Path(path_type=Path), help="The network, if it has moved.")
@click.option("--data", help="The calibration data, if they have moved.")
@click.option("--verify-data", help="The data for verification, if they have moved.")
@click.option("--labels", type=click.Path(path_type=Path), help="The labels, if they have moved.")
@output_options
def command(
    *,
    manifest: Path,
    output: Path | None,
    model: Path | None,
    data: str | None,
    verify_data: str | None,
    labels: Path | None,
    out: Output,
) -> int:
    """Repeat the build of MANIFEST with the recipe that it records, and report what differs.

    MANIFEST is the manifest of a build or its folder. It compares the digests of the network and the data,
    options, versions, the verdict, and the digests of the files; of a Q/DQ network that differs, every node
    and the figures (see `trtbuild diff`).
    Exit code 0 when every file has the bytes it had, 1 when one differs.
    """
    from trtbuild.jobs.rebuild import rebuild
    from trtbuild.manifest import manifest_at
    from trtbuild.report.rebuild import rebuild_report

    manifest = manifest_at(manifest)
    folder = output if output is not None else manifest.parent / "rebuilt"
    with out.progress() as progress:
        done = rebuild(
            manifest,
            folder,
            model=model,
            data=data,
            verify_data=verify_data,
            labels=labels,
            progress=progress,
        )
    out.show(rebuild_report(manifest, done))
    return 0 if done.same_bytes else 1
