"""A shelf with a version, served by TLS, and a device that has none yet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fedpeft.device.versions.download import Patience
from fedpeft.device.versions.installed import Installed
from fedpeft.registry.publisher import Publisher
from tests.device.versions.network import Served, served
from tests.registry.bundles import publisher

QUICK = Patience(attempts=3, first=0.001, most=0.001)


@pytest.fixture
def shelf(tmp_path: Path) -> Publisher:
    return publisher(tmp_path / "shelf")


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("authority") / "tls"


@pytest.fixture
def server(shelf: Publisher, tls: Path) -> Iterator[Served]:
    with served(shelf.folder, tls) as found:
        yield found


@pytest.fixture
def installed(tmp_path: Path) -> Installed:
    return Installed(tmp_path / "me")
