"""A device joins a federation: with its own identity, what its app pins, and the scenario that it holds itself."""

from __future__ import annotations

import time
from pathlib import Path

from fedpeft.errors import ProtocolError
from fedpeft.federation.client import client_app, node_config_of, worker_at
from fedpeft.federation.node import EmbeddedNode, Rhythm
from fedpeft.federation.node.address import is_address
from fedpeft.federation.node.embedded import Hear
from fedpeft.federation.worker import Device
from fedpeft.files import private_folder
from fedpeft.secagg.trust import Identity, Revocations
from fedpeft.secagg.trust.enrolling import NODE_KEY, Pinned
from fedpeft.signing.nodekey import read_node_key

NODE = "node"


def join_federation(
    folder: Path,
    server: str,
    scenario: Path,
    identity: Path,
    pinned: Path,
    ca: Path,
    hear: Hear = lambda line: None,
    rhythm: Rhythm | None = None,
    device: str = "",
) -> EmbeddedNode:
    """Return a device's node, checked and with its base loaded; ``run()`` takes part.

    Parameters
    ----------
    folder : Path
        The device's own: private parts, sessions, what the node was doing.
    server : str
        ``host:port``.
    scenario : Path
        What the device agrees to; a server that runs anything else is refused.
    identity : Path
        Folder of its keys and its certificate.
    pinned, ca : Path
        ``pinned.json`` and ``ca.pem``, as the app has them.
    hear : callable, optional
        Told, in one line each, what happens.
    rhythm : Rhythm, optional
    device : str, optional
        Which of the scenario's classes of devices this one is of; by default the one that the scenario draws for it.

    Raises
    ------
    FedpeftError
        When a file is missing or not this client's, or the client is not one of the scenario's.
    """
    if not is_address(server):
        raise ProtocolError("server", server, "host:port, such as fed.example.org:8000")
    known, own = Pinned.read(pinned), Identity.load(identity)
    own.certificate.check(known.authority, known.federation, own.client, time.time(), Revocations())
    key = read_node_key(identity / NODE_KEY)
    whose = Device(own.client, identity.resolve(), pinned.resolve(), device)
    run_config = {"scenario": str(scenario.resolve()), "run-folder": str(private_folder(folder).resolve())}
    # Loaded before the SuperLink hears of this node: it then answers at once.
    worker = worker_at(run_config["scenario"], run_config["run-folder"], whose)
    if own.client not in worker.client_ids:
        raise ProtocolError("client", own.client, f"one of the {len(worker.client_ids)} clients of {scenario}")
    _ = worker.splits(own.client)
    return EmbeddedNode(client_app(), server, ca, key, folder / NODE, node_config_of(whose), run_config, hear, rhythm)
