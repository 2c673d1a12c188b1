"""A client's side of secure sessions: which manifest it has agreed to, and its end of the channel.

On disk: the manifest of the latest session, the latest revocation list, and beside them a folder with that session's
keys, named after the manifest.
The manifest is replaced at once and before anything else, so a client that is killed in between has either the old
session or the new one, and in neither does it forget what it said in it.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from fedpeft.device.folders import TRUST
from fedpeft.errors import ProtocolError
from fedpeft.federation.trust import IDENTITY, PINNED
from fedpeft.federation.worker import Worker
from fedpeft.methods.attached import SHARED
from fedpeft.secagg import ClientEnd, PlainEnd
from fedpeft.secagg.pairwise import FileLog, PairwiseClient
from fedpeft.secagg.pairwise.ends import PairwiseEnd
from fedpeft.secagg.trust import Identity, Manifest, Policy, Revocations, SignedManifest
from fedpeft.secagg.trust.enrolling import Pinned

_SESSION, _MANIFEST, _REVOKED = "session", "manifest", "revoked"


def end_of(worker: Worker, client: str) -> ClientEnd:
    """Return a client's end of the scenario's channel.

    Raises
    ------
    ProtocolError
        When the channel is secure and no session has begun.
    """
    if not worker.scenario.secure:
        return PlainEnd()
    data = _agreed(worker, client).read(_MANIFEST)
    if data is None:
        raise ProtocolError(f"session of {client}", "none", "one that began with keys")
    signed = SignedManifest.from_bytes(data)
    return PairwiseEnd(_member(worker, client, signed, _policy(worker).accept(signed)))


def join(worker: Worker, client: str, manifest: bytes, revoked: Revocations | None = None) -> bytes:
    """Agree to a session's manifest and return this client's keys for it.

    Parameters
    ----------
    worker : Worker
    client : str
    manifest : bytes
        With the operator's signature.
    revoked : Revocations, optional
        The list that the manifest names; without one nobody was ever revoked.

    Raises
    ------
    ProtocolError
        When the manifest is not what this client's policy allows, or of an earlier session, or of one that is over; or
        the list is not the authority's, not the one that the manifest names, or an earlier one than this client knows.
    """
    signed, agreed = SignedManifest.from_bytes(manifest), _agreed(worker, client)
    accepted, listed = _policy(worker).accept(signed), revoked or Revocations()
    if listed.version != accepted.revocations:
        raise ProtocolError("revocation list", listed.version, f"{accepted.revocations}, as the manifest says")
    with agreed.exclusive():  # two processes must not agree to two sessions at once
        known = agreed.read(_MANIFEST)
        if known is not None and known != manifest:
            last = SignedManifest.from_bytes(known).open(_policy(worker).operator)
            if _number(accepted.run) <= _number(last.run):
                raise ProtocolError("manifest run", accepted.run, f"a session after {last.run}")
        _take(worker, agreed, listed)
        member = _member(worker, client, signed, accepted)
        if known != manifest:
            agreed.write(_MANIFEST, manifest)
            _forget_others(worker, client, accepted)
        elif _log(worker, client, accepted).read("peers") is None:
            raise ProtocolError("manifest run", accepted.run, "a session that is not over")
        return member.keys()


def _take(worker: Worker, agreed: FileLog, listed: Revocations) -> None:
    """Remember a revocation list, before the session in which it counts; never an earlier one than the last."""
    policy, last = _policy(worker), _known(agreed)
    listed.check(policy.authority, policy.federation)
    if listed.version < last.version:
        raise ProtocolError("revocation list", listed.version, f"{last.version} or a later one: lists never go back")
    if listed != last:
        agreed.write(_REVOKED, listed.to_bytes())


def _known(agreed: FileLog) -> Revocations:
    data = agreed.read(_REVOKED)
    return Revocations() if data is None else Revocations.from_bytes(data)


def leave(worker: Worker, client: str) -> None:
    """Forget the session's keys for good: what was recorded of it stays closed, even to a thief of this device."""
    end = end_of(worker, client)
    if not isinstance(end, PairwiseEnd):
        raise ProtocolError("stage", "leave", "none, on the plain channel")
    end.client.forget()


def meet(worker: Worker, client: str, clients: Sequence[str], directory: bytes) -> None:
    """Check and remember the peers of a session."""
    end = end_of(worker, client)
    if not isinstance(end, PairwiseEnd):
        raise ProtocolError("stage", "meet", "none, on the plain channel")
    end.client.meet(clients, directory)


def _agreed(worker: Worker, client: str) -> FileLog:
    """Return where a client keeps the manifest that it agreed to last."""
    return FileLog(worker.states / client / _SESSION)


def _log(worker: Worker, client: str, manifest: Manifest) -> FileLog:
    return FileLog(worker.states / client / _SESSION / _name(manifest))


def _name(manifest: Manifest) -> str:
    return manifest.digest.hex()[:16]


def _forget_others(worker: Worker, client: str, manifest: Manifest) -> None:
    """Delete the keys of all sessions but one."""
    for path in (worker.states / client / _SESSION).iterdir():
        if path.is_dir() and path.name != _name(manifest):
            shutil.rmtree(path)


def _member(worker: Worker, client: str, signed: SignedManifest, accepted: Manifest) -> PairwiseClient:
    own = worker.device.identity if worker.device else worker.states / client / IDENTITY
    identity = Identity.load(own)
    revoked = _known(_agreed(worker, client))
    return PairwiseClient(identity, _policy(worker), signed, _log(worker, client, accepted), revoked)


def _policy(worker: Worker) -> Policy:
    """Return what clients demand: the pinned keys, and exactly the scenario that they hold themselves."""
    pinned = Pinned.read(worker.device.pinned if worker.device else worker.states.parent / TRUST / PINNED)
    channel = worker.scenario.channel
    return Policy(
        authority=pinned.authority,
        operator=pinned.operator,
        federation=pinned.federation,
        corrupt=channel.corrupt,
        bits=(channel.bits, channel.bits),
        rounds=worker.scenario.federation.rounds,
        schema=worker.attached.schemas[SHARED].digest,
        scenario=worker.scenario.digest,
    )


def _number(run: str) -> int:
    """Return a session's number."""
    number = run.rpartition("/")[2]
    if not number.isdigit():
        raise ProtocolError("manifest run", run, "a name, a slash and the session's number")
    return int(number)
