"""A server that says anything to anybody, with a corrupt client's key in its hands, still opens one sum at most.

It asks honest clients in any order about sets of its choice, signs for the corrupt client whatever it likes, keeps
everything it is told, and at the end computes: whose self-mask is known, which pair masks are not, and so which groups of
honest clients' vectors come apart.
"""

from hashlib import sha256
from itertools import combinations

import numpy as np
import pytest

from fedpeft.errors import ProtocolError
from fedpeft.secagg.pairwise.members import to_bitmap
from fedpeft.secagg.pairwise.parameters import Parameters
from fedpeft.secagg.pairwise.rehearsal import Rehearsal
from fedpeft.secagg.pairwise.seal import SEALED
from fedpeft.secagg.pairwise.statements import LOCK, REQUEST, SURVIVORS
from fedpeft.secagg.pairwise.wire import reply_length
from fedpeft.signing.encoding import KEY
from fedpeft.signing.signature import SIGNATURE, sign

N, CORRUPT = 6, 0
NAMES = [f"c{i}" for i in range(N)]

FRAGILE = Parameters(clients=N, corrupt=1, degree=N - 1, holders=3, threshold=2)
"""One honest holder and the corrupt client open a self-mask: all that is left to rely on is the order of the stages."""


class LyingServer:
    """What a server can collect of one round in which everybody contributed."""

    def __init__(self, run: Rehearsal, round_: int) -> None:
        sent = dict.fromkeys(NAMES, np.zeros(2, np.uint16))
        self.run, self.honest = run, run.contributed(round_, sent)
        self.context, self.key = self.honest.context, run.server._key
        self.signed, self.locked, self.answered = {}, {}, {}
        self.seeds, self.shares, self.given = set(), {}, {}

    def ask(self, stage, client, members) -> bool:
        """Send one request that is signed and whole; say whether it was answered."""
        body = to_bitmap(members, N)
        if stage in ("pairs", "lock"):
            signatures = [self.statement(SURVIVORS, self.signed, i, members) for i in members]
            if None in signatures:
                return False
            body += b"".join(signatures)
        elif stage == "unmask":
            quorum = self.context.quorum(len(members))
            locks = {i: self.statement(LOCK, self.locked, i, members) for i in members}
            some = [i for i in members if locks[i]][:quorum]
            if len(some) < quorum:
                return False
            wards = [w for w in self.context.topology.wards(client) if w in members]
            sealed = [self.honest._taken[w].sealed[self.context.topology.holders(w).index(client)] for w in wards]
            assert all(len(s) == SEALED for s in sealed)
            body = to_bitmap(some, N) + b"".join(locks[i] for i in some) + b"".join(sealed)
        request = body + sign(self.key, REQUEST, self.context.digest, stage, sha256(body).digest())
        try:
            reply = self.run.clients[NAMES[client]].answer(stage, request)
        except ProtocolError:
            return False
        self.note(stage, client, members, reply)
        return True

    def statement(self, label, store, i, members):
        if i == CORRUPT:
            key = self.run.identities[NAMES[i]].key
            return sign(key, label, self.context.digest, to_bitmap(members, N))
        return store.get((i, members))

    def note(self, stage, client, members, reply) -> None:
        outside = [j for j in range(N) if j not in members]
        if stage == "survivors":
            self.signed[client, members] = reply[:SIGNATURE]
            if len(reply) > SIGNATURE:
                assert len(reply) == reply_length(stage, len(outside))
                self.given.setdefault(client, set()).update(outside)
        elif stage == "pairs":
            new = [j for j in outside if j not in self.given.get(client, set())]
            assert len(reply) == KEY * len(new) + SIGNATURE
            self.given.setdefault(client, set()).update(new)
        elif stage == "lock":
            self.locked[client, members] = reply
        else:
            for ward in self.context.topology.wards(client):
                if ward in members:
                    self.shares.setdefault(ward, set()).add(client)

    def opened(self):
        """Return the groups of honest clients whose sum the server can compute."""
        honest = [i for i in range(N) if i != CORRUPT]
        own = {i: {CORRUPT} & set(self.context.topology.holders(i)) for i in honest}
        needed = self.context.parameters.threshold
        bare = {i for i in honest if len(self.shares.get(i, set()) | own[i]) >= needed}
        hidden = {
            (i, j)
            for i, j in combinations(honest, 2)
            if j not in self.given.get(i, ()) and i not in self.given.get(j, ())
        }
        groups, left = [], set(honest)
        while left:
            group, edge = set(), {left.pop()}
            while edge:
                i = edge.pop()
                group.add(i)
                edge |= {b if a == i else a for a, b in hidden if i in (a, b)} - group
            left -= group
            if group <= bare:
                groups.append(group)
        return groups


@pytest.fixture(scope="module")
def run():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fedpeft.secagg.pairwise.context.parameters", lambda *_: FRAGILE)
        yield Rehearsal.of(NAMES, 2)


def everyone(liar, stage, members):
    return [liar.ask(stage, i, members) for i in members if i != CORRUPT]


def test_whatever_is_asked_one_group_of_enough_clients_comes_apart_at_most(run):
    rng = np.random.default_rng(0)
    n_min, outcomes = run.server.manifest.of("train").n_min, []
    for round_ in range(1, 301):
        liar, victim, helper = LyingServer(run, round_), *(int(i) for i in rng.choice(range(1, N), 2, replace=False))
        for out in ((), (helper,), (helper, victim), (victim,)):
            members = tuple(i for i in range(N) if i not in out)
            some = [i for i in members if i not in (CORRUPT, victim)] if rng.random() < 0.3 else members
            for i in rng.permutation(some):
                if i != CORRUPT and rng.random() < 0.95:
                    liar.ask("survivors", int(i), members)
            # In each phase some clients are led to lock and open, the others to give up seeds.
            leading = rng.random(N) < rng.choice([0.0, 0.2, 0.5, 1.0], p=[0.4, 0.2, 0.2, 0.2])
            leading[helper] = True
            for i in rng.permutation([i for i in members if i != CORRUPT] * 2):
                for stage in ("lock", "unmask") if leading[i] else ("pairs",):
                    liar.ask(stage, int(i), members)
        groups = liar.opened()
        assert len(groups) <= 1
        assert all(len(group) >= n_min - 1 for group in groups)
        outcomes.append(len(groups))
    assert sum(outcomes) > 5


def test_answering_one_set_while_others_move_on_is_what_the_lock_prevents(run):
    """All sign V; holders open b_x for V; then x is told that the holders are gone, and the others that x is."""
    liar, everybody = LyingServer(run, 501), tuple(range(N))
    n_min, quorum = run.server.manifest.of("train").n_min, liar.context.quorum(N)
    assert all(everyone(liar, "survivors", everybody))
    assert not liar.ask("unmask", 1, everybody)
    lockers = list(range(1, quorum))  # the corrupt client is the last of the quorum
    assert all(liar.ask("lock", i, everybody) for i in lockers[:-1])
    assert not liar.ask("unmask", 1, everybody)
    assert liar.ask("lock", lockers[-1], everybody)
    assert all(liar.ask("unmask", i, everybody) for i in lockers)
    for members in combinations(range(N), n_min):
        for i in members:
            if i != CORRUPT:
                assert not (liar.ask("survivors", i, members) and i in lockers)
                assert not liar.ask("pairs", i, members)  # one of the lockers is in every set of n_min
    assert len(liar.opened()) <= 1


def test_a_client_signs_smaller_and_smaller_sets_only(run):
    liar = LyingServer(run, 502)
    assert liar.ask("survivors", 1, (0, 1, 2, 3, 4))
    assert liar.given == {1: {5}}
    assert not liar.ask("survivors", 1, (0, 1, 2, 3, 4, 5))
    assert not liar.ask("survivors", 1, (0, 1, 2, 3, 5))
    assert liar.ask("survivors", 1, (0, 1, 2, 3))
    assert liar.given == {1: {5}}  # further seeds only when all the others have signed too
    assert not liar.ask("survivors", 1, (0, 1, 2))


def test_survivors_are_asked_for_a_few_times_only(run):
    liar = LyingServer(run, 503)
    assert [liar.ask("survivors", 1, tuple(range(N))) for _ in range(10)] == [True] * 8 + [False] * 2


def test_each_stage_has_its_time(run):
    liar, everybody = LyingServer(run, 504), tuple(range(N))
    for stage in ("pairs", "lock"):
        request = to_bitmap(everybody, N) + bytes(SIGNATURE * N)
        request += sign(liar.key, REQUEST, liar.context.digest, stage, sha256(request).digest())
        with pytest.raises(ProtocolError, match="another stage"):
            run.clients[NAMES[1]].answer(stage, request)
    with pytest.raises(ProtocolError, match="not locked"):
        run.clients[NAMES[1]].unmask(b"")
    assert all(everyone(liar, "survivors", everybody))
    assert all(everyone(liar, "lock", everybody))
    assert not liar.ask("survivors", 1, (0, 1, 2, 3))
    assert not liar.ask("lock", 1, everybody)
    assert liar.ask("unmask", 1, everybody)
    assert not liar.ask("unmask", 1, everybody)
