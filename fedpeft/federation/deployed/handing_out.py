"""After the last round: all of the session get the global adapter, those who had no part in the last rounds too."""

from __future__ import annotations

from flwr.app import Message
from flwr.serverapp import Grid

from fedpeft.adapters.schema import Vector
from fedpeft.errors import ProtocolError
from fedpeft.federation.exchange import exchange
from fedpeft.federation.messages import read_facts
from fedpeft.federation.rounds import Rounds


def hand_out(grid: Grid, rounds: Rounds, change: Vector) -> dict[str, str]:
    """Send the adapter that a run came to; return who did not say that they have it, and why.

    Parameters
    ----------
    grid : Grid
        With a deadline of its own: the run is over, and nobody is waited for as in a round.
    rounds : Rounds
        Of the run.
    change : ndarray of float32
        The published global change.
    """

    def take(client: str, message: Message) -> None:
        if read_facts(message).get("client") != client:
            raise ProtocolError(f"answer of {client}", read_facts(message), "its name")

    content = rounds.request(rounds.plan(rounds.scenario.federation.rounds, change), change)
    sent = exchange(
        grid,
        "query.adopt",
        rounds.roll.nodes,
        dict.fromkeys(rounds.roll.clients, content),
        take,
        lambda done, total: rounds.watcher.stage("adopt", done, total),
    )
    return sent.failures
