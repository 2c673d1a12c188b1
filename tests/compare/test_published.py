"""What is published is what `advise` rests on and what the docs print."""

from pathlib import Path

import pytest

MEASURED = Path(__file__).parents[2] / "fedpeft" / "compare" / "measured"


@pytest.mark.parametrize("name", ["keyboard", "intents"])
def test_the_docs_and_the_advice_rest_on_the_published_comparison(name: str, repository: Path) -> None:
    published = repository / "simulations" / "published" / f"compare-{name}"
    assert (MEASURED / f"compare-{name}.json").read_bytes() == published.with_suffix(".json").read_bytes()
    table = published.with_suffix(".md").read_text().splitlines()
    said = (repository / "docs" / "compare.md").read_text().splitlines()
    assert table[2] in said
    start = said.index(table[2]) + 2
    shown = said[start : said.index("", start)]
    assert len(shown) > 6
    assert set(shown) <= set(table)
