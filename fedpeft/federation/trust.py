"""The keys of a simulation: every key that a federation has, in the run's own folder, and no check left out.

In a deployed federation the registry authority, the operator and each device keep their own; here they all live on one
machine, so that the same protocol runs with the same refusals. ``trust/`` holds authority, operator and server keys,
``clients/<name>/identity`` a client's. A run that goes on after an interruption begins a new session: the operator
signs a new manifest and clients agree on new keys, because a round that is run again must not reuse what was said in
it.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from fedpeft.device.folders import TRUST
from fedpeft.federation.session_keys import SessionKeys
from fedpeft.federation.worker import Worker
from fedpeft.files import private_folder, write_private
from fedpeft.secagg.trust import Authority, Identity, SignedManifest
from fedpeft.secagg.trust.enrolling import Pinned
from fedpeft.signing.keyfile import own_key
from fedpeft.signing.signature import SigningKey, public_bytes

PINNED, IDENTITY, FEDERATION = "pinned.json", "identity", "simulation"
# Simulated certificates outlive every simulation.
_EXPIRY = 2**40


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
        pinned = Pinned(FEDERATION, self.authority.public, public_bytes(self.operator))
        write_private(self._folder / PINNED, pinned.to_json().encode())

    @property
    def keys(self) -> SessionKeys:
        """What begins sessions."""
        counter = self._folder / "session"
        return SessionKeys(FEDERATION, self.authority.public, self.operator, self.server, counter)

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
        """Sign a manifest for what is left of a run."""
        return self.keys.session(worker, run)

    def _key(self, name: str) -> SigningKey:
        return own_key(self._folder / f"{name}.pem")
