"""Does a method federate? Two clients train one round each, and what a server opens is their mean.

The client's side is :class:`~fedpeft.federation.worker.Worker` itself, on a scenario that names the method: the same
training, update, ring and lanes as in a run. The server's side is the integer sum, the mean and the aggregation rule.
What a secure channel adds to a payload is not counted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fedpeft.adapters.schema import Vector
from fedpeft.aggregation import advance
from fedpeft.codecs.ring import Ring
from fedpeft.compare.trial import HEAD_RATE
from fedpeft.errors import DataError, ProtocolError
from fedpeft.federation.flower_internals import wire_size
from fedpeft.federation.messages import hash_of, parcel, published, request
from fedpeft.federation.plan import RoundPlan
from fedpeft.federation.worker import Worker
from fedpeft.methods.attached import SHARED
from fedpeft.scenario import Scenario
from fedpeft.training.evaluate import mean_loss


def scenario_for(scenario: Scenario, settings: dict[str, Any], rate: float) -> dict[str, Any]:
    """Return a scenario's tables with another method, at its own rate, everything shared."""
    tables = scenario.model_dump(mode="json", exclude_none=True)
    tables["method"] = settings
    tables["training"] |= {"learning_rate": rate, "head_factor": HEAD_RATE / rate}
    tables["federation"]["partition"] = "all"
    return tables


def federate(scenario: Scenario, folder: Path) -> dict[str, Any]:
    """Run one round of two clients.

    Parameters
    ----------
    scenario : Scenario
        Valid, with the method.
    folder : Path
        For what the clients keep to themselves.

    Returns
    -------
    dict
        ``bytes_up`` and ``bytes_down`` of a client, and ``federated``: loss on both clients' validation text
        ``before`` and ``after``.

    Raises
    ------
    ProtocolError
        When the mean is not finite, or no better than the base.
    """
    worker = Worker(scenario, folder)
    pair = _pair(worker)
    nothing = np.zeros(worker.size, np.float32)
    before = _loss(worker, pair, 1, nothing)
    codec = worker.train_codec(1)
    payloads = [worker.train(client, 1, nothing) for client in pair]
    total = np.sum([payload.astype(np.uint64) for payload in payloads], axis=0) % np.uint64(2**codec.ring.bits)
    mean = np.zeros(worker.size, np.float32)
    mean[worker.shared_mask(1)] = codec.decode(total, len(pair)).mean()
    step, _ = advance(mean, {}, scenario.aggregation)
    change = published(step)
    if not np.isfinite(change).all():
        raise ProtocolError("federated mean", "NaN or infinity", "finite numbers")
    after = _loss(worker, pair, 2, change)
    if not after < before:
        raise ProtocolError(
            "federated mean", f"validation loss {after:.4f}", f"less than the base's {before:.4f} after one round"
        )
    return {
        "bytes_up": sent_bytes(payloads[0]),
        "bytes_down": received_bytes(worker.public(change), worker.attached.schemas[SHARED].digest),
        "federated": {"before": before, "after": after},
    }


def sent_bytes(payload: Ring) -> int:
    """Return the bytes of the message that carries a payload."""
    return wire_size(parcel(payload.tobytes()))


def received_bytes(public: Vector, schema: str) -> int:
    """Return the bytes of the message that carries a round's plan and the global change that goes with it."""
    digest = "0" * 64
    plan = RoundPlan(run="compare", round=2, scenario=digest, schema=schema, base=digest, model=hash_of(public))
    return wire_size(request(plan, public))


def _pair(worker: Worker) -> list[str]:
    """Return the first two clients that can train and be scored."""
    pair: list[str] = []
    for client in worker.client_ids:
        own = worker.splits(client)
        if own.train.tokens and own.validation.tokens:
            pair.append(client)
        if len(pair) == 2:
            return pair
    raise DataError("data.federation", len(pair), "two clients with train and validation examples")


def _loss(worker: Worker, pair: list[str], round_: int, change: np.ndarray) -> float:
    """Return the mean loss of two clients on their validation text, each with its own private parts."""
    losses = []
    for client in pair:
        own = worker.fleet.of(client)
        own.attached.activate(SHARED)
        own.attached.write(SHARED, worker.start(client, round_, change))
        some = worker.splits(client).validation.head(worker.scenario.federation.panel_windows)
        losses.append(mean_loss(own.attached, own.task, some))
    return float(np.mean(losses))
