"""What hangs at the gate for everybody to read: which federation this is, what it runs, and where its server is."""

from __future__ import annotations

import json
import tomllib
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from fedpeft.data.enrolled import ENROLLED
from fedpeft.errors import GateError, ScenarioError, TokenError
from fedpeft.gate.token import require_address
from fedpeft.secagg.trust.enrolling import Pinned
from fedpeft.signing.tls import CA, fingerprint

PORT = 8001
"""Where a gate listens unless it is told otherwise."""

FEDERATION, ENROL = "/gate/federation", "/gate/enrol"
"""What is asked for, and where a token is shown."""

LONGEST = 256 << 10
"""Bytes of a notice; a device reads no more."""

TLS = "tls"
"""Where a server's folder keeps its certificates."""

_PINNED, _SETTINGS = "pinned.json", "server.toml"


@dataclass(frozen=True)
class Notice:
    """A federation, as a device's app must know it.

    Parameters
    ----------
    pinned : str
        The content of ``pinned.json``.
    ca : str
        The content of ``ca.pem``.
    scenario : str
        What it runs, in TOML.
    server : str
        ``host:port`` of its SuperLink.
    """

    pinned: str
    ca: str
    scenario: str
    server: str

    @classmethod
    def of(cls, folder: Path, scenario: Path, server: str = "") -> Notice:
        """Read what `fedpeft server init` made.

        Parameters
        ----------
        folder : Path
        scenario : Path
        server : str, optional
            By default the first of ``hosts`` in ``server.toml``, or where the SuperLink listens, with its port.

        Raises
        ------
        GateError
            When a file is missing or wrong.
        ScenarioError
            When the scenario is not one of enrolled devices.
        """
        try:
            texts = [path.read_text(encoding="utf-8") for path in (folder / _PINNED, folder / TLS / CA, scenario)]
        except (OSError, UnicodeDecodeError) as error:
            raise GateError(
                "gate", str(error)[:120], f"{folder} as `fedpeft server init` made it, and a scenario"
            ) from error
        return cls(texts[0], texts[1], texts[2], server or ":".join(map(str, public_host(folder)))).checked(str(folder))

    @classmethod
    def parse(cls, data: bytes, where: str) -> Notice:
        """Read what a gate answered.

        Raises
        ------
        FedpeftError
            When anything in it is not what it must be.
        """
        try:
            found = json.loads(data)
            made = cls(*(str(found[field.name]) for field in fields(cls)))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise GateError(where, str(error)[:80], "what a gate says of its federation") from error
        return made.checked(where)

    def checked(self, where: str) -> Notice:
        """Refuse what no device could use, or should."""
        Pinned.parse(self.pinned.encode(), where)
        fingerprint(self.ca.encode(), where)
        require_enrolled(self.scenario, where)
        try:
            require_address(f"{where} server", self.server)
        except TokenError as error:
            raise GateError(error.field, error.value, error.expected) from error
        return self

    def to_bytes(self) -> bytes:
        """Return what travels."""
        return json.dumps(asdict(self)).encode()

    @property
    def federation(self) -> str:
        """Its name."""
        return Pinned.parse(self.pinned.encode(), "notice").federation


def require_enrolled(text: str, where: str) -> None:
    """Refuse a scenario whose text is not the devices' own: one from elsewhere might name code to be run.

    Raises
    ------
    ScenarioError
    """
    try:
        tables: dict[str, Any] = tomllib.loads(text)
        found = tables["data"]["federation"]
    except (ValueError, KeyError, TypeError, RecursionError):
        found = None
    if found != ENROLLED:
        raise ScenarioError(f"{where} scenario: data.federation", found, repr(ENROLLED), "devices bring their own text")


def public_host(folder: Path) -> tuple[str, int]:
    """Return under which name or address devices reach a server, and its port.

    Raises
    ------
    GateError
        When there is no server in the folder.
    """
    path = folder / _SETTINGS
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
        hosts = [*found.get("hosts", []), found.get("listen", "127.0.0.1")]
        host, port = str(hosts[0]), int(found.get("port", 8000))
    except (OSError, ValueError, TypeError) as error:
        raise GateError(
            f"settings {path}", str(error)[:120], "server.toml of a server", "`fedpeft server init`"
        ) from error
    return (f"[{host}]" if ":" in host else host), port


def authority_of(ca: Path) -> bytes:
    """Return the fingerprint of a server's TLS authority, which tokens carry."""
    try:
        return fingerprint(ca.read_bytes(), str(ca))
    except OSError as error:
        raise GateError(f"authority {ca}", error.strerror, "ca.pem of a server", "`fedpeft server init`") from error
