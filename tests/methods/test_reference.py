"""The page of methods is the one the code writes, and every promised method is on it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fedpeft.adapters.partition import PARTITIONS
from fedpeft.methods.method import Algebra, known_methods
from fedpeft.methods.reference import reference

PAGE = Path(__file__).parents[2] / "docs" / "methods.md"
PROMISED = [
    "lora",
    "adalora",
    "qlora",
    "houlsby",
    "pfeiffer",
    "parallel_adapter",
    "adapter_fusion",
    "compacter",
    "prefix_tuning",
    "p_tuning",
    "p_tuning_v2",
    "prompt_tuning",
    "bitfit",
    "diff_pruning",
    "ia3",
    "vera",
    "fed_sb",
    "unipelt",
    "lora_prompt",
    "lora_prefix",
    "adapter_lora",
    "prompt_adapter",
    "expert_mixture",
]


@pytest.fixture(scope="module")
def page() -> str:
    return reference()


def row(page: str, name: str) -> list[str]:
    line = re.findall(rf"^\| `{name}` \|.*$", page, re.MULTILINE)[0]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_page_is_the_one_the_code_writes(page):
    assert PAGE.read_text(encoding="utf-8") == page, "python -m fedpeft.methods.reference > docs/methods.md"


@pytest.mark.parametrize("name", PROMISED)
def test_a_promised_method_is_there(name):
    assert name in known_methods()


@pytest.mark.parametrize("name", sorted(known_methods()))
def test_a_method_says_what_it_is_in_one_line_each(name, page):
    method = known_methods()[name]
    cells = row(page, name)
    assert len(cells) == 7
    assert all(cells)
    assert cells[3].startswith(method.algebra)
    assert cells[4] == ("yes" if method.mergeable else "no")
    assert re.search(r"\d{4}, arXiv:\d{4}\.\d{5}", cells[2])
    assert (method.__doc__ or "").splitlines()[0].endswith(".")
    for field in method.model_fields.values():
        assert field.description


def test_methods_of_one_algebra_stand_together(page):
    names = re.findall(r"^\| `(\w+)` \| .* \| (?:yes|no) \|", page, re.MULTILINE)
    order = [list(Algebra).index(known_methods()[name].algebra) for name in names]
    assert order == sorted(order)
    assert sorted(names) == sorted(known_methods())


def test_a_bar_in_an_equation_does_not_end_its_cell(page):
    tables = [line for line in page.splitlines() if line.startswith("|")]
    widths = {line.count("|") for line in tables}
    assert widths == {columns + 1 for columns in (7, 5, 4, 2)}


def test_every_partition_and_algebra_is_explained(page):
    assert all(f"\n| `{name}` | " in page for name in PARTITIONS)
    assert all(f"\n| {algebra} | " in page for algebra in Algebra)


def test_partitions_are_offered_where_both_sides_have_a_tensor(page):
    (line,) = re.findall(r"These have them:\n\n(.*)\.\n", page)
    divided = set(re.findall(r"`(\w+)`", line))
    assert {"lora", "lora_prompt", "lora_prefix"} <= divided
    assert not divided & {"vera", "prompt_tuning", "houlsby"}
