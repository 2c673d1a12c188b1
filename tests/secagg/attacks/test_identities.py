"""Keys that are not whose they should be: with one substituted key the server would read what a pair masks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fedpeft.errors import ProtocolError
from fedpeft.secagg.pairwise import MemoryLog, PairwiseClient, PairwiseServer
from fedpeft.secagg.pairwise.peers import Entry
from fedpeft.secagg.pairwise.ratchet import Chain, ExchangeKey, mask_seed
from fedpeft.secagg.pairwise.rehearsal import Rehearsal
from fedpeft.secagg.pairwise.wire import ENTRY
from fedpeft.secagg.trust import Authority, Certificate, Identity, Revocations
from fedpeft.secagg.trust.certificate import Enrolment
from fedpeft.signing.signature import SigningKey, public_bytes, sign

from .crook import LENGTH, NAMES

ANNA, BO = NAMES[:2]


def newcomer(run: Rehearsal, **changes: object) -> PairwiseClient:
    """Return the first client as it is before it has met anybody."""
    client = PairwiseClient(run.identities[ANNA], run.policy, run.signed, MemoryLog(), **changes)  # type: ignore[arg-type]
    client.keys()
    return client


def directory(run: Rehearsal, forged: Entry) -> bytes:
    """Return everybody's entries, Bo's replaced."""
    entries = [run.server.directory([name]) for name in NAMES]
    return b"".join([entries[0], forged.to_bytes(), *entries[2:]])


def test_what_a_substituted_key_would_give_away(run: Rehearsal) -> None:
    """The control: whoever's key is believed to be Bo's computes the mask that Anna shares with Bo."""
    mine, anna = ExchangeKey.generate(), run.clients[ANNA]
    own = anna._joined().own
    manifest = run.server.manifest.digest
    hers = Chain.begin(own, mine.public_key().public_bytes_raw(), manifest, (ANNA, BO))
    ours = Chain.begin(mine, own.public_key().public_bytes_raw(), manifest, (BO, ANNA))
    assert mask_seed(hers.at(3).key, b"ctx") == mask_seed(ours.at(3).key, b"ctx")


def _key_alone(run: Rehearsal, key: ExchangeKey) -> Entry:
    """Only the exchange key is exchanged; Bo's signature stays."""
    return replace(_entry(run, BO), exchange=key.public_key().public_bytes_raw())


def _signed_by_the_server(run: Rehearsal, key: ExchangeKey) -> Entry:
    return _signed(run, key, run.server._key, _entry(run, BO).certificate)


def _another_clients(run: Rehearsal, key: ExchangeKey) -> Entry:
    """A corrupt client lends its identity: its certificate and signature are in order, for its own name."""
    return Entry.of(run.identities[NAMES[5]], key, run.server.manifest)


def _self_made_certificate(run: Rehearsal, key: ExchangeKey) -> Entry:
    """The server plays registry: a certificate for Bo that it signed itself."""
    return Entry.of(Identity.enrol(BO, Authority("rehearsal", run.server._key), 2**40), key, run.server.manifest)


def _certified_by_bo_himself(run: Rehearsal, key: ExchangeKey) -> Entry:
    mine = SigningKey.generate()
    signature = sign(mine, "certificate", "rehearsal", BO, public_bytes(mine), 2**40)
    return _signed(run, key, mine, Certificate(public_bytes(mine), 2**40, signature))


def _another_federations(run: Rehearsal, key: ExchangeKey) -> Entry:
    """The same registry certified Bo elsewhere."""
    elsewhere = Authority("elsewhere", run.authority.key)
    return Entry.of(Identity.enrol(BO, elsewhere, 2**40), key, run.server.manifest)


def _longer_validity(run: Rehearsal, key: ExchangeKey) -> Entry:
    """Bo's own key, whose certificate the server has made last longer."""
    bo = run.identities[BO]
    return _signed(run, key, bo.key, replace(bo.certificate, expiry=bo.certificate.expiry + 1))


def _of_another_manifest(run: Rehearsal, key: ExchangeKey) -> Entry:
    """Bo's true keys of another run of the same federation."""
    return Entry.of(run.identities[BO], key, replace(run.server.manifest, run="another"))


def _entry(run: Rehearsal, name: str) -> Entry:
    return Entry.from_bytes(run.server.directory([name]))


def _signed(run: Rehearsal, key: ExchangeKey, signer: SigningKey, certificate: Certificate) -> Entry:
    public = key.public_key().public_bytes_raw()
    return Entry(certificate, public, sign(signer, "keys", run.server.manifest.digest, BO, public))


SUBSTITUTES = {
    "the key alone": (_key_alone, f"signature of {BO} on keys"),
    "signed by the server": (_signed_by_the_server, f"signature of {BO} on keys"),
    "another client's": (_another_clients, f"signature of the authority for {BO} on certificate"),
    "a self-made certificate": (_self_made_certificate, f"signature of the authority for {BO} on certificate"),
    "certified by himself": (_certified_by_bo_himself, f"signature of the authority for {BO} on certificate"),
    "another federation's": (_another_federations, f"signature of the authority for {BO} on certificate"),
    "a longer validity": (_longer_validity, f"signature of the authority for {BO} on certificate"),
    "of another manifest": (_of_another_manifest, f"signature of {BO} on keys"),
}


@pytest.mark.parametrize("case", SUBSTITUTES)
def test_a_substituted_key_is_met_by_nobody(case: str, run: Rehearsal) -> None:
    forge, message = SUBSTITUTES[case]
    entry = forge(run, ExchangeKey.generate())
    anna = newcomer(run)
    with pytest.raises(ProtocolError, match=message):
        anna.meet(NAMES, directory(run, entry))
    # Nobody was remembered, so nothing can be masked for anybody.
    with pytest.raises(ProtocolError, match="one whose keys this client has met"):
        anna.contribute(1, "train", "model", NAMES, np.zeros(LENGTH, np.uint16))
    # Nor does the honest server take it for Bo's.
    with pytest.raises(ProtocolError, match=message):
        run.server.join(BO, entry.to_bytes())


def test_a_key_is_not_exchanged_in_the_middle_of_a_run(run: Rehearsal) -> None:
    """Even with Bo's signing key, as of a second phone of his: the masks were agreed with the first."""
    second = Entry.of(run.identities[BO], ExchangeKey.generate(), run.server.manifest)
    with pytest.raises(ProtocolError, match=f"keys of {BO}: found 'a second key in one run'"):
        run.clients[ANNA].meet([BO], second.to_bytes())
    with pytest.raises(ProtocolError, match=f"keys of {BO}: found 'a second key in one run'"):
        run.server.join(BO, second.to_bytes())


# Points of order 1, 2, 4 and 8 of curve25519 and its twist (https://cr.yp.to/ecdh.html#validate).
LOW_ORDER = [
    "0" * 64,
    "01" + "0" * 62,
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ec" + "ff" * 30 + "7f",
    "ed" + "ff" * 30 + "7f",
    "ee" + "ff" * 30 + "7f",
]


@pytest.mark.parametrize("point", LOW_ORDER)
def test_a_key_of_low_order_does_not_even_join(point: str, run: Rehearsal) -> None:
    """With it anybody could compute the exchange's result. Bo alone could sign it, and would stop all he is with."""
    bo, exchange = run.identities[BO], bytes.fromhex(point)
    entry = Entry(bo.certificate, exchange, sign(bo.key, "keys", run.server.manifest.digest, BO, exchange))
    with pytest.raises(ProtocolError, match=r"exchange key: .* expected a point of full order"):
        newcomer(run).meet(NAMES, directory(run, entry))
    server = PairwiseServer(run.server.manifest, run.server._key, run.authority.public)
    with pytest.raises(ProtocolError, match=r"exchange key: .* expected a point of full order"):
        server.join(BO, entry.to_bytes())


def test_two_names_for_one_entry_and_entries_out_of_order_are_refused(run: Rehearsal) -> None:
    entries = [run.server.directory([name]) for name in NAMES]
    with pytest.raises(ProtocolError, match="different ones"):
        newcomer(run).meet([BO, BO], entries[1] * 2)
    with pytest.raises(ProtocolError, match=f"the authority for {BO}"):
        newcomer(run).meet([BO, NAMES[2]], entries[2] + entries[1])
    with pytest.raises(ProtocolError, match="directory length"):
        newcomer(run).meet(NAMES, b"".join(entries)[:-ENTRY])


def test_an_expired_certificate_is_refused_when_met_and_when_summed_with(run: Rehearsal) -> None:
    short = Identity(BO, run.identities[BO].key, run.authority.certify(_enrolment(run, BO), 1_000))
    entry = Entry.of(short, ExchangeKey.generate(), run.server.manifest)
    with pytest.raises(ProtocolError, match=f"certificate of {BO}: found 'expired at 1000'"):
        newcomer(run).meet(NAMES, directory(run, entry))
    now = [999.0]
    anna = newcomer(run, clock=lambda: now[0])
    anna.meet(NAMES, directory(run, entry))
    now[0] = 1_000.0
    with pytest.raises(ProtocolError, match=f"certificate of {BO}: found 'expired at 1000'"):
        anna.contribute(1, "train", "model", NAMES, np.zeros(LENGTH, np.uint16))


def _enrolment(run: Rehearsal, name: str) -> Enrolment:
    return Enrolment.of(name, "rehearsal", run.identities[name].key)


def test_a_revoked_client_is_neither_met_nor_summed_with(run: Rehearsal) -> None:
    revoked = run.authority.revoke(1, [run.identities[BO].certificate.public])
    with pytest.raises(ProtocolError, match=f"certificate of {BO}: found 'revoked'"):
        newcomer(run, revoked=revoked).meet(NAMES, run.server.directory(NAMES))
    anna = run.clients[ANNA]
    anna.revoke(revoked)
    with pytest.raises(ProtocolError, match=f"certificate of {BO}: found 'revoked'"):
        anna.contribute(1, "train", "model", NAMES, np.zeros(LENGTH, np.uint16))
    rest = [name for name in NAMES if name != BO]
    assert anna.contribute(1, "train", "model", rest, np.zeros(LENGTH, np.uint16))


def test_a_revocation_is_not_taken_back_by_an_older_list_nor_forged(run: Rehearsal) -> None:
    bo = run.identities[BO].certificate.public
    anna = run.clients[ANNA]
    anna.revoke(run.authority.revoke(2, [bo]))
    anna.revoke(run.authority.revoke(1, []))
    anna.revoke(Revocations())
    forgeries = [
        Revocations(3, frozenset(), run.authority.revoke(2, [bo]).signature),
        replace(run.authority.revoke(2, [bo]), version=3, keys=frozenset()),
        Authority("rehearsal", run.server._key).revoke(3, []),
    ]
    for forged in forgeries:
        with pytest.raises(ProtocolError, match="signature of the authority on revocations"):
            anna.revoke(forged)
    with pytest.raises(ProtocolError, match="revoked"):
        anna.contribute(1, "train", "model", NAMES, np.zeros(LENGTH, np.uint16))
