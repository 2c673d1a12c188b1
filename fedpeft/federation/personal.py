"""After the last round: a client's own adapter, its score against four controls, and what stays on its disk.

===============  ==================================================================================
``base``         the frozen base alone
``global``       with the federation's adapter
``personal``     with the private adapter on top, as the gate let it through
``local``        an adapter of the same shape as the global one, trained on this client alone for as many steps
                 as the client's share of the federation and its personalization took together, same gate
``wrong_user``   global with another person's private adapter: what is personal must not serve a stranger
===============  ==================================================================================
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fedpeft.adapters import Adapter
from fedpeft.adapters.algebra import cat
from fedpeft.adapters.schema import Vector
from fedpeft.errors import AdapterError, DataError
from fedpeft.federation.worker import Worker
from fedpeft.files import private_folder, write_private
from fedpeft.methods.attached import PRIVATE, SHARED
from fedpeft.personalization import Personal, personalize
from fedpeft.seeds import derive
from fedpeft.training import Training, evaluate

PERSONAL_FOLDER, PRIVATE_FOLDER, _RESULT = "personal", "private", "result.json"


def keep_personal(worker: Worker, client: str, change: Vector, model: str) -> dict[str, Any]:
    """Personalize one client, score it, and keep its adapters in its own folder.

    A client that has already done this for the same global adapter answers from its folder, so an interrupted
    run goes on where it stopped.

    Parameters
    ----------
    worker : Worker
    client : str
    change : ndarray of float32, shape (worker.size,)
        The global adapter's change since its seeded start.
    model : str
        Its hash.

    Returns
    -------
    dict
        ``client``, ``gate``, ``steps``, ``messages`` and ``test``: metrics by control.

    Raises
    ------
    DataError
        When the client has no text to train on or none to be tested on.
    """
    own = worker.windows(client)
    for part, text in (("train", own.train), ("test", own.test)):
        if not text.tokens:
            raise DataError(f"client {client}", f"no {part} text", "some messages of their own in every split")
    folder = private_folder(worker.states / client)
    key = {"model": model, "scenario": worker.scenario.digest}
    done = _finished(folder, key)
    if done is not None:
        return done
    attached, start = worker.attached, worker.attached.initial[SHARED] + change
    test: dict[str, dict[str, float]] = {}
    test["base"] = _test(worker, client)
    attached.write(SHARED, start)
    test["global"] = _test(worker, client, SHARED)
    personal = _train(worker, client, PRIVATE, worker.scenario.personalization.training)
    test["personal"] = _test(worker, client, SHARED, PRIVATE)
    shared, private = attached.adapter(SHARED, start), attached.adapter(PRIVATE, personal.vector)
    private.save(folder / PRIVATE_FOLDER)
    cat([shared, private], [1.0, 1.0]).save(folder / PERSONAL_FOLDER)
    _train(worker, client, SHARED, _equal_steps(worker, client))
    test["local"] = _test(worker, client, SHARED)
    result = {
        "client": client,
        "gate": personal.gate,
        "steps": personal.steps,
        "messages": own.messages,
        "test": test,
    }
    write_private(folder / _RESULT, json.dumps({"key": key, "result": result}).encode())
    return result


def score_stranger(worker: Worker, client: str, other: str, change: Vector) -> dict[str, float]:
    """Score another person's private adapter on this client's test text.

    Only a simulation can do this: the other's adapter is read from its folder on the same machine.

    Raises
    ------
    AdapterError
        When the other client has no private adapter for this base.
    """
    stranger = Adapter.load(worker.states / other / PRIVATE_FOLDER, worker.base.fingerprint)
    if stranger.schema != worker.attached.schemas[PRIVATE]:
        raise AdapterError(f"private adapter of {other}", stranger.schema.digest[:12], "this scenario's schema")
    worker.attached.write(SHARED, worker.attached.initial[SHARED] + change)
    worker.attached.write(PRIVATE, stranger.vector)
    return _test(worker, client, SHARED, PRIVATE)


def _train(worker: Worker, client: str, slot: str, training: Training) -> Personal:
    own = worker.windows(client)
    worker.attached.activate(*((SHARED,) if slot == SHARED else (SHARED, PRIVATE)))
    return personalize(
        worker.attached,
        slot,
        own.train,
        own.validation,
        training,
        worker.scenario.personalization.gate,
        worker.keystrokes,
        derive(worker.scenario.seed, "personalize", client, slot),
    )


def _test(worker: Worker, client: str, *slots: str) -> dict[str, float]:
    worker.attached.activate(*slots)
    return evaluate(worker.attached, worker.windows(client).test, worker.keystrokes).metrics()


def _equal_steps(worker: Worker, client: str) -> Training:
    """Return the private training, lengthened by the client's expected share of the federated steps."""
    scenario, windows = worker.scenario, len(worker.windows(client).train)
    rounds = scenario.federation.rounds * scenario.federation.cohort / len(worker.client_ids)
    private = scenario.personalization.training
    steps = private.total_steps(windows) + round(rounds * scenario.training.total_steps(windows))
    return private.model_copy(update={"steps": steps, "epochs": None})


def _finished(folder: Path, key: dict[str, str]) -> dict[str, Any] | None:
    """Return the client's earlier result for the same global adapter, if there is one."""
    try:
        stored = json.loads((folder / _RESULT).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return dict(stored["result"]) if stored["key"] == key else None
