"""What an operator is told of a server: as values, in Prometheus' format, and as what asks for somebody."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from fedpeft.cli.server import server as server_verbs
from fedpeft.errors import RunError
from fedpeft.federation.deployed.alerts import alerts_of
from fedpeft.federation.deployed.drain import Drain
from fedpeft.federation.deployed.exposition import exposed
from fedpeft.federation.deployed.server_folder import ServerFolder
from fedpeft.federation.deployed.status import healthy, status_of
from fedpeft.federation.folder import METRICS, RUN, SCENARIO, RunFolder
from fedpeft.scenario import Scenario
from fedpeft.secagg.trust.registry import Registry

from .federation import enrol, found, free_port

ROW = {
    "cohort": ["ada", "ben", "cy"],
    "failures": 1,
    "contributors": 2,
    "bytes_up": 10,
    "bytes_down": 100,
    "seconds": 9,
}


@pytest.fixture
def server(tmp_path: Path, tiny: Scenario) -> ServerFolder:
    """Return a server that has run two rounds, with four clients of whom one is revoked and one expires soon."""
    made = found(tmp_path / "fed")
    for name, days in {"ada": 90.0, "ben": 3.0, "cy": 90.0, "old": -1.0}.items():
        enrol(made, name, tmp_path / name, days)
    Registry(made.registry).revoke("cy")
    run = RunFolder(made.run("tiny"))
    run.write(SCENARIO, tiny.model_dump(mode="json"))
    run.write(RUN, {"status": "interrupted", "seconds": 20.0})
    run.write_lines(METRICS, [{"round": 0}, {"round": 1, **ROW}, {"round": 2, **ROW, "burnt": True}])
    os.utime(run.path / METRICS, (time.time() - 60, time.time() - 60))
    return made


def metrics(text: str) -> dict[tuple[str, ...], float]:
    families = list(text_string_to_metric_families(text))
    assert all(family.documentation for family in families)
    return {(s.name, *sorted(s.labels.values())): s.value for family in families for s in family.samples}


def test_a_status_has_the_rounds_the_clients_and_the_bytes_and_claims_no_privacy(server: ServerFolder) -> None:
    status = status_of(server)
    json.dumps(status)
    assert status["clients"] == {"enrolled": 2, "online": None, "revoked": 1, "expired": 1, "expiring": ["ben"]}
    (run,) = status["runs"]
    assert (run["round"], run["burnt"], run["rounds_per_hour"], run["held"]) == (2, 1, 400.0, False)
    assert (run["bytes_up"], run["bytes_down"]) == (2 * 2 * 10, 2 * 3 * 100)
    assert run["privacy"] == {"mechanism": "none"}
    assert 60 <= run["last_round_age"] < 120
    assert run["current_round_age"] is None
    assert {alert["name"] for alert in status["alerts"]} - {"disk"} == {"idle", "burnt", "clients"}
    assert not healthy(status)


def test_a_drained_run_is_nobodys_alarm(server: ServerFolder) -> None:
    Drain(server.path).ask()
    status = status_of(server)
    assert status["runs"][0]["status"] == "drained"
    assert "idle" not in {alert["name"] for alert in status["alerts"]}


def test_prometheus_reads_every_line_and_finds_the_same_numbers(server: ServerFolder) -> None:
    text = CliRunner().invoke(server_verbs, ["status", str(server.path), "--prometheus"]).stdout
    values = metrics(text)
    assert values["fedpeft_clients", "revoked"] == 1
    assert values["fedpeft_clients", "expiring"] == 1
    assert ("fedpeft_clients", "online") not in values
    assert values["fedpeft_run_bytes_total", "down", "tiny"] == 600
    assert values["fedpeft_run_privacy_info", "none", "tiny"] == 1
    assert values["fedpeft_run_burnt_rounds_total", "tiny"] == 1
    assert values["fedpeft_alerts", "idle"] == 1
    assert values["fedpeft_server_up",] == 0
    assert "ada" not in text


def test_metrics_are_served_where_the_settings_say_and_nowhere_else(server: ServerFolder) -> None:
    address = f"127.0.0.1:{free_port()}"
    with exposed(address, lambda: status_of(server)):
        with urlopen(f"http://{address}/metrics", timeout=10) as answer:
            assert metrics(answer.read().decode())["fedpeft_run_round", "tiny"] == 2
        with pytest.raises(RunError, match="an address that is free"), exposed(address, lambda: {}):
            pass
    with pytest.raises(OSError, match="refused"):
        urlopen(f"http://{address}/metrics", timeout=10)
    with exposed("", lambda: {}):
        pass
    (server.path / "server.toml").write_text('metrics = "9464"\n')
    with pytest.raises(RunError, match=r"metrics: .*host:port"):
        ServerFolder(server.path)


def test_a_check_ends_with_one_where_the_server_does_not_run(server: ServerFolder) -> None:
    for option in ([], ["--json"], ["--prometheus"]):
        assert CliRunner().invoke(server_verbs, ["status", str(server.path), *option]).exit_code == 0
        assert CliRunner().invoke(server_verbs, ["status", str(server.path), "--check", *option]).exit_code == 1


RUN_FINE = {
    "name": "r",
    "status": "running",
    "held": True,
    "reason": "",
    "round": 3,
    "burnt": 0,
    "current_round_age": 9,
}
FINE: dict[str, Any] = {
    "runs": [RUN_FINE],
    "deadline": 10,
    "starts": {"superlink": 1, "serverapp": 3},
    "certificate_days": 100,
    "clients": {"expiring": []},
    "disk": {"free": 50 << 30, "total": 100 << 30},
}


@pytest.mark.parametrize(
    ("name", "changed", "says"),
    [
        ("idle", {"runs": [{**RUN_FINE, "held": False, "status": "interrupted", "reason": "nodes: 2"}]}, "r: nodes: 2"),
        ("failed", {"runs": [{**RUN_FINE, "held": False, "status": "failed", "reason": "no key"}]}, "no key"),
        ("slow", {"runs": [{**RUN_FINE, "current_round_age": 21}]}, "21 s, with a deadline of 10 s"),
        ("burnt", {"runs": [{**RUN_FINE, "burnt": 2}]}, "2 of run r's 3"),
        ("restarts", {"starts": {"superlink": 4}}, "superlink was started 4 times"),
        ("certificate", {"certificate_days": 29.6}, "30 days more"),
        ("clients", {"clients": {"expiring": list("abcdefg")}}, "7 clients' .*: a, b, c, d, e …"),
        ("disk", {"disk": {"free": 1 << 20, "total": 100 << 30}}, "1 MB of 102400 MB"),
    ],
)
def test_each_alert_is_given_for_its_reason_alone(name: str, changed: dict[str, Any], says: str) -> None:
    assert alerts_of(FINE, []) == []
    (alert,) = alerts_of({**FINE, **changed}, [])
    assert alert["name"] == name
    assert re.search(says, alert["line"])


def test_what_cannot_be_asked_is_an_alert(server: ServerFolder) -> None:
    (server.registry / "registry.sqlite").write_bytes(b"no database at all, this")
    status = status_of(server)
    assert status["clients"]["enrolled"] is None
    assert "unreachable" in {alert["name"] for alert in status["alerts"]}
