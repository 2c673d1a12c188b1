"""A comparison of three methods, really run: what is a row, what is not, and what Ctrl-C would leave."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from fedpeft.compare import Comparison
from fedpeft.compare.run import chosen, compare
from fedpeft.errors import RunError, ScenarioError
from tests.compare.conftest import Heard, tiny


def test_a_row_says_what_its_method_trained_weighs_took_and_reached(comparison: Comparison) -> None:
    assert {row.method for row in comparison.rows} == {"full", "ia3", "bitfit"}
    for row in comparison.rows:
        assert row.federates
        assert row.reload_error <= 1e-6
        assert row.federated["after"] < row.federated["before"]
        assert math.isfinite(row.loss)
        assert row.sizes["1.0"].quality == row.quality
        assert row.sizes["0.5"].examples < row.sizes["1.0"].examples
        assert row.share == pytest.approx(row.trainable / 3_541_248)
        assert 0 < row.step_ms < 60_000
        assert row.peak_mb is None or row.peak_mb > 1


def test_bytes_are_those_of_the_ring_and_of_the_file(comparison: Comparison) -> None:
    for row in comparison.rows:
        # Two bytes a number each way, and an envelope below two kilobytes.
        assert 2 * row.trainable < row.bytes_up < 2 * row.trainable + 2000
        assert 2 * row.trainable < row.bytes_down < 2 * row.trainable + 2000
        assert 4 * row.trainable < row.adapter_bytes < 4.2 * row.trainable + 20_000


def test_full_fine_tuning_is_run_though_nobody_asked_and_is_the_measure(comparison: Comparison) -> None:
    full = comparison.by_name["full"]
    assert full.attainment == 1.0 and full.share == 1.0
    ia3 = comparison.by_name["ia3"]
    assert ia3.attainment == pytest.approx(ia3.quality / full.quality)
    assert comparison.reference is not None
    base = comparison.reference.sizes["1.0"]
    if full.quality > base.quality:
        assert ia3.gain_share == pytest.approx((ia3.quality - base.quality) / (full.quality - base.quality))


def test_ia3_is_measured_merged_and_unmerged_and_bitfit_cannot_be_merged(comparison: Comparison) -> None:
    ia3, bitfit = comparison.by_name["ia3"], comparison.by_name["bitfit"]
    assert ia3.merged_ms is not None and ia3.merge_error is not None and ia3.merge_error < 1e-5
    assert bitfit.merged_ms is None


def test_a_method_that_cannot_is_listed_with_its_reason(comparison: Comparison) -> None:
    (failure,) = comparison.failures
    assert (failure.method, failure.kind, failure.stage) == ("lora", "refused", "profile")
    assert "no_such_layer" in failure.reason and "q_proj" in failure.reason
    assert comparison.missing == []


def test_the_file_is_the_comparison_and_reads_back(comparison: Comparison, out: Path) -> None:
    written = json.loads((out / "tiny.json").read_text())
    assert written["format"] == "fedpeft-comparison/1"
    assert Comparison(**written) == comparison


def test_going_on_repeats_no_finished_piece_and_gives_the_same_rows(comparison: Comparison, out: Path) -> None:
    heard = Heard()
    again = compare(
        tiny(name="lora", targets=["no_such_layer"]), ["lora", "ia3", "bitfit"], [0.5, 1.0], None, out, heard, scored=24
    )
    # What failed is tried again, what is finished is not.
    assert heard.pieces == ["lora/profile"]
    assert again == comparison


def test_one_more_method_adds_to_what_is_there(comparison: Comparison, out: Path) -> None:
    heard = Heard()
    broken = tiny(name="lora", targets=["no_such_layer"])
    more = compare(broken, ["ia3", "prompt_tuning"], [0.5, 1.0], None, out, heard, scored=24)
    assert sorted(heard.pieces) == ["prompt_tuning/0.5", "prompt_tuning/1.0", "prompt_tuning/profile"]
    assert {row.method for row in more.rows} == {"full", "ia3", "prompt_tuning"}


def test_another_scenario_may_not_go_on_in_the_same_folder(comparison: Comparison, out: Path) -> None:
    with pytest.raises(RunError, match="another scenario, other sizes or steps"):
        compare(tiny(), ["ia3"], [1.0], out=out)


def test_the_same_seed_gives_the_same_numbers(comparison: Comparison) -> None:
    again = compare(tiny(), ["ia3"], [0.5, 1.0], workers=1, scored=24)
    timed = {"step_ms", "infer_ms", "merged_ms", "peak_mb"}
    for name in ("ia3", "full"):
        assert again.by_name[name].model_dump(exclude=timed) == comparison.by_name[name].model_dump(exclude=timed)


def test_an_unknown_method_ends_before_anything_runs() -> None:
    with pytest.raises(ScenarioError, match="did you mean 'lora'"):
        chosen(tiny(), ["lorra"])
    with pytest.raises(ScenarioError, match="each name once"):
        chosen(tiny(), ["ia3", "ia3"])


@pytest.mark.parametrize("sizes", [[], [0.0], [1.5], [0.5, 0.5]])
def test_shares_of_the_data_lie_above_0_and_up_to_1(sizes: list[float]) -> None:
    with pytest.raises(ScenarioError, match="--sizes"):
        compare(tiny(), ["ia3"], sizes)


def test_a_scenarios_own_settings_hold_for_its_own_method() -> None:
    found = chosen(tiny(name="lora", rank=2, alpha=4.0), ["lora", "ia3"])
    assert found["lora"].model_dump()["rank"] == 2
    assert list(found) == ["full", "lora", "ia3"]
