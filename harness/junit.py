"""A gate's checks as JUnit XML and as a Markdown summary, the two forms that CI systems show."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

from harness.comparison.findings import Findings
from harness.comparison.gate import Check, passed
from harness.exports import markdown, markdown_safe
from harness.files import file_errors, replacing

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot hold, not even escaped."""


def write_junit(path: Path, checks: Sequence[Check]) -> None:
    """Write one test case a check, a test suite an endpoint.

    Raises:
        StoreError: the file cannot be written.
    """
    root = ElementTree.Element("testsuites", {"name": "forced-choice gate", **_totals(checks)})
    for endpoint in dict.fromkeys(each.endpoint for each in checks):
        own = [each for each in checks if each.endpoint == endpoint]
        suite = ElementTree.SubElement(root, "testsuite", {"name": _clean(endpoint), **_totals(own)})
        for each in own:
            case = ElementTree.SubElement(
                suite,
                "testcase",
                classname=_clean(f"{endpoint}.{each.task}"),
                name=_clean(each.name),
                time="0",
            )
            if each.passed:
                ElementTree.SubElement(case, "system-out").text = _clean(each.message)
            else:
                ElementTree.SubElement(case, "failure", message=_clean(each.message)).text = _clean(
                    each.message
                )
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"
    with file_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():  # a pipe or a device: nothing takes its place
            path.write_text(text, encoding="utf-8")
        else:
            with replacing(path.resolve()) as unfinished:
                unfinished.write_text(text, encoding="utf-8")


def append_summary(path: Path, findings: Findings, checks: Sequence[Check]) -> None:
    """Append the gate's Markdown summary to a file, as `$GITHUB_STEP_SUMMARY` asks.

    Raises:
        StoreError: the file cannot be written.
    """
    with file_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write("\n".join(summary(findings, checks)) + "\n")


def summary(findings: Findings, checks: Sequence[Check]) -> Iterator[str]:
    """The gate's verdict, its failed checks, and the comparison: lines of GitHub-flavoured Markdown."""
    failed = [each for each in checks if not each.passed]
    yield f"## forced-choice gate: {'passed' if passed(checks) else 'failed'}"
    yield ""
    baseline = markdown_safe(findings.labels[0])
    yield f"{len(checks) - len(failed)} of {len(checks)} checks passed against {baseline}."
    for each in failed:
        yield "- :x: " + ": ".join(map(markdown_safe, (each.endpoint, each.name, each.message)))
    yield ""
    yield markdown(findings)


def _totals(checks: Sequence[Check]) -> dict[str, str]:
    failures = sum(not each.passed for each in checks)
    return {"tests": str(len(checks)), "failures": str(failures), "errors": "0", "time": "0"}


def _clean(text: str) -> str:
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
