"""Tables of emulated microcontrollers: what a model costs on each, and the firmware against the board."""

from __future__ import annotations

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
    """The table "your firmware": model and decoder together against the board.

    Args:
        record: Row of a validation whose measurement counted instructions.

    Returns:
        `title`, and `lines` of a label and the cells flash, RAM, stack and instructions. Unknown numbers are a dash.
    """
    measured = record["measurement"]
    memory, board = measured["memory"], measured["environment"]["board"]
    decoder = measured["environment"].get("decoder")
    flash = memory["flash_bytes"] + (decoder["flash_bytes"] if decoder else 0)
    instructions = measured["instructions"] + (decoder["instructions"] if decoder else 0)
    parts = [("Model", memory["flash_bytes"], memory["arena_bytes"], memory["stack_bytes"], measured["instructions"])]
    if decoder:
        parts.append(("Decoder (largest output)", decoder["flash_bytes"], None, None, decoder["instructions"]))
    parts.append(("Together", flash, memory["arena_bytes"], memory["stack_bytes"], instructions))
    parts.append((f"Board {board['name']}", board["flash_bytes"], board["ram_bytes"], None, None))
    lines = [(label, *(words.NONE if cell is None else f"{cell:,}" for cell in cells)) for label, *cells in parts]
    shares = (flash / board["flash_bytes"], memory["ram_bytes"] / board["ram_bytes"])
    used = f"{words.percent(shares[1])} with the stack"
    lines.append(("Used of the board", words.percent(shares[0]), used, words.NONE, words.NONE))
    return {"title": f"{record['name']} on {record['target']}", "lines": lines}
