"""A member that gives up another seed than the one it masked with: nobody can tell whose fault it was, but that it was.

The seeds of pairs are the one thing that a survivor says alone and the server cannot check. With a false one the sum is
noise, lanes included; the noise would have to hit the clients' weights to be taken for a sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from fedpeft.federation.client import worker_at
from fedpeft.federation.folder import SCENARIO, RunFolder
from fedpeft.federation.worker import Worker
from fedpeft.scenario import Scenario, parse_scenario
from fedpeft.secagg.pairwise import PairwiseClient
from fedpeft.secagg.pairwise.context import RoundContext
from fedpeft.secagg.pairwise.rehearsal import Rehearsal
from fedpeft.secagg.pairwise.statements import REVEAL
from fedpeft.signing.encoding import KEY
from fedpeft.signing.signature import sign
from tests.federation.secure_rounds import by_hand, names, open_rounds, start
from tests.federation.vanishing import Vanishing

from .crook import NAMES, payloads


@pytest.fixture
def liar(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the second client sign and send seeds of its own making."""
    honest = PairwiseClient._reveal

    def reveal(self: PairwiseClient, stage: str, context: RoundContext, bitmap: bytes, lost: Sequence[int]) -> bytes:
        if self.client not in ("user-01", NAMES[1]):
            return honest(self, stage, context, bitmap, lost)
        seeds = bytes(KEY * len(lost))
        return seeds + sign(self._identity.key, REVEAL, context.digest, stage, bitmap, sha256(seeds).digest())

    monkeypatch.setattr(PairwiseClient, "_reveal", reveal)


def test_a_false_seed_makes_noise_of_the_sum(run: Rehearsal, liar: None) -> None:
    """The control: the protocol alone does not notice."""
    sent = payloads()
    collected = run.contributed(1, sent, gone=[NAMES[3]])
    run.finish(collected)
    total, contributors = collected.sum()
    assert not np.array_equal(total, np.sum([sent[name] for name in contributors], axis=0, dtype=np.uint64))


def test_a_round_with_a_false_seed_is_burnt_by_its_weights(
    liar: None, worker: Worker, folder: RunFolder, config: dict[str, str]
) -> None:
    run = open_rounds(worker, folder, config, Vanishing({3: "train"}, rounds=range(1, 11)))
    for round_ in range(1, 11):
        row, after = run.one(round_, start(worker))
        assert row["burnt"]
        assert "expected at most 1 from each" in row["reason"]
        assert not after.change.any()


def test_where_nobody_vanishes_there_is_nothing_to_lie_about(
    liar: None, worker: Worker, folder: RunFolder, config: dict[str, str]
) -> None:
    row, after = open_rounds(worker, folder, config).one(1, start(worker))
    assert row["contributors"] == 5
    assert np.array_equal(after.change, by_hand(worker, names(worker)))


def test_a_score_with_a_false_seed_is_none(liar: None, tiny: Scenario, tmp_path: Path) -> None:
    scenario = parse_scenario({**tiny.model_dump(), "federation": {**tiny.federation.model_dump(), "panel": 5}})
    other = RunFolder(tmp_path / "other")
    other.write(SCENARIO, scenario.model_dump(mode="json"))
    told = {"scenario": str(other.path / SCENARIO), "run-folder": str(other.path)}
    mine = worker_at(*told.values())
    run = open_rounds(mine, other, told, Vanishing({3: "train"}, rounds=range(1, 11), purpose="evaluate"))
    for round_ in range(1, 11):
        scored = run.validate(round_, start(mine).change)
        assert scored["validation"] is None
        assert "of them right, expected at most" in scored["unscored"]
