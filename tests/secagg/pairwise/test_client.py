"""What a client refuses, and that nothing has left when it does."""

from dataclasses import replace

import numpy as np
import pytest

from fedpeft.errors import ProtocolError
from fedpeft.secagg.pairwise import MemoryLog, PairwiseClient
from fedpeft.secagg.pairwise.peers import Entry
from fedpeft.secagg.pairwise.ratchet import ExchangeKey
from fedpeft.secagg.pairwise.rehearsal import Rehearsal
from fedpeft.secagg.pairwise.wire import ENTRY, contribution_length
from fedpeft.secagg.trust import Identity, Revocations

NAMES = [f"c{i}" for i in range(6)]
ZEROS = np.zeros(4, np.uint16)


@pytest.fixture
def run():
    return Rehearsal.of(NAMES, 4)


@pytest.fixture
def anna(run):
    return run.clients["c0"]


def fresh(run, name="c0", **changes):
    return PairwiseClient(run.identities[name], run.policy, run.signed, MemoryLog(), **changes)


def contribute(client, round_=1, purpose="train", model="m", cohort=NAMES, payload=ZEROS):
    return client.contribute(round_, purpose, model, cohort, payload)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"payload": np.zeros(5, np.uint16)}, "payload"),
        ({"payload": np.zeros(4, np.uint32)}, "payload"),
        ({"payload": np.zeros(4, np.float32)}, "payload"),
        ({"payload": np.full(4, 2**16 - 1, np.uint16)}, "payload"),
        ({"purpose": "spy"}, "purpose"),
        ({"round_": 10_001}, "round"),
        ({"cohort": NAMES[1:]}, "client"),
        ({"cohort": NAMES[:3]}, "cohort"),
        ({"cohort": [*NAMES[:-1], "c0"]}, "cohort"),
        ({"cohort": [*NAMES[:-1], "stranger"]}, "stranger"),
    ],
)
def test_what_the_manifest_does_not_allow_is_refused_before_anything_is_written(run, anna, changes, word):
    with pytest.raises(ProtocolError, match=word):
        contribute(anna, **changes)
    assert run.logs["c0"].read("round") is None
    assert len(contribute(anna)) == contribution_length(run.server.open_round(1, "train", "m", NAMES).context)


@pytest.mark.parametrize("again", [1, 2, 3])
def test_a_round_is_contributed_to_once_and_never_gone_back_to(anna, again):
    contribute(anna, 3)
    with pytest.raises(ProtocolError, match="one after train 3"):
        contribute(anna, again)
    contribute(anna, 7)


def test_two_processes_of_one_client_cannot_contribute_twice(run, anna):
    """The second has read the files before the first wrote them."""
    second = PairwiseClient(run.identities["c0"], run.policy, run.signed, run.logs["c0"])
    assert second.keys() == anna.keys()
    contribute(anna, 1)
    with pytest.raises(ProtocolError, match="the last contributed to"):
        contribute(second, 1)
    contribute(second, 2)
    with pytest.raises(ProtocolError, match="the last contributed to"):
        contribute(anna, 2)


def test_a_client_that_is_started_again_finishes_the_round(run):
    collected = run.contributed(1, dict.fromkeys(NAMES, ZEROS + 1))
    run.clients = {n: PairwiseClient(run.identities[n], run.policy, run.signed, run.logs[n]) for n in NAMES}
    run.finish(collected)
    assert np.array_equal(collected.sum()[0], [6] * 4)


def test_a_damaged_record_stops_the_client(run, anna):
    contribute(anna)
    run.logs["c0"].write("round", b"{")
    with pytest.raises(ProtocolError, match="round record"):
        contribute(anna, 2)


def test_a_substituted_key_is_refused(run):
    anna = fresh(run)
    anna.keys()
    directory = run.server.directory(NAMES)
    key = ExchangeKey.generate().public_key().public_bytes_raw()
    for start in range(ENTRY, len(directory), ENTRY):
        forged = directory[: start + 104] + key + directory[start + 136 :]
        with pytest.raises(ProtocolError, match="on keys"):
            anna.meet(NAMES, forged)
    swapped = (
        directory[:ENTRY] + directory[2 * ENTRY : 3 * ENTRY] + directory[ENTRY : 2 * ENTRY] + directory[3 * ENTRY :]
    )
    with pytest.raises(ProtocolError, match="certificate"):
        anna.meet(NAMES, swapped)
    anna.meet(NAMES, directory)


def test_a_second_key_of_a_known_peer_is_refused(run, anna):
    bertas = Entry.of(run.identities["c1"], ExchangeKey.generate(), run.server.manifest)
    with pytest.raises(ProtocolError, match="a second key"):
        anna.meet(["c1"], bertas.to_bytes())
    with pytest.raises(ProtocolError, match="a second key"):
        run.server.join("c1", bertas.to_bytes())


def test_a_key_of_another_run_is_refused(run, anna):
    other = Rehearsal.of(NAMES, 4)
    with pytest.raises(ProtocolError):
        anna.meet(["c1"], other.server.directory(["c1"]))
    elsewhere = replace(run.server.manifest, run="another")
    entry = Entry.of(run.identities["c1"], ExchangeKey.generate(), elsewhere)
    with pytest.raises(ProtocolError, match="on keys"):
        fresh(run).keys() and anna.meet(["c1"], entry.to_bytes())


def test_an_expired_or_revoked_peer_is_not_met_nor_summed_with(run, anna):
    revoked = run.authority.revoke(1, [run.identities["c5"].certificate.public])
    late = fresh(run, clock=lambda: 2.0**41)
    late.keys()
    with pytest.raises(ProtocolError, match="expired"):
        late.meet(NAMES, run.server.directory(NAMES))
    anna.revoke(revoked)
    anna.revoke(Revocations())  # an older list does not bring anybody back
    with pytest.raises(ProtocolError, match=r"c5.*revoked"):
        contribute(anna)
    contribute(anna, cohort=NAMES[:5])


def test_a_stranger_does_not_join(run):
    mallory = Identity.enrol("c0", type(run.authority).create("rehearsal"), 2**40)
    entry = Entry.of(mallory, ExchangeKey.generate(), run.server.manifest)
    with pytest.raises(ProtocolError, match="the authority for c0"):
        run.server.join("c0", entry.to_bytes())


def test_nothing_works_before_keys_and_contribution(run):
    anna = fresh(run)
    with pytest.raises(ProtocolError, match="no keys yet"):
        anna.meet(["c1"], run.server.directory(["c1"]))
    anna.keys()
    with pytest.raises(ProtocolError, match="c1"):
        contribute(anna)
    with pytest.raises(ProtocolError, match="a contribution before"):
        anna.answer("survivors", b"")
    with pytest.raises(ProtocolError, match="stage"):
        anna.answer("gossip", b"")


def test_another_model_gives_a_contribution_that_the_round_refuses(run, anna):
    collected = run.server.open_round(1, "train", "model", NAMES)
    with pytest.raises(ProtocolError, match="signature of c0"):
        collected.add("c0", contribute(anna, 1, model="another model"))
    assert collected.alerts[0][0] == "c0"


def test_after_forgetting_no_key_is_left(run, anna):
    contribute(anna)
    anna.forget()
    assert run.logs["c0"].read("peers") is None


def test_a_seed_given_up_in_one_round_says_nothing_of_the_next(run):
    """Two of six are lost in round 1, and in round 2 all are there: their pair masks with the others are new."""
    sent = dict.fromkeys(NAMES, ZEROS + 2)
    first = run.contributed(1, sent, NAMES[5:])
    run.finish(first)
    second = run.contributed(2, sent)
    run.finish(second)
    assert np.array_equal(second.sum()[0], [12] * 4)
    seeds = set(first._seeds.values())
    assert len(seeds) == 5
    chains = run.clients["c0"]._joined().chains
    assert not seeds & {chain.key for chain in chains.values()}


def test_one_bad_share_is_found_out_and_one_bad_seal_too(run):
    collected = run.contributed(1, dict.fromkeys(NAMES, ZEROS + 3))
    collected._taken[2].sealed[0] = bytes(32)  # the server, or client 2, spoilt one
    run.finish(collected)
    assert any("could not be unsealed" in reason for _, reason in collected.alerts)
    point = next(iter(collected._shares[1]))
    collected._shares[1][point] ^= 1
    assert np.array_equal(collected.sum()[0], [18] * 4)
