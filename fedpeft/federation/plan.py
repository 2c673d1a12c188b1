"""What the server asks of a client, and how the client checks it against what it agreed to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

from fedpeft.errors import ProtocolError

_KINDS: dict[str, type] = {"round": int, "scale": float}

LEAST_SCALE = 1e-6
"""Below this share of the range next to nothing of an update is left."""


@dataclass(frozen=True, slots=True)
class RoundPlan:
    """One request of a run.

    Parameters
    ----------
    run : str
        Name of the run.
    round : int
        0 before the first aggregation; the last round's number + 1 for personalization.
    scenario : str
        Digest of the scenario: codec, channel, training and privacy parameters are agreed, never sent.
    schema : str
        Digest of the shared adapter's schema.
    base : str
        Fingerprint of the frozen base.
    model : str
        The sha256 of the global change that comes with the plan.
    scale : float
        Share of the scenario's range that this round's updates may fill; clients do not go beyond it.
    """

    run: str
    round: int
    scenario: str
    schema: str
    base: str
    model: str
    scale: float = 1.0

    @property
    def digest(self) -> str:
        """The sha256 of all of it, which a secure channel binds a round to.

        Whatever else a server may choose, it must choose alike for everybody: clients who clip to next to nothing add
        known integers to a sum, in which the one who was told otherwise could be read.
        """
        return sha256(b"fedpeft-plan/v1" + json.dumps(self.as_record(), sort_keys=True).encode()).hexdigest()

    def as_record(self) -> dict[str, str | int | float]:
        """Return the plan as plain values."""
        return asdict(self)

    @classmethod
    def parse(cls, record: Mapping[str, Any]) -> RoundPlan:
        """Read a plan from a message.

        Raises
        ------
        ProtocolError
            When a field is missing, unknown or of the wrong type.
        """
        fields: dict[str, type] = {name: _KINDS.get(name, str) for name in cls.__slots__}
        if record.keys() != fields.keys():
            raise ProtocolError("round plan", sorted(record), f"exactly {sorted(fields)}")
        for name, kind in fields.items():
            if type(record[name]) is not kind:
                raise ProtocolError(f"round plan {name}", record[name], kind.__name__)
        if not LEAST_SCALE <= record["scale"] <= 1.0:
            raise ProtocolError("round plan scale", record["scale"], f"a share in [{LEAST_SCALE}, 1]")
        return cls(**record)

    def check(self, scenario: str, schema: str, base: str, change: bytes) -> None:
        """Refuse a plan that is not what this client agreed to.

        Raises
        ------
        ProtocolError
            Naming the first part that differs.
        """
        mine = {"scenario": scenario, "schema": schema, "base": base, "model": model_hash(change)}
        for name, expected in mine.items():
            if getattr(self, name) != expected:
                raise ProtocolError(
                    f"round plan {name}",
                    getattr(self, name)[:12],
                    f"{expected[:12]}, as on this client",
                    "server and clients must run the same scenario on the same base",
                )


def model_hash(change: bytes) -> str:
    """Return the hash that binds a plan to the global change it comes with."""
    return sha256(b"fedpeft-model/v1" + change).hexdigest()
