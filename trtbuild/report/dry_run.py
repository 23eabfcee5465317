"""The result of ``trtbuild engine --dry-run`` as a report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.report.model import Line, Report

if TYPE_CHECKING:
    from trtbuild.jobs.dry_run import BuildPlan

__all__ = ["dry_run_report"]


def dry_run_report(plan: BuildPlan) -> Report:
    """Return the report of what a build would do."""
    lines = [f"backend: {plan.why}", f"stages: {', '.join(plan.stages)}"]
    lines += [f"reads {path}" for path in plan.reads]
    lines += [f"writes {path}" for path in plan.writes]
    return Report(title="a dry run", notes=tuple(map(Line, lines)), data=plan.to_json())
