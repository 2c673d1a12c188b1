"""A device joins a federation: with its own identity, what its app pins, and the scenario that it holds itself."""

from __future__ import annotations

import time
from pathlib import Path

from fedpeft.address import is_address
from fedpeft.device.edge.joining import Seat
from fedpeft.errors import ProtocolError
from fedpeft.federation.client import STATES, client_app, node_config_of, serve_device
from fedpeft.federation.node import EmbeddedNode, Rhythm
from fedpeft.federation.node.embedded import Hear
from fedpeft.federation.worker import Device, Worker
from fedpeft.files import private_folder
from fedpeft.scenario import load_scenario
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
    worker = open_worker(folder, server, scenario, identity, pinned, device)
    return open_node(worker, folder, server, scenario, ca, hear, rhythm)


def open_worker(
    folder: Path,
    server: str,
    scenario: Path,
    identity: Path,
    pinned: Path,
    device: str = "",
    seat: Seat | None = None,
) -> Worker:
    """Check who a device is and load its base; the text is the seat's where the scenario leaves it to the devices.

    Parameters and errors as of :func:`join_federation`.
    """
    if not is_address(server):
        raise ProtocolError("server", server, "host:port, such as fed.example.org:8000")
    known, own = Pinned.read(pinned), Identity.load(identity)
    own.certificate.check(known.authority, known.federation, own.client, time.time(), Revocations())
    whose = Device(own.client, identity.resolve(), pinned.resolve(), device)
    agreed = load_scenario(scenario)
    if agreed.enrolled and seat is None:
        remedy = "join with an EdgeClient: `fedpeft client join --home …`"
        raise ProtocolError(f"scenario {scenario}", "enrolled", "a device with text of its own", remedy)
    # Loaded before the SuperLink hears of this node: it then answers at once.
    worker = Worker(agreed, private_folder(folder) / STATES, whose, seat)
    if own.client not in worker.client_ids:
        raise ProtocolError("client", own.client, f"one of the {len(worker.client_ids)} clients of {scenario}")
    _ = worker.splits(own.client)
    serve_device(worker)
    return worker


def open_node(
    worker: Worker, folder: Path, server: str, scenario: Path, ca: Path, hear: Hear, rhythm: Rhythm | None
) -> EmbeddedNode:
    """Return the node of a device whose base is loaded; see :func:`join_federation`."""
    device = worker.device
    if device is None:
        raise ProtocolError("worker", "a simulation's", "a device's")
    config = {"scenario": str(scenario.resolve()), "run-folder": str(folder.resolve())}
    key, own = read_node_key(device.identity / NODE_KEY), node_config_of(device)
    return EmbeddedNode(client_app(), server, ca, key, folder / NODE, own, config, hear, rhythm)
