"""The most memory that work takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedpeft.compare import peak
from fedpeft.compare.children import forked


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux counts it")
def test_what_work_holds_for_a_moment_is_counted_and_what_was_there_is_not() -> None:
    def job() -> dict[str, float | None]:
        kept = np.ones(10_000_000)  # 80 MB that are not the work's

        def work() -> float:
            return float(np.ones(5_000_000).sum()) + float(kept[0])

        return {"mb": peak.peak_mb(work)[1]}

    found = forked(job)["mb"]
    assert found is not None and 36 < found < 60


def test_where_the_platform_cannot_tell_there_is_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak, "_CLEAR", Path("/no/such/file"))
    assert peak.peak_mb(lambda: 7) == (7, None)
