"""The server's side of a secure session's ends: an invitation goes out, keys come back, all meet; all leave."""

from __future__ import annotations

from dataclasses import replace

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from fedpeft.errors import ProtocolError, RunError
from fedpeft.federation.cohort import Roll
from fedpeft.federation.exchange import exchange
from fedpeft.federation.messages import parcel, read_facts, read_parcel
from fedpeft.federation.session_keys import PEOPLE_PURPOSE, SessionKeys, terms
from fedpeft.federation.watcher import Watcher
from fedpeft.federation.worker import Worker
from fedpeft.secagg import PlainServer, ServerEnd
from fedpeft.secagg.pairwise import PairwiseServer
from fedpeft.secagg.pairwise.ends import PairwiseServerEnd
from fedpeft.secagg.pairwise.parameters import cohort_flaw
from fedpeft.secagg.pairwise.wire import ENTRY
from fedpeft.secagg.trust import Invitation, Manifest
from fedpeft.signing.signature import public_bytes


def begin_session(
    grid: Grid, worker: Worker, roll: Roll, keys: SessionKeys | None, run: str, watcher: Watcher
) -> tuple[ServerEnd, Roll]:
    """Open the scenario's channel with everybody on the roll.

    Parameters
    ----------
    grid : Grid
    worker : Worker
    roll : Roll
    keys : SessionKeys or None
        None for the plain channel, which has no sessions.
    run : str
        Its name.
    watcher : Watcher

    Returns
    -------
    end : ServerEnd
    roll : Roll
        Without those whose keys were refused or who refused the manifest.

    Raises
    ------
    RunError
        When fewer clients than a cohort needs, or the panel, have joined.
    """
    if keys is None:
        return PlainServer(), roll
    listed = keys.revoked()
    signed = keys.session(worker, run, listed.version)
    manifest = signed.open(public_bytes(keys.operator))
    server = PairwiseServer(manifest, keys.server, keys.authority, listed)

    def join(client: str, message: Message) -> None:
        server.join(client, read_parcel(message.content, ENTRY))

    def met(client: str, message: Message) -> None:
        if read_facts(message) != {"client": client}:
            raise ProtocolError(f"answer of {client}", read_facts(message), "its name")

    skipped = dict(roll.skipped)
    asked = exchange(
        grid,
        "query.keys",
        roll.nodes,
        dict.fromkeys(roll.clients, parcel(Invitation.of(signed, listed).to_bytes())),
        join,
        lambda done, total: watcher.stage("keys", done, total),
    )
    skipped |= asked.failures
    joined = [client for client in roll.clients if client in server.joined]
    content = parcel(server.directory(joined), joined)
    told = exchange(
        grid,
        "query.meet",
        roll.nodes,
        dict.fromkeys(joined, content),
        met,
        lambda done, total: watcher.stage("meet", done, total),
    )
    skipped |= told.failures
    ready = {client: node for client, node in roll.nodes.items() if client not in skipped}
    error = _too_few(manifest, len(ready), next(iter(skipped.values()), "and no more"))
    if error is not None:
        raise error
    return PairwiseServerEnd(server, keys.revoked), replace(roll, nodes=ready, skipped=skipped)


def enough(worker: Worker, clients: int) -> bool:
    """Say whether so many clients are enough for a session."""
    scenario = worker.scenario
    if not scenario.secure:
        return clients >= scenario.federation.minimum
    corrupt, dropout = scenario.channel.corrupt, scenario.vanishing
    return not any(cohort_flaw(one, clients, corrupt, dropout) for one in terms(worker, scenario))


def _too_few(manifest: Manifest, ready: int, reason: str) -> RunError | None:
    """Return why no cohort could be opened; better here than in the first round."""
    for one in manifest.terms:
        if one.purpose == PEOPLE_PURPOSE:
            continue  # no round waits for it
        flaw = cohort_flaw(one, ready, manifest.corrupt, manifest.dropout)
        if flaw is not None:
            return RunError(f"secure session, {one.purpose}", f"{ready} clients ({reason})", flaw)
    return None


def end_session(grid: Grid, worker: Worker, roll: Roll, watcher: Watcher) -> None:
    """Tell everybody that the rounds are over and the session's keys can go; who does not hear it keeps them longer."""
    if worker.scenario.secure:
        exchange(
            grid,
            "query.leave",
            roll.nodes,
            dict.fromkeys(roll.clients, RecordDict()),
            lambda client, message: None,
            lambda done, total: watcher.stage("leave", done, total),
        )
