"""Pooled examples: joined, padded, sampled by the seed."""

from __future__ import annotations

import numpy as np
import pytest

from fedpeft.compare.pool import Pool, open_pool, pooled, rows_of, sample
from fedpeft.data.examples import Examples
from fedpeft.data.windows import Windows
from fedpeft.errors import ScenarioError
from tests.compare.conftest import tiny


def windows(count: int) -> Windows:
    ids = np.arange(count * 4, dtype=np.int32).reshape(count, 4)
    return Windows(ids, ids)


def examples(count: int, width: int, last: int = 5) -> Examples:
    ids = np.ones((count, width), np.int32)
    return Examples(ids, ids.astype(bool), np.zeros(count, np.int64), 0, last)


def test_everybodys_examples_follow_each_other() -> None:
    joined = pooled([windows(2), windows(0), windows(3)])
    assert len(joined) == 5


def test_shorter_texts_are_padded_and_their_masks_with_them() -> None:
    joined = pooled([examples(2, 3), examples(1, 5)])
    assert isinstance(joined, Examples)
    assert joined.ids.shape == (3, 5)
    assert joined.mask.sum() == 2 * 3 + 5


def test_clients_of_different_tasks_are_not_pooled() -> None:
    with pytest.raises(ScenarioError, match="one data set at a time"):
        pooled([examples(1, 3), examples(1, 3, last=9)])


def test_a_smaller_share_is_part_of_a_larger_one_and_chance_hangs_on_the_seed() -> None:
    pool = Pool(None, windows(100), windows(1), windows(1), ("a",))  # type: ignore[arg-type]

    def first(share: float, seed: int) -> set[int]:
        part = pool.share(share, seed)
        assert isinstance(part, Windows)
        return set(part.ids[:, 0].tolist())

    assert first(0.1, 0) < first(0.5, 0) < first(1.0, 0)
    assert len(first(0.1, 0)) == 10
    assert first(0.1, 0) != first(0.1, 1)


def test_a_sample_keeps_rows_whole() -> None:
    some = sample(windows(50), 7, 0, "test")
    assert isinstance(some, Windows)
    assert len(some) == 7
    assert (some.ids[:, 1] == some.ids[:, 0] + 1).all()
    assert rows_of(windows(3), np.array([2])).ids[0, 0] == 8  # type: ignore[attr-defined]


def test_a_scenarios_clients_are_pooled_and_its_test_text_is_limited() -> None:
    pool = open_pool(tiny(), scored=20)
    assert len(pool.clients) == 3
    assert len(pool.train) == 3 * 32
    assert len(pool.test) == len(pool.validation) == 20
    assert pool.metric == "top3"
