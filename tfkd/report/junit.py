"""The verdict as JUnit XML, which every CI system reads: one test case per check."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from tfkd._internal.types import JsonRecord
from tfkd.report import words
from tfkd.validation.contract import LABELS

# Characters that XML 1.0 cannot contain, even escaped.
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# An unknown check is an error, so that a CI run does not pass on it.
_ELEMENTS = {"broken": "failure", "unknown": "error"}


def render(record: JsonRecord) -> str:
    """The JUnit report of a validation. Broken checks are failures, unknown checks are errors."""
    verdict = record["verdict"]
    checks = verdict["checks"]
    model = _clean(record["ship"] or "model")
    counts = {
        f"{element}s": str(sum(check["status"] == status for check in checks)) for status, element in _ELEMENTS.items()
    }
    attributes = {"name": "tfkd contract", "tests": str(len(checks)), **counts, "skipped": "0"}
    root = ElementTree.Element("testsuites", attributes)
    suite = ElementTree.SubElement(root, "testsuite", attributes)
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in (("verdict", verdict["status"] or "no contract"), ("binding", verdict["binding"] or "none")):
        ElementTree.SubElement(properties, "property", {"name": name, "value": _clean(value)})
    for check in checks:
        case = ElementTree.SubElement(suite, "testcase", {"classname": f"tfkd.{model}", "name": check["name"]})
        text = _clean(f"{LABELS[check['name']]}: {words.finding(check)}")
        element, status = _ELEMENTS.get(check["status"]), check["status"]
        if element:
            ElementTree.SubElement(case, element, {"message": text, "type": status}).text = text
        else:
            ElementTree.SubElement(case, "system-out").text = text
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
