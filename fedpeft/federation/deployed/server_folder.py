"""A server's folder: whose federation it is, where it listens, and what is kept under which name.

===================  ==========================================================================
``registry/``        the authority and whom it certified; ``authority.pem`` may be elsewhere
``operator/``        the operator's key, which signs sessions; may be elsewhere
``pinned.json``      what clients' apps pin
``tls/``             ``ca.pem``, which devices trust; the server's certificate; their keys
``server.toml``      where the server listens, and how long it waits
``aggregator.pem``   the key under which the server signs requests
``sessions``         the number of the last session
``flower/``          the SuperLink's database, logs and configuration
``runs/<name>/``     a scenario's run
===================  ==========================================================================
"""

from __future__ import annotations

import secrets
import time
import tomllib
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from fedpeft.address import is_address
from fedpeft.errors import FolderError
from fedpeft.federation.folder import to_toml
from fedpeft.federation.locking import is_held
from fedpeft.federation.session_keys import SessionKeys
from fedpeft.files import private_folder, write_private, write_whole
from fedpeft.secagg.trust.enrolling import Pinned
from fedpeft.secagg.trust.registry import OPERATOR, REGISTRY, found_federation, revoked
from fedpeft.signing.keyfile import own_key, read_key, require_free
from fedpeft.signing.tls import CA, CA_KEY, SERVER, SERVER_KEY, general_name, make_certificates

PINNED, TLS, SETTINGS = "pinned.json", "tls", "server.toml"
_SECRET_BYTES = 32


class Settings(BaseModel):
    """``server.toml``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    listen: str = Field("127.0.0.1", description="Address on which the SuperLink listens.")
    port: int = Field(8000, ge=1, le=65535, description="Its port.")
    hosts: list[str] = Field([], description="Names under which devices reach it, in the certificate.")
    deadline: float = Field(600.0, gt=0, description="Seconds that a client has for one request.")
    gathering: float = Field(60.0, ge=0, description="Seconds to wait for all enrolled clients when a run begins.")
    metrics: str = Field("", description="Where `server up` serves /metrics, as host:port; empty for nowhere.")

    @field_validator("metrics")
    @classmethod
    def _an_address(cls, value: str) -> str:
        if value and not is_address(value):
            raise ValueError(f"expected host:port, such as 127.0.0.1:9464, found {value!r}")
        return value


class ServerFolder:
    """Paths and settings of a server.

    Parameters
    ----------
    path : Path

    Raises
    ------
    FolderError
        When there is no server, or its settings are wrong.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.pinned_file, self.registry = self.path / PINNED, self.path / REGISTRY
        self.ca, self.ca_key = self.path / TLS / CA, self.path / TLS / CA_KEY
        self.certificate, self.certificate_key = self.path / TLS / SERVER, self.path / TLS / SERVER_KEY
        self.flower = self.path / "flower"
        self.secret, self.database = self.flower / "superexec.secret", self.flower / "superlink.sqlite"
        self.settings = self._settings()
        self.pinned = Pinned.read(self.pinned_file)

    @property
    def address(self) -> str:
        """``host:port`` for this machine's own processes."""
        # 0.0.0.0 is where to listen, not where to call.
        host = "127.0.0.1" if self.settings.listen in ("0.0.0.0", "::") else self.settings.listen  # noqa: S104
        return f"[{host}]:{self.settings.port}" if ":" in host else f"{host}:{self.settings.port}"

    def own_secret(self) -> Path:
        """Return the secret that Flower's programs share, which is made when there is none: after a restore, say."""
        if not self.secret.is_file():
            write_private(private_folder(self.flower) / self.secret.name, secrets.token_hex(_SECRET_BYTES).encode())
        return self.secret

    @property
    def runs(self) -> bool:
        """Whether a ``fedpeft server up`` runs it."""
        return self.flower.is_dir() and is_held(self.flower)

    def run(self, name: str) -> Path:
        """Return the folder of a scenario's run."""
        return self.path / "runs" / name

    def keys(self, operator: Path) -> SessionKeys:
        """Return what begins secure sessions.

        Raises
        ------
        ProtocolError
            When a key is missing or open to others, or the operator's is not the one that clients pin.
        """
        held = read_key(operator / OPERATOR)
        if held.public_key().public_bytes_raw() != self.pinned.operator:
            raise FolderError(f"operator's key {operator / OPERATOR}", "another", f"the one in {self.pinned_file}")
        return SessionKeys(
            federation=self.pinned.federation,
            authority=self.pinned.authority,
            operator=held,
            server=own_key(self.path / "aggregator.pem"),
            counter=self.path / "sessions",
            revoked=partial(revoked, self.registry, self.pinned),
            least=time.time,
        )

    def _settings(self) -> Settings:
        path = self.path / SETTINGS
        try:
            return Settings(**tomllib.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError as error:
            raise FolderError("server", str(self.path), f"a folder with {SETTINGS}", "`fedpeft server init`") from error
        except (OSError, ValueError, ValidationError) as error:
            line = error.errors()[0] if isinstance(error, ValidationError) else None
            found = f"{'.'.join(map(str, line['loc']))}: {line['msg']}" if line else str(error)
            raise FolderError(
                f"settings {path}", found, "listen, port, hosts, deadline, gathering and metrics"
            ) from error


def found_server(
    folder: Path, federation: str, operator: Path, listen: str, port: int, hosts: Sequence[str]
) -> ServerFolder:
    """Make a federation's keys, its server's certificates and settings.

    Parameters
    ----------
    folder : Path
    federation : str
    operator : Path
        The folder for the operator's key.
    listen : str
        Address on which the SuperLink will listen.
    port : int
    hosts : sequence of str
        Names and addresses under which devices reach it.

    Raises
    ------
    FedpeftError
        When a host is none, or the federation exists already; then nothing is made.
    """
    for host in (listen, *hosts):
        general_name(host)
    settings = Settings(listen=listen, port=port, hosts=list(hosts))
    require_free(folder / TLS / CA_KEY)
    pinned = found_federation(folder, federation, operator)
    make_certificates(folder / TLS, federation, [*hosts, *([] if listen in ("0.0.0.0", "::") else [listen])])  # noqa: S104
    write_whole(folder / PINNED, pinned.to_json())
    write_whole(folder / SETTINGS, to_toml(settings.model_dump()))
    made = ServerFolder(folder)
    made.own_secret()
    return made
