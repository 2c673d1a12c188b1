"""A server's status as Prometheus metrics: as text, or served on an address of its own. Nobody is named in them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from prometheus_client import CollectorRegistry, Metric, generate_latest, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

from fedpeft.errors import RunError

Status = dict[str, Any]

_RUN = {
    "round": ("fedpeft_run_round", "Last finished round."),
    "rounds": ("fedpeft_run_rounds", "Rounds of the scenario."),
    "contributors": ("fedpeft_run_contributors", "Clients in the last finished round."),
    "held": ("fedpeft_run_working", "Whether a ServerApp works on it."),
    "rounds_per_hour": ("fedpeft_run_rounds_per_hour", "Over the latest rounds."),
    "last_round_age": ("fedpeft_run_last_round_age_seconds", "Since the last round was finished."),
    "current_round_age": ("fedpeft_run_current_round_age_seconds", "Since the round in progress began."),
    "train_loss": ("fedpeft_run_train_loss", "Of the last finished round."),
}


def exposition(found: Status) -> str:
    """Return a status in Prometheus' text format."""
    return generate_latest(_registry(lambda: found)).decode()


@contextmanager
def exposed(address: str, status: Callable[[], Status]) -> Iterator[None]:
    """Serve ``/metrics`` while the block lasts; nothing when the address is empty.

    Parameters
    ----------
    address : str
        ``host:port``, as settings have checked it.
    status : callable
        Called at every scrape.

    Raises
    ------
    RunError
        When the address cannot be had.
    """
    if not address:
        yield
        return
    host, _, port = address.rpartition(":")
    try:
        server, thread = start_http_server(int(port), re.sub(r"[\[\]]", "", host), _registry(status))
    except OSError as error:
        raise RunError(f"metrics {address}", error.strerror, "an address that is free", "see server.toml") from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _registry(status: Callable[[], Status]) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(_Status(status))
    return registry


class _Status(Collector):
    """Asks for the status when it is scraped."""

    def __init__(self, status: Callable[[], Status]) -> None:
        self._status = status

    def describe(self) -> list[Metric]:
        """Say nothing beforehand: to ask for it all would begin with a scrape."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the status, metric by metric; what is unknown is left out."""
        found = self._status()
        yield GaugeMetricFamily("fedpeft_server_up", "Whether `fedpeft server up` runs.", float(found["up"]))
        yield _gauge("fedpeft_program_up", "Programs that run.", "program", dict.fromkeys(found["programs"], 1))
        yield _gauge("fedpeft_program_starts", "Starts within the last hour.", "program", found["starts"])
        clients = {**found["clients"], "expiring": _count(found["clients"]["expiring"])}
        yield _gauge("fedpeft_clients", "Clients.", "state", clients)
        yield GaugeMetricFamily("fedpeft_certificate_days", "Until the server's expires.", found["certificate_days"])
        yield _gauge("fedpeft_disk_bytes", "Of the disk with the server's folder.", "kind", found["disk"])
        yield _gauge("fedpeft_alerts", "What asks for somebody.", "alert", Counter(a["name"] for a in found["alerts"]))
        yield from _runs(found["runs"])


def _runs(runs: list[dict[str, Any]]) -> Iterator[Metric]:
    for key, (name, text) in _RUN.items():
        yield _gauge(name, text, "run", {run["name"]: run[key] for run in runs})
    burnt = CounterMetricFamily("fedpeft_run_burnt_rounds", "Rounds that were burnt.", labels=["run"])
    sent = CounterMetricFamily("fedpeft_run_bytes", "Of the rounds, to clients and from them.", labels=["run", "way"])
    privacy = InfoMetricFamily("fedpeft_run_privacy", "What protects people in what is published.", labels=["run"])
    status = InfoMetricFamily("fedpeft_run_status", "How it stands.", labels=["run"])
    for run in runs:
        burnt.add_metric([run["name"]], run["burnt"])
        sent.add_metric([run["name"], "up"], run["bytes_up"])
        sent.add_metric([run["name"], "down"], run["bytes_down"])
        privacy.add_metric([run["name"]], {key: str(value) for key, value in run["privacy"].items()})
        status.add_metric([run["name"]], {"status": run["status"]})
    yield from (burnt, sent, privacy, status)


def _gauge(name: str, text: str, label: str, values: dict[str, Any]) -> Metric:
    gauge = GaugeMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        if value is not None:
            gauge.add_metric([key], float(value))
    return gauge


def _count(names: list[str] | None) -> int | None:
    return None if names is None else len(names)
