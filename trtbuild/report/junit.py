"""A report as JUnit XML, which CI systems show as tests: one case a limit, one a latency verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

if TYPE_CHECKING:
    from trtbuild.latency.regress import LatencyVerdict
    from trtbuild.report.model import Report
    from trtbuild.verification.gate import Finding

__all__ = ["to_junit"]


def to_junit(report: Report) -> str:
    """Return the XML text.

    A failed limit is a failure with the numbers; "cannot tell" is a skipped test with the reason.
    """
    root = ET.Element("testsuites", name=f"trtbuild {report.title}")
    for name, verdict in report.verdicts.items():
        suite = ET.SubElement(root, "testsuite", name=f"accuracy of {name}")
        for finding in verdict.findings:
            _finding(suite, f"{report.title}.{name}", finding)
    if report.latency_verdicts:
        suite = ET.SubElement(root, "testsuite", name="latency")
        for latency in report.latency_verdicts:
            _latency(suite, report.title, latency)
    for suite in root:
        suite.set("tests", str(len(suite)))
        suite.set("failures", str(len(suite.findall("*/failure"))))
        suite.set("skipped", str(len(suite.findall("*/skipped"))))
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _finding(suite: ET.Element, classname: str, finding: Finding) -> None:
    case = ET.SubElement(suite, "testcase", classname=classname, name=finding.what)
    if not finding.passed:
        ET.SubElement(case, "failure", message=str(finding))
    ET.SubElement(case, "system-out").text = str(finding)


def _latency(suite: ET.Element, title: str, verdict: LatencyVerdict) -> None:
    case = ET.SubElement(
        suite, "testcase", classname=f"{title}.latency", name=f"against {verdict.base}"
    )
    if verdict.answer == "slower":
        ET.SubElement(case, "failure", message=str(verdict))
    elif verdict.answer == "cannot tell":
        ET.SubElement(case, "skipped", message=str(verdict))
    ET.SubElement(case, "system-out").text = str(verdict)
