"""The verdict as JUnit XML, which every CI system reads: one test case per check."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

from tfkd.report import words

# XML 1.0 has no way to write these, not even escaped.
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render(record: Mapping[str, Any]) -> str:
    """A check that is broken is a failure; one that is unknown is an error, so that a CI run does not pass on it."""
    verdict = record["verdict"]
    checks = verdict["checks"]
    model = _clean(record["ship"] or "model")
    kinds = {"broken": "failure", "unknown": "error"}
    counts = {f"{kind}s": str(sum(check["status"] == status for check in checks)) for status, kind in kinds.items()}
    attributes = {"name": "tfkd contract", "tests": str(len(checks)), **counts, "skipped": "0"}
    root = ElementTree.Element("testsuites", attributes)
    suite = ElementTree.SubElement(root, "testsuite", attributes)
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in (("verdict", verdict["status"] or "no contract"), ("binding", verdict["binding"] or "none")):
        ElementTree.SubElement(properties, "property", {"name": name, "value": _clean(value)})
    for check in checks:
        case = ElementTree.SubElement(suite, "testcase", {"classname": f"tfkd.{model}", "name": check["name"]})
        text = _clean(f"{words.LABELS[check['name']]}: {words.finding(check)}")
        if check["status"] in kinds:
            ElementTree.SubElement(case, kinds[check["status"]], {"message": text, "type": check["status"]}).text = text
        else:
            ElementTree.SubElement(case, "system-out").text = text
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=False).join(
        ('<?xml version="1.0" encoding="UTF-8"?>\n', "\n")
    )


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
