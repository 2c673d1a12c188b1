"""What happens to a message on its way costs nobody a round: a real SuperLink behind a proxy that spoils everything."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fedpeft.federation.deployed.status import status_of

from .clock import an_hour_ahead
from .faulty_proxy import CUT, CUT_REPLY, GARBAGE, FaultyProxy
from .federation import CLIENTS, Federation, Node, found, scenario_of

_LARGE = 4096  # bytes: the part of a message that holds the numbers


@pytest.fixture
def behind(tmp_path: Path) -> Iterator[tuple[Federation, FaultyProxy]]:
    server = found(tmp_path / "server")
    with FaultyProxy(server.certificate, server.certificate_key, server.ca, server.address) as proxy:
        made = Federation(tmp_path, scenario_of(2), server, proxy.address)
        fast = made.reference[0].client_ids[0]
        made.nodes[0] = Node(server, made.file, tmp_path / fast, tmp_path / f"{fast}-me", proxy.address, an_hour_ahead)
        proxy.spoil("activate-node", GARBAGE)
        proxy.spoil("", 502, times=2)
        for node in made.nodes:
            node.start()
        made.thread.start()
        try:
            yield made, proxy
        finally:
            made.supervisor.stop()
            made.thread.join(60)
            for node in made.nodes:
                node.stop()


@pytest.mark.slow
def test_no_fault_on_the_way_of_a_message_costs_a_client_the_round_or_a_bit_of_the_sum(
    behind: tuple[Federation, FaultyProxy],
) -> None:
    federation, proxy = behind
    federation.wait_for_round(0)
    clients = status_of(federation.server)["clients"]
    assert (clients["enrolled"], clients["online"]) == (CLIENTS, CLIENTS)
    begun = time.monotonic()
    proxy.spoil("pull-messages", CUT_REPLY, least=1)  # handed over to nobody: it is sent again
    proxy.spoil("pull-object", 500, times=2)
    proxy.spoil("confirm-message-received", 502, times=2)
    proxy.spoil("push-messages", CUT_REPLY, times=2)  # announced; the node does not know where to send the parts
    proxy.spoil("push-object", CUT, times=2, least=_LARGE)  # the upload breaks off in the middle
    proxy.spoil("push-object", CUT_REPLY)
    federation.finish()
    rows = federation.rounds
    assert [row.get("reasons") for row in rows] == [None] * 3, federation.story()
    assert [row.get("contributors") for row in rows] == [None, CLIENTS, CLIENTS], federation.story()
    np.testing.assert_array_equal(federation.found(), federation.expected())
    assert proxy.spoilt
    assert [node.stop() for node in federation.nodes] == [0] * CLIENTS
    (run,) = status_of(federation.server)["runs"]
    assert (run["status"], run["round"], run["burnt"]) == ("finished", 2, 0)
    assert not [file for file in (federation.server.secret, federation.server.ca_key) if file.stat().st_mode & 0o077]
    # Four messages a round, and the session's end: three parts each way, and few more for what was spoilt.
    parts = proxy.counts(begun)["pull-object"] + proxy.counts(begun)["push-object"]
    assert parts < 2 * 3 * (2 * 4 + 1) * CLIENTS * 1.3
