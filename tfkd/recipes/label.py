"""The work of `tfkd label`: a store of teacher logits filled or verified."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tfkd import data, models
from tfkd.data import crop_flip
from tfkd.distillation.labels.store import SoftLabels
from tfkd.errors import InputError


def label(
    out: str,
    teacher: Path,
    source: str,
    augment: Mapping[str, Any],
    *,
    shard: str = "0/1",
    verify: bool = False,
    on_chunk: Callable[[int, int], None] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Labels the train split of a data set, or verifies its labels.

    Args:
        out: the store.
        teacher: a `.keras` file.
        source: what `tfkd.data.load` takes.
        augment: `kind` (none or crop_flip), `padding` and `flip`.
        shard: `i/n`, see `SoftLabels.build`.
        verify: label a random sample again and compare instead.
        on_chunk: called with (chunks done, chunks in all).
        **options: `views`, `batch_size` and `seed` of `SoftLabels.build`.

    Returns:
        path, views, missing (chunks), and summary, a sentence.
    """
    parts = re.fullmatch(r"(\d+)/(\d+)", shard)
    if parts is None:
        raise InputError(f"label: shard must be i/n, such as 0/3. Received: {shard!r}.")
    model, train = models.load(teacher), data.load(source).train
    changed = crop_flip(augment["padding"], flip=augment["flip"]) if augment["kind"] == "crop_flip" else None
    if verify:
        store = SoftLabels.open(out)
        worst = store.verify(model, train, augment=changed if store.views > 1 else None)
        summary = f"{out}: a random sample was labelled again; the largest divergence is {worst:.2g}"
    else:
        store = SoftLabels.build(
            out,
            model,
            train,
            augment=changed if options.get("views", 1) > 1 else None,
            shard=(int(parts[1]), int(parts[2])),
            progress=on_chunk,
            **options,
        )
        missing = store.missing
        summary = f"{out}: {store.views} views of {len(train)} samples" + (
            f", {missing} chunks missing" if missing else ""
        )
    return {"path": out, "views": store.views, "missing": store.missing, "summary": summary}
