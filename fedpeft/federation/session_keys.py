"""What a server needs to begin a secure session: whom it trusts, and the keys under which a session is signed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedpeft.errors import ProtocolError
from fedpeft.federation.personal import people_codec
from fedpeft.federation.worker import Worker
from fedpeft.files import write_durably
from fedpeft.methods.attached import SHARED
from fedpeft.scenario import Scenario
from fedpeft.secagg.trust import Manifest, Revocations, SignedManifest, Terms
from fedpeft.secagg.trust.manifest import majority
from fedpeft.signing.signature import SigningKey, public_bytes

# A partition may alternate between two sets of tensors: payloads of even rounds, then of odd ones.
_PARITIES: Sequence[int] = (0, 1)

PEOPLE_PURPOSE = "people"
"""What people's scores after the last round are summed for."""


@dataclass(frozen=True)
class SessionKeys:
    """The server's side of trust.

    Parameters
    ----------
    federation : str
    authority : bytes
        The registry's public key.
    operator : SigningKey
        Signs manifests.
    server : SigningKey
        Signs requests; the manifest names it.
    counter : Path
        File with the number of the last session.
    revoked : callable
        Returns the latest revocation list.
    least : callable
        The least number that the next session may have. A server's is the time in seconds: when its folder comes back
        from an older backup the counter is behind what clients have seen, but the clock is not, because sessions are
        rarer than seconds. Where the clock is behind, the counter counts.
    people : bool
        Whether people's scores are summed after the rounds: on a real server, where nobody may see one person's.
    """

    federation: str
    authority: bytes
    operator: SigningKey
    server: SigningKey
    counter: Path
    revoked: Callable[[], Revocations] = Revocations
    least: Callable[[], float] = float
    people: bool = False

    def session(self, worker: Worker, run: str, revocations: int = 0) -> SignedManifest:
        """Sign a manifest for what is left of a run; sessions are numbered, and clients never go back to one.

        Parameters
        ----------
        worker : Worker
        run : str
            Its name.
        revocations : int
            Number of the revocation list with which it begins.

        Raises
        ------
        ProtocolError
            When the counter is damaged: to guess would let clients be led back to an earlier session.
        """
        number = max(self._last() + 1, int(self.least()))
        write_durably(self.counter, str(number).encode())
        return SignedManifest.of(self._manifest(worker, f"{run}/{number}", revocations), self.operator)

    def _last(self) -> int:
        if not self.counter.exists():
            return 0
        text = self.counter.read_text(encoding="ascii", errors="replace")
        if not text.isascii() or not text.isdigit():
            raise ProtocolError(f"session counter {self.counter}", text[:20], "a number", "write the last session's")
        return int(text)

    def _manifest(self, worker: Worker, run: str, revocations: int) -> Manifest:
        scenario = worker.scenario
        return Manifest(
            federation=self.federation,
            run=run,
            server=public_bytes(self.server).hex(),
            terms=(*terms(worker, scenario), *(people_terms(worker) if self.people else ())),
            rounds=scenario.federation.rounds,
            corrupt=scenario.channel.corrupt,
            dropout=scenario.vanishing,
            schema=worker.attached.schemas[SHARED].digest,
            scenario=scenario.digest,
            revocations=revocations,
        )


def terms(worker: Worker, scenario: Scenario) -> tuple[Terms, ...]:
    """Return what is summed in a scenario: updates, and the panel's totals where there is a panel."""
    federation, ring, panel = scenario.federation, worker.ring, worker.tally_codec.ring
    lengths = tuple(worker.train_codec(parity).length for parity in _PARITIES)
    least = max(majority(ring.clients, scenario.channel.corrupt), federation.minimum)
    train = Terms("train", lengths, ring.bits, ring.range, least, ring.clients)
    if not federation.panel:
        return (train,)
    few = majority(panel.clients, scenario.channel.corrupt)
    return train, Terms("evaluate", (worker.tally_codec.length,), panel.bits, panel.range, few, panel.clients)


def people_terms(worker: Worker) -> tuple[Terms, ...]:
    """Return what is summed after the rounds: people's scores, where the scenario asks for any."""
    scenario = worker.scenario
    if not scenario.personalization.people:
        return ()
    codec = people_codec(worker)
    least = majority(codec.ring.clients, scenario.channel.corrupt)
    ring = codec.ring
    return (Terms(PEOPLE_PURPOSE, (codec.length,), ring.bits, ring.range, least, ring.clients),)
