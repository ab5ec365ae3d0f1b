"""Tables of emulated microcontrollers: what a model costs on each, and the firmware against the board."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tfkd._internal.types import JsonObject, JsonRecord
from tfkd.report import words


def row(record: JsonRecord) -> JsonObject:
    """A row with the results of an emulated microcontroller.

    Args:
        record: Row of a validation whose measurement counted instructions.
    """
    measured, environment = record["measurement"], record["measurement"]["environment"]
    estimate, board = measured["estimated_ms"], environment["board"]
    return {
        **record,
        "instructions": words.millions(measured["instructions"]),
        "removed": environment.get("removed"),
        "ram": words.size(measured["memory"]["ram_bytes"]),
        "stack": words.size(measured["memory"]["stack_bytes"]),
        "of_ram": words.percent(measured["memory"]["ram_bytes"] / board["ram_bytes"]),
        "flash": words.size(measured["memory"]["flash_bytes"]),
        "code": words.size(environment["code_bytes"]),
        "of_flash": words.percent(measured["memory"]["flash_bytes"] / board["flash_bytes"]),
        "board": board["name"],
        "estimate": f"{words.ms(estimate[0])} to {words.ms(estimate[1])}" if estimate else words.NONE,
        "clock": f"at {board['clock_hz'] / 1e6:g} MHz" if board["clock_hz"] else "clock unknown",
        "classes": ", ".join(
            f"{name} {words.percent(count / measured['instructions'], 0)}"
            for name, count in environment["classes"].items()
        ),
    }


def firmware(record: JsonRecord) -> JsonObject:
    """The table "your firmware": features, model and decoder together against the board.

    The three run one after the other, so that the deepest of their stacks is that of all.

    Args:
        record: Row of a validation whose measurement counted instructions.

    Returns:
        `title`, `note`, and `lines` of a label and the cells flash, RAM, stack and instructions. Unknown numbers are a
        dash.
    """
    measured = record["measurement"]
    memory, environment = measured["memory"], measured["environment"]
    board, decoder, features = (environment.get(name) for name in ("board", "decoder", "features"))
    parts: list[tuple[str, list[int | None]]] = []
    if features:
        label = f"{features['kind'].replace('_', '-')} features of {features['rows']} frames"
        parts.append((label, [features[name] for name in _PART]))
    sizes = [memory[name] for name in ("flash_bytes", "arena_bytes", "stack_bytes")]
    parts.append(("Model", [*sizes, measured["instructions"]]))
    if decoder:
        parts.append(("Decoder (largest output)", [{"ram_bytes": 0, **decoder}.get(name) for name in _PART]))
    columns = list(zip(*(cells for _, cells in parts), strict=True))
    flash, ram, instructions = (_combined(sum, columns[i]) for i in (0, 1, 3))
    stack = _combined(max, columns[2])
    parts.append(("Together", [flash, ram, stack, instructions]))
    parts.append((f"Board {board['name']}", [board["flash_bytes"], board["ram_bytes"], None, None]))
    lines = [(label, *(words.NONE if cell is None else f"{cell:,}" for cell in cells)) for label, cells in parts]
    of_ram = None if ram is None or stack is None else (ram + stack) / board["ram_bytes"]
    used = words.NONE if of_ram is None else f"{words.percent(of_ram)} with the stack"
    of_flash = words.NONE if flash is None else words.percent(flash / board["flash_bytes"])
    lines.append(("Used of the board", of_flash, used, words.NONE, words.NONE))
    note = "Without what reads the sensor." if features else "Without what reads the sensor and computes features."
    if refusal := environment.get("features_refusal"):
        note += f" The C of the features was left out: {refusal}"
    return {"title": f"{record['name']} on {record['target']}", "note": note, "lines": lines}


def _combined(combine: Callable[[list[int]], int], cells: Sequence[int | None]) -> int | None:
    """The sum or the largest of some numbers; None where one is unknown."""
    known = [cell for cell in cells if cell is not None]
    return combine(known) if len(known) == len(cells) else None


_PART = ("flash_bytes", "ram_bytes", "stack_bytes", "instructions")
