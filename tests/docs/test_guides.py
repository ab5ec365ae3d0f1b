"""The guide to stored teacher logits works as it is written."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import tfkd

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "stored_labels.md"


def test_logits_of_any_framework_are_stored(tmp_path):
    (code,) = re.findall(r"^```python\n(.*?)^```$", GUIDE.read_text(), re.DOTALL | re.MULTILINE)
    child = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert child.returncode == 0, child.stderr[-4000:]
    store = tfkd.SoftLabels.open(tmp_path / "labels")
    assert store.missing == 0
    assert store.read(store.ids).shape == (len(store.ids), 10)
