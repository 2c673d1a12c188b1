"""What the gate serves besides certificates: a device that enrolled fetches what was published, and needs nothing else."""

from __future__ import annotations

import json
from pathlib import Path

from fedpeft.cli.client import client
from fedpeft.device.versions.installed import Installed
from fedpeft.gate.app import Gate
from fedpeft.registry.publisher import Publisher
from fedpeft.registry.routes import routes
from fedpeft.registry.shelf import SHELF
from fedpeft.signing.keyfile import read_key
from tests.gate.conftest import Place, opened
from tests.gate.test_gate_verbs import said
from tests.registry.bundles import put


def test_a_device_that_enrolled_fetches_at_the_gate_with_what_enrolment_left(place: Place, tmp_path: Path) -> None:
    shelf = Publisher(place.folder / SHELF, "chat", read_key(place.folder / "operator" / "operator.pem"))
    with opened(Gate(place.notice, place.tokens), place.folder, routes(place.folder / SHELF)) as port:
        place.address = f"127.0.0.1:{port}"
        fetch = ("fetch", "--home", tmp_path / "me", "--from", f"https://{place.address}", "--json")
        assert "--pinned" in said(client, *fetch)
        said(client, "enrol", place.token(), "--home", tmp_path / "me")
        assert "404" in said(client, *fetch)
        version, _ = put(shelf, tmp_path, 1)
        assert json.loads(said(client, *fetch))["outcome"] == "installed"
    assert Installed(tmp_path / "me").current().version == version
