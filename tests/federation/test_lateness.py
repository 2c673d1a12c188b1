"""More are asked than are waited for: the round goes on with the first, and opens one sum, theirs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedpeft.errors import ScenarioError
from fedpeft.federation.client import client_app
from fedpeft.federation.folder import RunFolder
from fedpeft.federation.grid import InProcessGrid
from fedpeft.federation.inprocess import resume, simulate
from fedpeft.federation.lateness import LATE, drawn, nobody
from fedpeft.federation.worker import Worker
from fedpeft.scenario import Scenario, parse_scenario

from .conftest import TINY
from .secure_rounds import by_hand, open_rounds, start

ONE_MORE = ["federation.cohort=3", "federation.oversample=1", "channel.dropout=0.0"]


@pytest.fixture
def tiny() -> Scenario:
    """Return a scenario in which four are asked and three waited for."""
    return parse_scenario(TINY, ONE_MORE)


class OneIsSlow(InProcessGrid):
    """A grid on which one client's first contribution comes when the round is long over."""

    slow = 1

    def stream(self, messages, *, timeout=None):
        sent = list(messages)
        nodes = self.get_node_ids()
        last = [m for m in sent if m.metadata.dst_node_id == nodes[self.slow] and m.metadata.message_type == "train"]
        yield from super().stream([m for m in sent if m not in last])
        yield from super().stream(last)


def test_the_round_goes_on_with_the_first_who_answer_and_opens_their_sum_alone(
    worker: Worker, folder: RunFolder, config: dict[str, str]
) -> None:
    rounds = open_rounds(worker, folder, config)
    rounds.grid = OneIsSlow(client_app(), 4, config)
    row, after = rounds.one(1, start(worker))
    slow = worker.client_ids[1]
    assert (row["cohort"], row["contributors"], row["reasons"]) == (worker.client_ids, 3, {slow: LATE})
    first = [client for client in worker.client_ids if client != slow]
    np.testing.assert_array_equal(after.change, by_hand(worker, first))
    # Who was late takes part in the next round as if nothing had happened.
    OneIsSlow.slow = 2
    row, _ = rounds.one(2, after)
    assert row["reasons"] == {worker.client_ids[2]: LATE}


def test_a_late_answer_is_refused_once_the_set_is_closed(
    worker: Worker, folder: RunFolder, config: dict[str, str]
) -> None:
    rounds = open_rounds(worker, folder, config)
    kept = []
    opening, end = rounds.end.collect, rounds.end

    class Remembering:
        present = staticmethod(end.present)

        def collect(self, *arguments):
            kept.append(opening(*arguments))
            return kept[-1]

    rounds.end, rounds.grid = Remembering(), OneIsSlow(client_app(), 4, config)
    rounds.one(1, start(worker))
    with pytest.raises(Exception, match="before the survivors are fixed"):
        kept[0].add(worker.client_ids[1], b"")
    assert end.server.joined == set(worker.client_ids)


def test_who_is_late_in_a_simulation_is_drawn_once_for_all() -> None:
    many = [f"c{i:03d}" for i in range(200)]
    scenario = parse_scenario(
        {**TINY, "data": {"clients": 200}}, ["federation.cohort=150", "federation.stragglers=0.2", "channel.name=plain"]
    )
    late = [drawn(scenario)(round_, many) for round_ in range(1, 40)]
    assert late == [drawn(scenario)(round_, list(reversed(many))) for round_ in range(1, 40)]
    assert len({frozenset(names) for names in late}) == 39
    assert all(len(names) >= 50 for names in late)
    of_cohort = [len(drawn(scenario)(round_, many[:150])) for round_ in range(1, 40)]
    # 5850 draws at 0.2: mean 1170, standard deviation 31; five deviations either side.
    assert 1015 < sum(of_cohort) < 1325
    assert not nobody(1, many)


def test_a_run_with_stragglers_is_the_same_to_the_bit_after_an_interruption(tmp_path: Path) -> None:
    overrides = [*ONE_MORE, "federation.stragglers=0.1", "personalization.people=0", "federation.panel=0"]
    scenario = parse_scenario(TINY, overrides)
    whole = RunFolder(simulate(scenario, tmp_path / "whole", workers=2))

    class Once:
        def stage(self, name: str, done: int, total: int) -> None:
            if name == "round 2":
                raise KeyboardInterrupt

        def round(self, row: dict, rounds: int) -> None:
            pass

    with pytest.raises(KeyboardInterrupt):
        simulate(scenario, tmp_path / "broken", Once(), engine="serial")
    (broken,) = (tmp_path / "broken").iterdir()
    again = RunFolder(resume(broken, engine="serial"))

    def rows(folder: RunFolder) -> list[dict]:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in folder.lines("metrics.jsonl")]

    assert rows(again) == rows(whole)
    assert all(LATE in row["reasons"].values() for row in rows(whole)[1:])
    tensors = [folder.path / "adapters" / "global" / "adapter_model.safetensors" for folder in (whole, again)]
    assert tensors[0].read_bytes() == tensors[1].read_bytes()


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["federation.oversample=1", "channel.name=plain"], "data.clients - cohort = 0"),
        (["federation.cohort=3", "federation.oversample=1"], "cohort \\+ oversample with channel.corrupt"),
        (["data.clients=20", "federation.oversample=8"], "less than 0.5 who vanish"),
    ],
)
def test_more_over_selection_than_secure_aggregation_can_lose_is_refused(overrides: list[str], expected: str) -> None:
    with pytest.raises(ScenarioError, match=expected):
        parse_scenario(TINY, overrides)


def test_how_long_a_server_waits_is_not_part_of_what_clients_agree_to() -> None:
    waiting = parse_scenario(TINY, ["federation.deadline=5.0", "federation.renew=1"])
    assert waiting.digest == parse_scenario(TINY).digest
    assert parse_scenario(TINY, ONE_MORE).digest != parse_scenario(TINY, ONE_MORE[::2]).digest
