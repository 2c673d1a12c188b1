"""The reference of the scenario file, written from the fields themselves: ``python -m fedpeft.scenario.reference``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from fedpeft.methods.method import METHODS, known_methods, table_of
from fedpeft.scenario.model import Scenario

_HEAD = """\
# The scenario file

One TOML file names everything that decides a run's numbers. Unknown keys, wrong types and combinations that cannot work
are refused with one line. `fedpeft simulate FILE --set table.key=value` changes a field; where a file means one of two,
`steps` or `epochs`, `seed` or `seeds`, the one that is set stays. This page is written from the code by
`python -m fedpeft.scenario.reference`.
"""


def reference() -> str:
    """Return the reference as Markdown."""
    known_methods()
    plain = {n: f for n, f in Scenario.model_fields.items() if table_of(f.annotation) is None and n != "method"}
    parts = [_HEAD, _section("Top level", plain), *_tables(Scenario, "", set())]
    for name, method in sorted(METHODS.items()):
        heading = f'`[method]` with `name = "{name}"`'
        parts.append(_section(heading, method.model_fields, (method.__doc__ or "").splitlines()[0]))
        # A hybrid's parts are methods with sections of their own.
        parts += _tables(method, "method.", set(METHODS.values()))
    return "\n".join(parts)


def _tables(model: type[BaseModel], prefix: str, shown: set[type[BaseModel]]) -> Iterator[str]:
    """Yield a section for every table below a model; of one that was shown already, a line that says so."""
    for name, field in model.model_fields.items():
        table, path = table_of(field.annotation), f"{prefix}{name}"
        if table is None:
            continue
        if table in shown:
            yield f"`[{path}]`: {field.description}\n"
            continue
        shown.add(table)
        optional = "" if field.default_factory or field.is_required() else "Optional. "
        title = f"[[{path}]]" if get_origin(field.annotation) is list else f"[{path}]"
        yield _section(f"`{title}`", table.model_fields, f"{optional}{field.description}")
        yield from _tables(table, f"{path}.", shown)


def _section(heading: str, fields: dict[str, FieldInfo], text: str | None = "") -> str:
    rows = [
        f"| `{name}` | {_default(field)} | {field.description} |"
        for name, field in fields.items()
        if table_of(field.annotation) is None
    ]
    lines = [f"## {heading}", ""]
    if text:
        lines += [text, ""]
    if rows:
        lines += ["| key | default | meaning |", "| --- | --- | --- |", *rows, ""]
    return "\n".join(lines)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value: Any = field.get_default(call_default_factory=True)
    # As TOML writes it, whose plain values are JSON's.
    return "" if value is None else f"`{json.dumps(value, ensure_ascii=False)}`"


if __name__ == "__main__":
    print(reference(), end="")
