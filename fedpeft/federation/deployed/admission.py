"""The registry decides which nodes a SuperLink admits: those of certified clients, and no others."""

from __future__ import annotations

import time
from pathlib import Path

from fedpeft.federation.flower_control import ControlLine
from fedpeft.secagg.trust.registry import admitted


def registry_changed(registry: Path) -> int:
    """Return a number that is another one when somebody was certified or revoked."""
    return max(path.stat().st_mtime_ns for path in registry.glob("registry.sqlite*"))


def admit(control: ControlLine, registry: Path) -> list[str]:
    """Make a SuperLink's list of nodes that of the registry, and say what was changed.

    Parameters
    ----------
    control : ControlLine
    registry : Path
        Its folder; the authority's key need not be there.
    """
    wanted, found = admitted(registry, time.time()), control.nodes()
    said = []
    for public, (node, _) in found.items():
        if public not in wanted:
            control.unregister(node)
            said.append(f"node {node} is not admitted any more")
    for public, client in wanted.items():
        if public not in found:
            control.register(public, client)
            said.append(f"the node of {client} is admitted")
    return said
