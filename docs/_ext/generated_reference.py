"""Writes the pages that follow from the code: commands, recipe keys, losses, models, boards, operators.

The pages are written into `docs/reference/generated/` before each build and are not kept in git.
"""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pydantic
from sphinx.application import Sphinx

FOLDER = Path(__file__).parents[1] / "reference" / "generated"


def setup(app: Sphinx) -> dict[str, Any]:
    """Registers the extension."""
    app.connect("builder-inited", lambda _: write())
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def write() -> None:
    """Writes every generated page whose text changed, so that Sphinx rebuilds only those."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    pages = {
        "commands": commands,
        "recipe": recipe,
        "losses": losses,
        "models": models,
        "boards": boards,
        "c_operators": c_operators,
    }
    for name, make in pages.items():
        path, text = FOLDER / f"{name}.md", "\n".join(make()) + "\n"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(_cell(value) for value in row) + " |"
    yield ""


def _cell(value: Any) -> str:
    text = " ".join(str(value).split())
    return text.replace("|", "\\|").replace("<", "&lt;")


def commands() -> Iterator[str]:
    """One section for each command: its help, arguments and options, as `--help` prints them."""
    import typer.main

    from tfkd.cli import app

    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        yield f"## tfkd {name}\n"
        yield from _command_help(inspect.cleandoc(command.help or ""))
        rows = []
        for parameter in command.params:
            if parameter.param_type_name == "option":
                if parameter.name == "help":
                    continue
                names = ", ".join(f"`{one}`" for one in (*parameter.opts, *parameter.secondary_opts))
                default = _default(parameter)
                rows.append((names, parameter.help or "", default))
            else:
                text = getattr(parameter, "help", None) or ""
                rows.append((f"`{parameter.name}`", text, "required"))
        yield from _table(("Argument or option", "Meaning", "Default"), rows)


def _command_help(text: str) -> Iterator[str]:
    for line in text.splitlines():
        yield re.sub(r"^((?:Example|Then|Or): )?(tfkd .*)$", r"\1`\2`", line)
    yield ""


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    value = parameter.default
    if callable(value) or value is None or value == () or value == []:
        return "–"
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"`{', '.join(map(str, value)) if isinstance(value, list | tuple) else value}`"


def recipe() -> Iterator[str]:
    """One section for each table of a recipe, from its schema."""
    from tfkd.recipes.recipe import Recipe

    plain = []
    for name, field in Recipe.model_fields.items():
        table = _section_of(field.annotation)
        if table is None:
            plain.append(_key(name, field))
    yield "## Keys outside of tables\n"
    yield from _table(("Key", "Type", "Default", "Meaning"), plain)
    yield from _tables(Recipe, "")


def _tables(section: type[pydantic.BaseModel], prefix: str) -> Iterator[str]:
    for name, field in section.model_fields.items():
        table = _section_of(field.annotation)
        if table is None:
            continue
        yield f"## `[{prefix}{name}]`\n"
        yield (inspect.getdoc(table) or "").split("\n\n")[0].split("Args:")[0] + "\n"
        rows = [_key(key, one) for key, one in table.model_fields.items() if _section_of(one.annotation) is None]
        yield from _table(("Key", "Type", "Default", "Meaning"), rows)
        yield from _tables(table, f"{prefix}{name}.")


def _section_of(annotation: Any) -> type[pydantic.BaseModel] | None:
    """The table that an annotation such as `Table`, `Table | None` or `list[Table]` stands for."""
    for one in (annotation, *typing.get_args(annotation)):
        if inspect.isclass(one) and issubclass(one, pydantic.BaseModel):
            return one
    return None


def _key(name: str, field: Any) -> tuple[str, str, str, str]:
    default = field.get_default(call_default_factory=True)
    default = "required" if field.is_required() else "–" if default is None else f"`{default!r}`"
    return f"`{name}`", _type_name(field.annotation), default, field.description or ""


def _type_name(annotation: Any) -> str:
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type_name(args[0])
    if origin is typing.Literal:
        return " or ".join(f"`{value!r}`" for value in args)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type_name(one) for one in args if one is not type(None))
    if origin is typing.Annotated:
        return _type_name(args[0])
    if origin is list:
        return f"list of {_type_name(args[0])}"
    if origin is dict:
        return "table"
    return {str: "text", int: "integer", float: "number", bool: "true or false"}.get(annotation, str(annotation))


def losses() -> Iterator[str]:
    """The losses on outputs by the name that recipes and the command line use."""
    from tfkd import losses

    rows = [(f"`{name}`", f"`tfkd.losses.{kind.__name__}`", _summary(kind)) for name, kind in losses.NAMES.items()]
    yield from _table(("Name", "Class", "Summary"), rows)


def models() -> Iterator[str]:
    """The builders of `tfkd.models`."""
    from tfkd import models

    rows = [(f"`{name}`", _summary(getattr(models, name))) for name in models.NAMES]
    yield from _table(("Name", "Summary"), rows)


def boards() -> Iterator[str]:
    """The table of boards with their flash, RAM and clock."""
    from tfkd.targets.cortex_m import boards

    rows = [
        (
            f"`{board.name}`",
            f"`{board.core}`" if board.core else "any",
            f"{board.flash_bytes:,}",
            f"{board.ram_bytes:,}",
            f"{board.clock_hz / 1e6:g} MHz" if board.clock_hz else "–",
            board.source,
        )
        for board in boards().values()
    ]
    yield from _table(("Board", "Core", "Flash, bytes", "RAM, bytes", "Clock", "Source"), rows)


def c_operators() -> Iterator[str]:
    """The operators that `tfkd export-c` generates code for."""
    from tfkd.micro import lowering

    yield ", ".join(f"`{name}`" for name in sorted(lowering.OPS)) + "."


def _summary(thing: Any) -> str:
    return (inspect.getdoc(thing) or "").split("\n\n")[0]
