"""How Flower's two programs are started: with TLS, node authentication, a database, and nothing installed by itself."""

from __future__ import annotations

from fedpeft.federation.deployed.programs import Program
from fedpeft.federation.deployed.server_folder import ServerFolder


def superlink(server: ServerFolder) -> Program:
    """Return the SuperLink."""
    settings = server.settings
    command = [
        *("flower-superlink", "--isolation", "process", "--enable-supernode-auth"),
        *("--disable-runtime-dependency-installation", "--database", str(server.database)),
        *("--ssl-ca-certfile", str(server.ca), "--ssl-certfile", str(server.certificate)),
        *("--ssl-keyfile", str(server.certificate_key), "--superexec-auth-secret-file", str(server.own_secret())),
        *("--host", settings.listen, "--port", str(settings.port)),
    ]
    return Program("superlink", command, server.flower)


def superexec(server: ServerFolder) -> Program:
    """Return the program that starts ServerApps; one that finds no SuperLink waits for it."""
    command = [
        *("flower-superexec", "--runtime-api-address", server.address, "--root-certificates", str(server.ca)),
        *("--superexec-auth-secret-file", str(server.own_secret())),
    ]
    return Program("superexec", command, server.flower)
