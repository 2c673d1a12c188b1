"""A whole run of the protocol in one process, with every key and every check: for tests and benchmarks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fedpeft.codecs.ring import Ring
from fedpeft.errors import ProtocolError
from fedpeft.secagg.pairwise.client import PairwiseClient
from fedpeft.secagg.pairwise.log import MemoryLog
from fedpeft.secagg.pairwise.round import PairwiseRound
from fedpeft.secagg.pairwise.server import PairwiseServer
from fedpeft.secagg.trust import Authority, Identity, Manifest, Policy, SignedManifest, Terms
from fedpeft.secagg.trust.manifest import majority
from fedpeft.signing.signature import SigningKey, public_bytes

_EXPIRY = 2**40


@dataclass
class Rehearsal:
    """A server and clients that have met.

    Parameters
    ----------
    authority : Authority
    operator : SigningKey
    server : PairwiseServer
    clients : dict of str to PairwiseClient
    policy : Policy
    signed : SignedManifest
    identities : dict of str to Identity
    logs : dict of str to MemoryLog
    """

    authority: Authority
    operator: SigningKey
    server: PairwiseServer
    clients: dict[str, PairwiseClient]
    policy: Policy
    signed: SignedManifest
    identities: dict[str, Identity]
    logs: dict[str, MemoryLog]

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        length: int,
        bits: int = 16,
        corrupt: float = 0.1,
        dropout: float = 0.1,
        purposes: Sequence[str] = ("train",),
        rounds: int = 10_000,
    ) -> Rehearsal:
        """Enrol clients, sign a manifest for all of them at once, and let everybody meet."""
        authority, operator, key = Authority.create("rehearsal"), SigningKey.generate(), SigningKey.generate()
        n = len(names)
        terms = tuple(Terms(purpose, (length,), bits, 1.0, majority(n, corrupt), n) for purpose in purposes)
        manifest = Manifest("rehearsal", "run", public_bytes(key).hex(), terms, rounds, corrupt, dropout)
        signed = SignedManifest.of(manifest, operator)
        policy = Policy(authority.public, public_bytes(operator), "rehearsal")
        identities = {name: Identity.enrol(name, authority, _EXPIRY) for name in names}
        logs = {name: MemoryLog() for name in names}
        clients = {name: PairwiseClient(identities[name], policy, signed, logs[name]) for name in names}
        server = PairwiseServer(manifest, key, authority.public)
        for name, client in clients.items():
            server.join(name, client.keys())
        directory = server.directory(names)
        for client in clients.values():
            client.meet(names, directory)
        return cls(authority, operator, server, clients, policy, signed, identities, logs)

    def contributed(
        self, round_: int, payloads: Mapping[str, Ring], gone: Sequence[str] = (), model: str = "model"
    ) -> PairwiseRound:
        """Open a round for everybody with a payload and add the contributions of those who are not gone."""
        cohort = list(payloads)
        collected = self.server.open_round(round_, "train", model, cohort)
        for name in cohort:
            if name not in gone:
                collected.add(name, self.clients[name].contribute(round_, "train", model, cohort, payloads[name]))
        return collected

    def finish(
        self, collected: PairwiseRound, answers: Callable[[str, str], bool] = lambda stage, client: True
    ) -> None:
        """Carry requests and replies to and fro until the sum can be opened.

        Parameters
        ----------
        collected : PairwiseRound
        answers : callable, optional
            Says whether (stage, client) still answers.
        """
        while (asked := collected.requests()) is not None:
            stage, requests = asked
            for name, request in requests.items():
                if answers is None or answers(stage, name):
                    try:
                        collected.answer(stage, name, self.clients[name].answer(stage, request))
                    except ProtocolError as error:
                        collected.alerts.append((name, str(error)))
