"""The reference page of the scenario file leaves nothing out."""

import tomllib

import pytest
from pydantic import BaseModel

from fedpeft.methods.lora import Lora
from fedpeft.methods.method import table_of
from fedpeft.scenario import Scenario
from fedpeft.scenario.reference import reference

PAGE = reference().splitlines()


def tables(model: type[BaseModel], path: str = "") -> dict[str, type[BaseModel]]:
    """Return every table of a scenario by its dotted name."""
    found = {path: model}
    for name, field in model.model_fields.items():
        table = table_of(field.annotation)
        if table is not None:
            found |= tables(table, f"{path}.{name}".strip("."))
    return found


def test_tables_are_found_at_every_depth_optional_or_not():
    assert {"task", "training", "training.augmentation", "personalization.training.distillation"} <= set(
        tables(Scenario)
    )


@pytest.mark.parametrize("path", sorted(tables(Scenario)))
def test_every_table_and_every_key_is_described(path):
    if path and not path.startswith("personalization.training."):
        assert any(line.startswith((f"## `[{path}]`", f"## `[[{path}]]`", f"`[{path}]`: ")) for line in PAGE)
    for name, field in tables(Scenario)[path].model_fields.items():
        assert field.description
        if f"{path}.{name}".strip(".") not in {*tables(Scenario), "method"}:
            assert any(line.startswith(f"| `{name}` |") and line.endswith(f"| {field.description} |") for line in PAGE)


def test_every_method_has_a_section_with_its_defaults():
    start = PAGE.index('## `[method]` with `name = "lora"`')
    section = PAGE[start : PAGE.index(next(line for line in PAGE[start + 1 :] if line.startswith("## ")))]
    for name, field in Lora.model_fields.items():
        assert any(line.startswith(f"| `{name}` |") and line.endswith(f"{field.description} |") for line in section)
    assert any(line.startswith("| `rank` | `8` | Rank r of every adapted matrix") for line in section)


def test_a_required_key_says_so():
    assert any(line.startswith("| `name` | required |") for line in PAGE)


def test_a_table_that_may_be_left_out_says_so_and_one_with_known_keys_is_not_written_twice():
    at = PAGE.index("## `[training.augmentation]`")
    assert PAGE[at + 2].startswith("Optional. ")
    assert not PAGE[PAGE.index("## `[training]`") + 2].startswith("Optional")
    assert "`[personalization.training]`: How the private adapter is trained; the keys of [training]." in PAGE
    assert sum(line.startswith("| `learning_rate` | `0.001` |") for line in PAGE) == 1


def test_defaults_are_written_as_a_scenario_would_write_them():
    rows = [line.split(" | ")[1] for line in PAGE if line.startswith("| `") and line.count(" | ") >= 2]
    for value in {row.strip("`") for row in rows} - {"required", ""}:
        tomllib.loads(f"value = {value}")


def test_the_page_in_the_documentation_is_this_one(repository):
    """Run `python -m fedpeft.scenario.reference > docs/scenario.md` when it is not."""
    assert (repository / "docs" / "scenario.md").read_text(encoding="utf-8") == reference()
