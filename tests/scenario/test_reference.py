"""The reference page of the scenario file leaves nothing out."""

import pytest
from pydantic import BaseModel

from fedpeft.methods.lora import Lora
from fedpeft.scenario import Scenario
from fedpeft.scenario.reference import reference

PAGE = reference().splitlines()


def tables(model: type[BaseModel], path: str = "") -> dict[str, type[BaseModel]]:
    """Return every table of a scenario by its dotted name."""
    found = {path: model}
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= tables(field.annotation, f"{path}.{name}".strip("."))
    return found


@pytest.mark.parametrize("path", sorted(tables(Scenario)))
def test_every_table_and_every_key_is_described(path):
    if path:
        assert any(line.startswith((f"## `[{path}]`", f"`[{path}]`: ")) for line in PAGE)
    for name, field in tables(Scenario)[path].model_fields.items():
        assert field.description
        if f"{path}.{name}".strip(".") not in {*tables(Scenario), "method"}:
            assert any(line.startswith(f"| `{name}` |") and line.endswith(f"| {field.description} |") for line in PAGE)


def test_every_method_has_a_section_with_its_defaults():
    start = PAGE.index('## `[method]` with `name = "lora"`')
    section = PAGE[start : start + 12]
    for name, field in Lora.model_fields.items():
        assert any(line.startswith(f"| `{name}` |") and line.endswith(f"{field.description} |") for line in section)
    assert "| `rank` | `8` | Rank r of every adapted matrix. |" in section


def test_a_required_key_says_so():
    assert any(line.startswith("| `name` | required |") for line in PAGE)
