"""What the service counts, for Prometheus. Nothing here tells one person from another."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

CONTENT_TYPE: str = CONTENT_TYPE_PLAIN_0_0_4

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_STEP = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5)


class Metrics:
    """Counters of one service, in a registry of their own.

    Attributes
    ----------
    requests : Counter
        By path and status.
    seconds : Histogram
        From a request to the end of its answer, by path.
    first_token_seconds : Histogram
        From a request to the first of its answer.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "fedpeft_requests", "Requests answered or refused.", ["path", "status"], registry=self._registry
        )
        self.seconds = Histogram(
            "fedpeft_request_seconds", "From request to end.", ["path"], buckets=_SECONDS, registry=self._registry
        )
        self.first_token_seconds = Histogram(
            "fedpeft_first_token_seconds", "To the first token.", buckets=_SECONDS, registry=self._registry
        )
        self.step_seconds = Histogram("fedpeft_step_seconds", "A step.", buckets=_STEP, registry=self._registry)
        self.tokens = Counter("fedpeft_tokens", "Tokens written.", registry=self._registry)
        self.prompt_tokens = Counter("fedpeft_prompt_tokens", "Tokens of prompts read.", registry=self._registry)
        self.cancelled = Counter("fedpeft_cancelled", "Answers nobody waited for.", registry=self._registry)
        self.failures = Counter("fedpeft_failures", "Steps that failed.", registry=self._registry)
        self.rows = Gauge("fedpeft_rows", "Rows in the batch now.", registry=self._registry)
        self.waiting = Gauge("fedpeft_waiting", "Requests that wait for a row now.", registry=self._registry)

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self._registry)
