"""The reference of the scenario file, written from the fields themselves: ``python -m fedpeft.scenario.reference``."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from fedpeft.methods.method import METHODS, known_methods
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
    plain = {n: f for n, f in Scenario.model_fields.items() if _table(f) is None and n != "method"}
    parts = [_HEAD, _section("Top level", plain)]
    for name, field in Scenario.model_fields.items():
        model = _table(field)
        if model is not None:
            parts.append(_section(f"`[{name}]`", model.model_fields, field.description))
            for inner, inner_field in model.model_fields.items():
                nested = _table(inner_field)
                if nested is not None:
                    parts.append(f"`[{name}.{inner}]`: {inner_field.description}\n")
    for name, method in sorted(METHODS.items()):
        heading = f'`[method]` with `name = "{name}"`'
        parts.append(_section(heading, method.model_fields, (method.__doc__ or "").splitlines()[0]))
    return "\n".join(parts)


def _section(heading: str, fields: dict[str, FieldInfo], text: str | None = "") -> str:
    rows = [
        f"| `{name}` | {_default(field)} | {field.description} |"
        for name, field in fields.items()
        if _table(field) is None
    ]
    lines = [f"## {heading}", ""]
    if text:
        lines += [text, ""]
    return "\n".join([*lines, "| key | default | meaning |", "| --- | --- | --- |", *rows, ""])


def _table(field: FieldInfo) -> type[BaseModel] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value: Any = field.get_default(call_default_factory=True)
    return "" if value is None else f"`{value!r}`".replace("'", '"')


if __name__ == "__main__":
    print(reference(), end="")
