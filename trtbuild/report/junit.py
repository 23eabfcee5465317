"""A report as JUnit XML, which CI systems show as tests: one case for each check."""

from __future__ import annotations

from itertools import groupby
from xml.etree import ElementTree as ET

from trtbuild.report.model import Outcome, Report
from trtbuild.visible import visible

__all__ = ["to_junit"]

_ELEMENTS = {Outcome.FAILED: "failure", Outcome.UNKNOWN: "skipped"}


def to_junit(report: Report) -> str:
    """Return the XML text.

    A failed check is a failure with its numbers; a check that cannot be decided is a skipped test with the
    reason. Characters that XML forbids are escaped.
    """
    root = ET.Element("testsuites", name=visible(f"trtbuild {report.title}"))
    for name, checks in groupby(report.checks, key=lambda check: check.suite):
        suite = ET.SubElement(root, "testsuite", name=visible(name))
        if report.ruling:
            properties = ET.SubElement(suite, "properties")
            ET.SubElement(properties, "property", name="verdict", value=report.ruling)
            ET.SubElement(properties, "property", name="why", value=visible(report.verdict))
        for check in checks:
            text = visible(check.text)
            case = ET.SubElement(
                suite,
                "testcase",
                classname=visible(f"{report.title}.{check.subject}"),
                name=visible(check.what),
            )
            if check.outcome in _ELEMENTS:
                ET.SubElement(case, _ELEMENTS[check.outcome], message=text)
            ET.SubElement(case, "system-out").text = text
        suite.set("tests", str(len(suite.findall("testcase"))))
        suite.set("failures", str(len(suite.findall("*/failure"))))
        suite.set("skipped", str(len(suite.findall("*/skipped"))))
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"
