"""The table of ops and accelerators for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tfkd._internal.types import JsonRecord

_UNKNOWN = "unknown"


def table(estimates: Sequence[JsonRecord]) -> str:
    """A row for each kind of op with the number of those that each accelerator takes, and a line for each accelerator.

    Args:
        estimates: See `tfkd.targets.npu.Estimate.to_json`.
    """
    known = [one for one in estimates if one["ops"] is not None]
    totals = Counter(op["op"] for op in known[0]["ops"]) if known else Counter[str]()
    labels = [one["label"] for one in estimates]
    width = max([12, *map(len, totals)])
    lines = [f"{'estimated':<{width}} {'ops':>4}  " + "  ".join(f"{label:>9}" for label in labels)]
    for name, count in sorted(totals.items()):
        cells = [f"{_cell(one, name, count):>{max(9, len(one['label']))}}" for one in estimates]
        lines.append(f"{name:<{width}} {count:>4}  " + "  ".join(cells))
    shares = [f"{_share(one):>{max(9, len(one['label']))}}" for one in estimates]
    lines.append(f"{'share of MACs':<{width}} {'':>4}  " + "  ".join(shares))
    return "\n".join([*lines, "", *map(_line, estimates)])


def _cell(one: JsonRecord, name: str, count: int) -> str:
    """How many ops of a name run on an accelerator."""
    if one["ops"] is None:
        return "?"
    there = sum(op["op"] == name and op["runs_there"] for op in one["ops"])
    return "yes" if there == count else "no" if there == 0 else f"{there} of {count}"


def _share(one: JsonRecord) -> str:
    return "?" if one["mac_share"] is None else f"{100 * one['mac_share']:.0f} %"


def _line(one: JsonRecord) -> str:
    """What breaks the graph of one accelerator, and where the answer comes from."""
    if one["unknown"]:
        return f"{one['label']}: {_UNKNOWN}. {one['unknown']}"
    broken = one["first_break"]
    numbers = "".join(
        f", {one[name]:,} {unit}" for name, unit in (("cycles", "cycles"), ("sram_bytes", "bytes of SRAM")) if one[name]
    )
    source = f"{'compiler,' if 'vela' in one['source'] else 'list of'} {one['date']}"
    if broken is None:
        return f"{one['label']}: takes all ops{numbers}, by its {source}."
    where = f" ({broken['tensor']})" if broken["tensor"] else ""
    refused = f"{one['label']}: first refuses {broken['op']}{where}: {broken['reason']}"
    return f"{refused}{numbers}, by its {source}. {broken['remedy']}"
