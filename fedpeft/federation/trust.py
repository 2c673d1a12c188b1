"""The keys of a simulation: every key that a federation has, in the run's own folder, and no check left out.

In a deployed federation the registry authority, the operator and each device keep their own; here they all live on one
machine, so that the same protocol runs with the same refusals. ``trust/`` holds authority, operator and server keys,
``clients/<name>/identity`` a client's. A run that goes on after an interruption begins a new session: the operator
signs a new manifest and clients agree on new keys, because a round that is run again must not reuse what was said in
it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from fedpeft.device.folders import TRUST
from fedpeft.federation.worker import Worker
from fedpeft.files import private_folder, write_private
from fedpeft.methods.attached import SHARED
from fedpeft.scenario import Scenario
from fedpeft.secagg.trust import Authority, Identity, Manifest, SignedManifest, Terms
from fedpeft.secagg.trust.manifest import majority
from fedpeft.signing.keyfile import own_key
from fedpeft.signing.signature import SigningKey, public_bytes

PINNED, IDENTITY, FEDERATION = "pinned.json", "identity", "simulation"
# Simulated certificates outlive every simulation.
_EXPIRY = 2**40
# A partition may alternate between two sets of tensors: payloads of even rounds, then of odd ones.
_PARITIES = (0, 1)


class Trust:
    """Authority, operator and server of a simulation; their keys are made when they are not there yet.

    Parameters
    ----------
    run : Path
        The run's folder.
    """

    def __init__(self, run: Path) -> None:
        self._folder = private_folder(run / TRUST)
        self.authority = Authority(FEDERATION, self._key("authority"))
        self.operator, self.server = self._key("operator"), self._key("server")
        pinned = {"authority": self.authority.public.hex(), "operator": public_bytes(self.operator).hex()}
        write_private(self._folder / PINNED, json.dumps(pinned).encode())

    def enrol(self, clients: Sequence[str], states: Path) -> None:
        """Give every client a certified key of its own, once, in its own folder."""
        for client in clients:
            folder = private_folder(states / client) / IDENTITY
            if not folder.exists():
                draft = folder.with_name(f".{IDENTITY}")
                shutil.rmtree(draft, ignore_errors=True)  # of a process that was killed here
                Identity.enrol(client, self.authority, _EXPIRY).save(draft)
                draft.rename(folder)

    def session(self, worker: Worker, run: str) -> SignedManifest:
        """Sign a manifest for what is left of a run; sessions are numbered, and clients never go back to one."""
        path = self._folder / "session"
        number = int(path.read_text(encoding="ascii")) + 1 if path.exists() else 1
        write_private(path, str(number).encode())
        return SignedManifest.of(self._manifest(worker, f"{run}/{number}"), self.operator)

    def _manifest(self, worker: Worker, run: str) -> Manifest:
        scenario = worker.scenario
        return Manifest(
            federation=FEDERATION,
            run=run,
            server=public_bytes(self.server).hex(),
            terms=terms(worker, scenario),
            rounds=scenario.federation.rounds,
            corrupt=scenario.channel.corrupt,
            dropout=scenario.channel.dropout,
            schema=worker.attached.schemas[SHARED].digest,
            scenario=scenario.digest,
        )

    def _key(self, name: str) -> SigningKey:
        return own_key(self._folder / f"{name}.pem")


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
