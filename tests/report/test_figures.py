"""Every figure against numpy on the numbers the record was written from."""

import json
import random
from dataclasses import replace
from math import ceil, exp, log
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpeft.report.bootstrap import mean_intervals
from fedpeft.report.figures import figures
from fedpeft.report.folder import read_record
from fedpeft.report.page import build
from fedpeft.report.record import CONTROLS, Person, Record, Score

from .synthetic import BASE_BYTES, RUN, Truth, draw, people_of, write_json, write_lines, write_run

EXACT = (
    "mean_top3", "perplexity", "improved_share", "harmed_share", "bytes_per_client_round", "base_bytes",
    "rounds", "clients", "seconds",
)  # fmt: skip
OF_PEOPLE = (
    "mean_top3", "mean_top1", "keystrokes_saved", "perplexity", "improved_share", "harmed_share",
    "kept_global_share", "median_gain", "worst_decile_gain", "intervals",
)  # fmt: skip


def leaves(value: object) -> list[object]:
    return [leaf for v in value.values() for leaf in leaves(v)] if isinstance(value, dict) else [value]


def test_the_means_are_over_people(run: Path, truth: Truth) -> None:
    found = figures(read_record(run))
    for control in CONTROLS:
        assert found["mean_top3"][control] == pytest.approx(truth.mean(control, "top3"), rel=1e-12)
        assert found["mean_top1"][control] == pytest.approx(truth.mean(control, "top1"), rel=1e-12)
        assert found["keystrokes_saved"][control] == pytest.approx(truth.mean(control, "keystrokes_saved"))
        geometric = float(np.prod(np.exp(truth.scores[control]["loss"]) ** (1 / 40)))
        assert found["perplexity"][control] == pytest.approx(geometric, rel=1e-9)


def test_gains_are_counted_and_ranked_by_person(run: Path, truth: Truth) -> None:
    found = figures(read_record(run))
    gain = truth.scores["global"]["loss"] - truth.scores["personal"]["loss"]
    assert found["improved_share"] == np.count_nonzero(gain > 0) / 40
    assert found["harmed_share"] == np.count_nonzero(gain < 0) / 40
    assert found["kept_global_share"] == np.count_nonzero(truth.gates == 0) / 40
    assert found["median_gain"] == pytest.approx(np.percentile(gain, 50))
    assert found["worst_decile_gain"] == pytest.approx(np.partition(gain, 4)[:4].mean())
    assert found["personalized"] == 40


@pytest.mark.parametrize("people", [1, 9, 10, 11, 25])
def test_the_worst_tenth_is_rounded_up_to_whole_people(people: int) -> None:
    truth = draw(people)
    gain = np.sort(truth.scores["global"]["loss"] - truth.scores["personal"]["loss"])
    found = figures(Record(RUN, people=people_of(truth)))
    assert found["worst_decile_gain"] == pytest.approx(gain[: ceil(people / 10)].mean())


def test_the_cost_is_the_mean_over_rounds(run: Path, truth: Truth) -> None:
    found = figures(read_record(run))
    assert found["bytes_up"] == pytest.approx(np.mean(truth.bytes_up))
    assert found["bytes_down"] == pytest.approx(np.mean(truth.bytes_down))
    assert found["bytes_per_client_round"] == pytest.approx(np.mean(truth.bytes_up) + np.mean(truth.bytes_down))
    assert found["base_bytes"] == BASE_BYTES
    assert found["bytes_ratio"] == pytest.approx(found["bytes_per_client_round"] / BASE_BYTES)
    errors = [0.0004 + 1e-5 * i for i in range(1, 13) if i != 7]
    assert found["quantization_error"] == pytest.approx(np.mean(errors))
    assert (found["rounds"], found["burnt_rounds"], found["clients"], found["seconds"]) == (12, 1, 41, 192.4)


def test_the_figures_are_json_and_have_the_published_names(run: Path) -> None:
    found = figures(read_record(run))
    assert set(EXACT) <= set(found)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert set(found["mean_top3"]) == set(found["perplexity"]) == set(CONTROLS)


def test_figures_of_nobody_are_null_and_keep_their_shape(run: Path) -> None:
    whole = figures(read_record(run))
    (run / "people.jsonl").unlink()
    found = figures(read_record(run))
    assert {name: leaves(found[name]) for name in OF_PEOPLE} == {
        name: [None] * len(leaves(whole[name])) for name in OF_PEOPLE
    }
    assert found["personalized"] == 0
    assert found["bytes_per_client_round"] == whole["bytes_per_client_round"]


def test_one_person_has_means_but_no_interval() -> None:
    found = figures(Record(RUN, people=people_of(draw(1))))
    ends = found["intervals"]["loss"]["global-base"]
    assert ends["mean"] is not None
    assert (ends["low"], ends["high"]) == (None, None)


def test_a_model_gone_astray_still_has_finite_figures() -> None:
    truth = draw(3)
    truth.scores["personal"]["loss"][:] = 1e5
    found = figures(Record(RUN, people=people_of(truth)))
    assert found["perplexity"]["personal"] == exp(700)
    json.dumps(found, allow_nan=False)


def test_a_lone_person_has_no_wrong_user_and_every_other_figure(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", draw(1, rounds=1))
    line = json.loads((folder / "people.jsonl").read_text(encoding="utf-8"))
    del line["wrong_user"], line["test"]["wrong_user"]
    write_lines(folder / "people.jsonl", [line])
    found = figures(read_record(folder))
    assert found["mean_top3"]["wrong_user"] is found["perplexity"]["wrong_user"] is None
    assert found["intervals"]["top3"]["personal-wrong_user"]["mean"] is None
    assert found["mean_top3"]["personal"] == line["test"]["personal"]["top3"]
    assert found["intervals"]["top3"]["personal-local"]["mean"] is not None
    build(folder)


class TestIntervals:
    def test_they_are_of_the_paired_differences(self, run: Path, truth: Truth) -> None:
        found = figures(read_record(run))["intervals"]
        for metric in ("top3", "loss"):
            for first, second in (
                ("personal", "global"), ("global", "base"), ("personal", "local"), ("personal", "wrong_user"),
            ):  # fmt: skip
                paired = truth.scores[first][metric] - truth.scores[second][metric]
                low, high = bootstrap_by_hand(paired)
                ends = found[metric][f"{first}-{second}"]
                assert ends["mean"] == pytest.approx(paired.mean())
                # Two bootstraps with other draws: ends agree to a fraction of the width.
                assert ends["low"] == pytest.approx(low, abs=0.12 * (high - low))
                assert ends["high"] == pytest.approx(high, abs=0.12 * (high - low))

    def test_they_match_the_normal_approximation_in_large_samples(self) -> None:
        values = np.random.default_rng(3).normal(0.05, 0.1, (2000, 1))
        half = 1.959964 * values.std(ddof=1) / np.sqrt(2000)
        low, high = mean_intervals(values)[0]
        assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)

    def test_they_cover_the_true_mean_about_as_often_as_they_say(self) -> None:
        rng = np.random.default_rng(4)
        samples = rng.gamma(2.0, 0.05, (50, 120))  # 120 experiments of 50 people each, one a column
        ends = mean_intervals(samples)
        covered = np.mean((ends[:, 0] <= 0.1) & (ends[:, 1] >= 0.1))
        assert 0.88 <= covered <= 0.99

    def test_equal_people_leave_no_doubt(self) -> None:
        assert mean_intervals(np.full((7, 2), 0.25)).tolist() == [[0.25, 0.25]] * 2


LOSSES, SHARES = st.floats(0.0, 12.0), st.floats(0.0, 1.0)
SCORED = st.lists(
    st.fixed_dictionaries({control: st.tuples(LOSSES, SHARES) for control in CONTROLS} | {"gate": SHARES}),
    min_size=1,
    max_size=12,
)


class TestProperties:
    @staticmethod
    def record(scored: list[dict]) -> Record:
        return Record(RUN, people=tuple(
            Person(
                f"client-{i:02d}", each["gate"], 5, 9,
                {c: Score(each[c][0], each[c][1], each[c][1], each[c][1], 100) for c in CONTROLS},
            )
            for i, each in enumerate(scored)
        ))  # fmt: skip

    @settings(max_examples=25, deadline=None)
    @given(SCORED, st.randoms(use_true_random=False))
    def test_the_order_of_people_changes_nothing(self, scored: list[dict], shuffler: random.Random) -> None:
        record = self.record(scored)
        people = list(record.people)
        shuffler.shuffle(people)
        assert figures(record) == figures(replace(record, people=tuple(people)))

    @settings(max_examples=25, deadline=None)
    @given(SCORED)
    def test_shares_and_means_stay_within_their_bounds(self, scored: list[dict]) -> None:
        found = figures(self.record(scored))
        gains = [each["global"][0] - each["personal"][0] for each in scored]
        assert 0 <= found["improved_share"] + found["harmed_share"] <= 1
        assert found["worst_decile_gain"] <= found["median_gain"] + 1e-12
        assert min(gains) - 1e-12 <= found["worst_decile_gain"]
        for control in CONTROLS:
            seen = [each[control][0] for each in scored]
            assert min(seen) - 1e-9 <= log(found["perplexity"][control]) <= max(seen) + 1e-9
        for metric in ("top3", "loss"):
            for ends in found["intervals"][metric].values():
                if ends["low"] is not None:
                    assert ends["low"] <= ends["high"]

    @settings(max_examples=15, deadline=None)
    @given(SCORED)
    def test_a_shut_gate_neither_helps_nor_harms(self, scored: list[dict]) -> None:
        shut = [{**each, "personal": each["global"], "gate": 0.0} for each in scored]
        found = figures(self.record(shut))
        assert (found["improved_share"], found["harmed_share"], found["kept_global_share"]) == (0, 0, 1)
        ends = found["intervals"]["loss"]["personal-global"]
        assert ends["mean"] == 0.0


def test_what_round_0_carries_is_not_a_cost_of_training(run: Path, truth: Truth) -> None:
    first, *others = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    free = json.dumps({**json.loads(first), "bytes_up": 0, "bytes_down": 0, "quantization_error": 0.0})
    (run / "metrics.jsonl").write_text("\n".join([free, *others]) + "\n", encoding="utf-8")
    assert figures(read_record(run))["bytes_up"] == pytest.approx(np.mean(truth.bytes_up))


@pytest.mark.parametrize("seeds", [1, 2])
def test_the_spread_of_a_study_needs_two_seeds(tmp_path: Path, seeds: int) -> None:
    for seed in range(seeds):
        write_run(tmp_path / "seeds" / str(seed), draw(4, rounds=1, seed=seed))
    write_json(tmp_path / "run.json", {"name": "study", "seeds": list(range(seeds))})
    found = figures(read_record(tmp_path))
    values = [found["seeds"][str(seed)]["perplexity"]["global"] for seed in range(seeds)]
    spread = found["seed_sd"]["perplexity"]["global"]
    assert spread == (pytest.approx(abs(values[0] - values[1]) / 2**0.5) if seeds == 2 else None)


def test_a_study_reports_each_seed_and_their_spread(tmp_path: Path) -> None:
    drawn = [draw(12, rounds=3, seed=seed) for seed in range(3)]
    for seed, truth in enumerate(drawn):
        write_run(tmp_path / "seeds" / str(seed), truth)
    write_json(tmp_path / "run.json", {"name": "study", "seeds": [0, 1, 2]})
    found = figures(read_record(tmp_path))
    top3 = [truth.mean("personal", "top3") for truth in drawn]
    assert [found["seeds"][s]["mean_top3"]["personal"] for s in "012"] == pytest.approx(top3)
    assert found["seed_mean"]["mean_top3"]["personal"] == pytest.approx(np.mean(top3))
    assert found["seed_sd"]["mean_top3"]["personal"] == pytest.approx(np.std(top3, ddof=1))
    gains = np.mean([t.scores["global"]["loss"] - t.scores["personal"]["loss"] for t in drawn], axis=0)
    assert found["improved_share"] == pytest.approx(np.mean(gains > 0))
    assert found["kept_global_share"] == pytest.approx(np.mean([t.gates == 0 for t in drawn]))
    assert found["bytes_up"] == pytest.approx(np.mean([t.bytes_up for t in drawn]))
    assert (found["rounds"], found["personalized"]) == (3, 12)


def bootstrap_by_hand(values: np.ndarray) -> tuple[float, float]:
    """The percentile bootstrap in plain Python, with draws of its own."""
    draws = random.Random(11)
    means = sorted(sum(draws.choices(values.tolist(), k=len(values))) / len(values) for _ in range(4000))
    return means[100], means[-101]
