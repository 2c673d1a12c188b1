"""Finished pieces on disk: what is whole is kept, what was cut short is not, what is another's is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedpeft.compare.store import Store
from fedpeft.errors import RunError

KEY = {"seed": 0}


def test_a_piece_is_there_for_the_next_run_with_the_same_settings(tmp_path: Path) -> None:
    Store(tmp_path / "a.jsonl", KEY).put("lora/1.0", {"rank": 8}, {"loss": 3.0})
    again = Store(tmp_path / "a.jsonl", KEY)
    assert again.get("lora/1.0", {"rank": 8}) == {"loss": 3.0}
    assert again.get("lora/1.0", {"rank": 4}) is None
    assert again.get("lora/0.1", {"rank": 8}) is None


def test_a_failure_is_tried_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "a.jsonl", KEY)
    store.put("lora/1.0", {}, {"failed": "failed", "reason": "no memory"})
    assert store.get("lora/1.0", {}) is None
    store.put("lora/1.0", {}, {"loss": 1.0})
    assert Store(tmp_path / "a.jsonl", KEY).get("lora/1.0", {}) == {"loss": 1.0}


def test_a_line_that_was_cut_short_is_left_out_and_the_file_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    store = Store(path, KEY)
    store.put("a", {}, {"x": 1})
    store.put("b", {}, {"x": 2})
    path.write_text(path.read_text()[:-9])
    cut = Store(path, KEY)
    assert cut.get("a", {}) == {"x": 1} and cut.get("b", {}) is None
    cut.put("b", {}, {"x": 3})
    assert Store(path, KEY).get("b", {}) == {"x": 3}


def test_another_comparison_and_other_files_are_refused(tmp_path: Path) -> None:
    Store(tmp_path / "a.jsonl", KEY)
    with pytest.raises(RunError, match="take another --out"):
        Store(tmp_path / "a.jsonl", {"seed": 1})
    (tmp_path / "b.jsonl").write_text("something else\n")
    with pytest.raises(RunError, match="lines that compare wrote"):
        Store(tmp_path / "b.jsonl", KEY)
