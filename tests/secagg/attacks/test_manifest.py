"""Another agreement than the operator's: a floor lowered, a ring widened, a server put in another's place."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fedpeft.errors import ProtocolError
from fedpeft.secagg.pairwise import MemoryLog, PairwiseClient
from fedpeft.secagg.pairwise.rehearsal import Rehearsal
from fedpeft.secagg.trust import Manifest, Policy, SignedManifest, Terms
from fedpeft.signing.signature import SigningKey, public_bytes, sign

from .crook import LENGTH, NAMES

ANNA = NAMES[0]


def agree(run: Rehearsal, signed: SignedManifest, **floors: object) -> PairwiseClient:
    policy = Policy(run.authority.public, public_bytes(run.operator), "rehearsal", **floors)  # type: ignore[arg-type]
    return PairwiseClient(run.identities[ANNA], policy, signed, MemoryLog())


def test_a_manifest_that_the_operator_did_not_sign_is_refused(run: Rehearsal) -> None:
    for key in (run.server._key, run.authority.key, run.identities[ANNA].key, SigningKey.generate()):
        with pytest.raises(ProtocolError, match="signature of the operator on manifest"):
            agree(run, SignedManifest.of(run.server.manifest, key))


CHANGES = {
    "another server's key": {"server": "0" * 64},
    "another run": {"run": "another"},
    "more rounds": {"rounds": 2_000},
    "no corrupt clients": {"corrupt": 0.0},
    "no dropouts": {"dropout": 0.0},
    "another schema": {"schema": "0" * 64},
    "another scenario": {"scenario": "0" * 64},
    "no privacy": {"privacy": "none"},
    "a larger weight": {"weight_cap": 1e9},
}


@pytest.mark.parametrize("case", CHANGES)
def test_a_changed_line_takes_the_signature_away(case: str, run: Rehearsal) -> None:
    changed = replace(run.server.manifest, **CHANGES[case])
    with pytest.raises(ProtocolError, match="signature of the operator on manifest"):
        agree(run, SignedManifest(changed.to_bytes(), run.signed.signature))


def test_not_a_byte_of_a_manifest_can_be_changed(run: Rehearsal) -> None:
    whole = run.signed.to_bytes()
    for at in range(len(whole)):
        for flip in (1, 0x80):
            damaged = whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :]
            with pytest.raises(ProtocolError):
                agree(run, SignedManifest.from_bytes(damaged))
    for length in range(len(whole)):
        with pytest.raises(ProtocolError):
            agree(run, SignedManifest.from_bytes(whole[:length]))


def test_a_signed_manifest_in_other_words_is_refused(run: Rehearsal) -> None:
    """The operator's own signature under bytes that read alike but differ would give one run two digests."""
    body = run.signed.body
    for other in (body + b" ", body.replace(b":", b": ", 1), body.replace(b"0.1", b"0.10", 1)):
        with pytest.raises(ProtocolError, match="canonical JSON"):
            agree(run, SignedManifest(other, sign(run.operator, "manifest", other)))


@pytest.mark.parametrize(
    ("floors", "field"),
    [
        ({"n_min": 6}, "train.n_min: found 5, expected at least 6"),
        ({"corrupt": 0.2}, "corrupt: found 0.1, expected at least 0.2"),
        ({"bits": (20, 32)}, "train.bits: found 16, expected 20 to 32"),
        ({"rounds": 999}, "rounds: found 10000, expected at most 999"),
        ({"schema": "mine"}, "schema: found '', expected mine"),
        ({"scenario": "mine"}, "scenario: found '', expected mine"),
        ({"privacy": "mine"}, "privacy: found '', expected mine"),
    ],
)
def test_an_operator_who_asks_for_less_than_a_client_demands_is_refused(
    floors: dict[str, object], field: str, run: Rehearsal
) -> None:
    with pytest.raises(ProtocolError, match=f"manifest {field}, by this client's policy"):
        agree(run, run.signed, **floors)


@pytest.mark.parametrize(("n_min", "n_max", "corrupt"), [(4, 8, 0.0), (5, 8, 0.2), (2, 3, 0.3), (50, 100, 0.1)])
def test_a_floor_at_which_two_sets_could_be_opened_cannot_even_be_written(
    n_min: int, n_max: int, corrupt: float
) -> None:
    """Two sets of n_min out of n_max must share an honest client, whatever the operator thinks of it."""
    terms = (Terms("train", (LENGTH,), 16, 1.0, n_min, n_max),)
    with pytest.raises(ProtocolError, match=r"manifest train\.n_min"):
        Manifest("rehearsal", "run", "0" * 64, terms, 10, corrupt, 0.1)


def test_of_two_clients_with_different_manifests_nothing_is_summed(run: Rehearsal) -> None:
    """The operator signed both; but what is agreed under one fits nothing of the other."""
    other = SignedManifest.of(replace(run.server.manifest, weight_cap=2.0), run.operator)
    anna = agree(run, other)
    with pytest.raises(ProtocolError, match="signature of client1 on keys"):
        anna.keys() and anna.meet(NAMES, run.server.directory(NAMES))
    with pytest.raises(ProtocolError, match="signature of client0 on keys"):
        run.clients[NAMES[1]].meet([ANNA], anna.keys())
    with pytest.raises(ProtocolError, match="one whose keys"):
        anna.contribute(1, "train", "model", NAMES, np.zeros(LENGTH, np.uint16))
