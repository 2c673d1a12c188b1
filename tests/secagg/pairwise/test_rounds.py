"""Whole rounds: the opened sum is the plaintext sum to the bit, whoever vanishes when; too few, and the round is burnt."""

import numpy as np
import pytest

from fedpeft.errors import RoundBurnt
from fedpeft.secagg.pairwise.packing import ring_dtype
from fedpeft.secagg.pairwise.rehearsal import Rehearsal

NAMES = [f"client{i}" for i in range(8)]
STAGES = ("contribute", "survivors", "pairs", "lock", "unmask")
LENGTH = 5


def payloads(run: Rehearsal, cohort, rng):
    terms = run.server.manifest.of("train")
    draw = rng.integers(0, terms.levels, (len(cohort), LENGTH), np.uint64, endpoint=True)
    return dict(zip(cohort, draw.astype(ring_dtype(terms.bits)), strict=True))


def play(run: Rehearsal, round_: int, sent, leaving):
    """Run a round in which client c vanishes at leaving[c] = (stage, how many requests of it c still answers)."""
    collected = run.contributed(round_, sent, [c for c in sent if leaving.get(c, ("", 0))[0] == "contribute"])
    gone, seen = set(), {}

    def answers(stage, client):
        seen[client, stage] = seen.get((client, stage), 0) + 1
        at, patience = leaving.get(client, ("", 0))
        if at == stage and seen[client, stage] > patience:
            gone.add(client)
        return client not in gone

    run.finish(collected, answers)
    return collected


def certain(run: Rehearsal, sent, leaving):
    """Say, from the counts alone, who is in the sum; None when the round must be burnt."""
    context = run.server.open_round(0, "train", "", list(sent)).context
    early = {c for c, (stage, _) in leaving.items() if stage == "contribute"}
    here = [c for c in context.cohort if c not in early]
    survivors, gone, seen, rounds = here, set(), {}, 0

    def ask(stage, clients):
        for c in clients:
            seen[c, stage] = seen.get((c, stage), 0) + 1
            at, patience = leaving.get(c, ("", 0))
            if at == stage and seen[c, stage] > patience:
                gone.add(c)
        return [c for c in clients if c not in gone]

    while True:
        if len(survivors) < context.terms.n_min or rounds == 8:
            return None
        rounds += 1
        left = ask("survivors", survivors)
        if left == survivors and rounds > 1:
            left = ask("pairs", survivors)
        if left == survivors:
            break
        survivors = left
    locked = ask("lock", survivors)
    if len(locked) < context.quorum(len(survivors)):
        return None
    opened = set(ask("unmask", survivors)) & set(locked)
    for client in survivors:
        holders = {context.cohort[j] for j in context.topology.holders(context.index(client))}
        if len(holders & opened) < context.parameters.threshold:
            return None
    return tuple(survivors)


@pytest.mark.parametrize(("bits", "corrupt"), [(16, 0.1), (12, 0.1), (32, 0.0), (8, 0.13)])
def test_the_sum_is_exact_or_the_round_is_burnt_over_random_dropouts(bits, corrupt):
    run, rng = Rehearsal.of(NAMES, LENGTH, bits, corrupt), np.random.default_rng(bits)
    outcomes = {"opened": 0, "burnt": 0, "vanished": 0}
    for round_ in range(1, 276):
        n = int(rng.integers(max(4, run.server.manifest.of("train").n_min), len(NAMES) + 1))
        cohort = [NAMES[i] for i in rng.permutation(len(NAMES))[:n]]
        share = rng.choice([0.05, 0.15, 0.3])
        leaving = {c: (STAGES[rng.integers(5)], int(rng.integers(2))) for c in cohort if rng.random() < share}
        sent = payloads(run, cohort, rng)
        expected = certain(run, sent, leaving)
        outcomes["vanished"] += len(leaving)
        try:
            total, contributors = play(run, round_, sent, leaving).sum()
        except RoundBurnt:
            assert expected is None
            outcomes["burnt"] += 1
            continue
        assert contributors == expected
        assert np.array_equal(total, np.sum([sent[c] for c in contributors], axis=0, dtype=np.uint64))
        outcomes["opened"] += 1
    assert outcomes["opened"] > 100
    assert outcomes["burnt"] > 10
    assert outcomes["vanished"] > 150


@pytest.mark.parametrize("stage", STAGES)
def test_one_vanishes_at_each_stage_and_the_others_finish(stage):
    run, rng = Rehearsal.of(NAMES, LENGTH), np.random.default_rng(0)
    sent = payloads(run, NAMES, rng)
    leaving = {NAMES[3]: (stage, 0)}
    if stage == "pairs":
        leaving[NAMES[5]] = ("survivors", 0)
    total, contributors = play(run, 1, sent, leaving).sum()
    inside = stage in ("lock", "unmask")
    assert (NAMES[3] in contributors) == inside
    assert np.array_equal(total, np.sum([sent[c] for c in contributors], axis=0, dtype=np.uint64))


def test_a_burnt_round_leaves_the_next_one_whole():
    run, rng = Rehearsal.of(NAMES, LENGTH), np.random.default_rng(0)
    sent = payloads(run, NAMES, rng)
    with pytest.raises(RoundBurnt, match=r"train 1: found '4 survivors', expected at least 5"):
        play(run, 1, sent, dict.fromkeys(NAMES[:4], ("contribute", 0)))
    with pytest.raises(RoundBurnt, match="locks"):
        play(run, 2, sent, dict.fromkeys(NAMES[:4], ("lock", 0)))
    with pytest.raises(RoundBurnt, match="shares of"):
        play(run, 3, sent, dict.fromkeys(NAMES[:5], ("unmask", 0))).sum()
    total, contributors = play(run, 4, sent, {}).sum()
    assert contributors == tuple(NAMES)
    assert np.array_equal(total, np.sum(list(sent.values()), axis=0, dtype=np.uint64))


def test_above_128_clients_the_graph_is_sparse_and_the_sum_exact():
    names = [f"c{i:03}" for i in range(150)]
    run, rng = Rehearsal.of(names, LENGTH, corrupt=0.05, dropout=0.05), np.random.default_rng(0)
    sent = payloads(run, names, rng)
    leaving = {names[i]: (STAGES[i % 5], 0) for i in rng.permutation(150)[:10]}
    collected = play(run, 1, sent, leaving)
    assert not collected.context.parameters.complete
    total, contributors = collected.sum()
    assert len(contributors) >= 140
    assert np.array_equal(total, np.sum([sent[c] for c in contributors], axis=0, dtype=np.uint64))


def test_what_a_server_sees_of_one_client_is_uniform():
    """The same payload 300 times: bytes as even as noise, and no two alike."""
    run = Rehearsal.of(NAMES, 64)
    sent = dict.fromkeys(NAMES, np.zeros(64, np.uint16))
    seen = []
    for round_ in range(1, 301):
        message = run.clients[NAMES[0]].contribute(round_, "train", "model", NAMES, sent[NAMES[0]])
        seen.append(message[:128])
    counts = np.bincount(np.frombuffer(b"".join(seen), np.uint8), minlength=256)
    expected = 300 * 128 / 256
    chi = float(((counts - expected) ** 2 / expected).sum())
    assert chi < 255 + 6 * np.sqrt(2 * 255)
    assert len(set(seen)) == 300
