"""A client's side of secure sessions: which manifest it has agreed to, and its end of the channel."""

from __future__ import annotations

import json
from collections.abc import Sequence

from fedpeft.errors import ProtocolError
from fedpeft.federation.trust import FEDERATION, IDENTITY, PINNED, TRUST
from fedpeft.federation.worker import Worker
from fedpeft.files import private_folder, write_private
from fedpeft.methods.attached import SHARED
from fedpeft.secagg import ClientEnd, PlainEnd
from fedpeft.secagg.pairwise import FileLog, PairwiseClient
from fedpeft.secagg.pairwise.ends import PairwiseEnd
from fedpeft.secagg.trust import Identity, Policy, SignedManifest

_SESSION, _MANIFEST = "session", "manifest"


def end_of(worker: Worker, client: str) -> ClientEnd:
    """Return a client's end of the scenario's channel.

    Raises
    ------
    ProtocolError
        When the channel is secure and no session has begun.
    """
    if not worker.scenario.secure:
        return PlainEnd()
    folder = worker.states / client / _SESSION
    try:
        signed = SignedManifest.from_bytes((folder / _MANIFEST).read_bytes())
    except FileNotFoundError as error:
        raise ProtocolError(f"session of {client}", "none", "one that began with keys") from error
    return PairwiseEnd(_member(worker, client, signed))


def join(worker: Worker, client: str, manifest: bytes) -> bytes:
    """Agree to a session's manifest and return this client's keys for it.

    Raises
    ------
    ProtocolError
        When the manifest is not what this client's policy allows, or of an earlier session.
    """
    folder = private_folder(worker.states / client / _SESSION)
    signed = SignedManifest.from_bytes(manifest)
    accepted = _policy(worker).accept(signed)
    known = folder / _MANIFEST
    if not known.exists() or known.read_bytes() != manifest:
        if known.exists():
            last = SignedManifest.from_bytes(known.read_bytes()).open(_policy(worker).operator)
            if _number(accepted.run) <= _number(last.run):
                raise ProtocolError("manifest run", accepted.run, f"a session after {last.run}")
        FileLog(folder).clear()
        write_private(known, manifest)
    return _member(worker, client, signed).keys()


def meet(worker: Worker, client: str, clients: Sequence[str], directory: bytes) -> None:
    """Check and remember the peers of a session."""
    end = end_of(worker, client)
    if not isinstance(end, PairwiseEnd):
        raise ProtocolError("stage", "meet", "none, on the plain channel")
    end.client.meet(clients, directory)


def _member(worker: Worker, client: str, signed: SignedManifest) -> PairwiseClient:
    folder = worker.states / client
    return PairwiseClient(Identity.load(folder / IDENTITY), _policy(worker), signed, FileLog(folder / _SESSION))


def _policy(worker: Worker) -> Policy:
    """Return what simulated clients demand: the pinned keys, and exactly the scenario that they hold themselves."""
    path = worker.states.parent / TRUST / PINNED
    try:
        pinned = json.loads(path.read_text(encoding="utf-8"))
        authority, operator = bytes.fromhex(pinned["authority"]), bytes.fromhex(pinned["operator"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ProtocolError(f"pinned keys {path}", str(error), "the authority's and the operator's keys") from error
    channel = worker.scenario.channel
    return Policy(
        authority=authority,
        operator=operator,
        federation=FEDERATION,
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
