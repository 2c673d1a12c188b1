"""The private Flower names of an operator: which nodes a SuperLink admits."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from flwr.proto.control_pb2 import ListNodesRequest, RegisterNodeRequest, StopRunRequest, UnregisterNodeRequest
from flwr.supercore.control import ControlHttpClient

from fedpeft.errors import MessageGone
from fedpeft.federation.flower_link import Arguments, Versions, translated

_UNREGISTERED = "unregistered"


class ControlLine:
    """An operator's connection.

    Parameters
    ----------
    server : str
        ``host:port``.
    root : Path
        The authority that signed the server's certificate.
    """

    def __init__(self, server: str, root: Path) -> None:
        self._server = server
        self._client = ControlHttpClient(f"https://{server}", **vars(Arguments(root, [Versions("flwr")])))

    def nodes(self) -> dict[bytes, tuple[int, str]]:
        """Return every admitted node's id and status by its public key."""
        with translated("nodes", self._server):
            listed = self._client.ListNodes(ListNodesRequest()).nodes_info
        return {bytes(n.public_key): (int(n.node_id), str(n.status)) for n in listed if n.status != _UNREGISTERED}

    def register(self, public: bytes, name: str) -> None:
        """Admit a node."""
        with translated("registration", self._server):
            self._client.RegisterNode(RegisterNodeRequest(public_key=public, name=name))

    def unregister(self, node: int) -> None:
        """Admit a node no more."""
        with translated("registration", self._server):
            self._client.UnregisterNode(UnregisterNodeRequest(node_id=node))

    def stop_run(self, run: int) -> None:
        """End a run, so that nobody works for it or waits on it any more; one that is over stays so."""
        with suppress(MessageGone), translated("run", self._server):
            self._client.StopRun(StopRunRequest(run_id=run))

    def close(self) -> None:
        """Close the connection."""
        self._client.close()
