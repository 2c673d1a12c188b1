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
from fedpeft.methods.attached import SHARED
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
    own = worker.splits(client)
    for part, text in (("train", own.train), ("test", own.test)):
        if not text.tokens:
            raise DataError(f"client {client}", f"no {part} text", "some messages of their own in every split")
    folder = private_folder(worker.states / client)
    key = {"model": model, "scenario": worker.scenario.digest}
    done = _finished(folder, key)
    if done is not None:
        return done
    attached, start = worker.fleet.of(client).attached, _global(worker, client, change)
    test: dict[str, dict[str, float]] = {}
    test["base"] = _test(worker, client)
    attached.write(SHARED, start)
    test["global"] = _test(worker, client, SHARED)
    slot = _personal_slot(worker)
    first = start if slot == SHARED else attached.initial[slot]
    personal = _train(worker, client, slot, first, worker.scenario.personalization.training)
    test["personal"] = _test(worker, client, *attached.slots)
    mine = attached.adapter(slot, personal.vector)
    mine.save(folder / PRIVATE_FOLDER)
    whole = mine if slot == SHARED else cat([attached.adapter(SHARED, start), mine], [1.0, 1.0])
    whole.save(folder / PERSONAL_FOLDER)
    _train(worker, client, SHARED, attached.initial[SHARED], _equal_steps(worker, client))
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
    worker.fleet.of(client).attached.write(SHARED, _global(worker, client, change))
    return _test_with(worker, client, other)


def score_kept(worker: Worker, client: str, shared: Vector) -> dict[str, dict[str, float]]:
    """Score what a client has kept on its test text, over the base as this worker holds it.

    Parameters
    ----------
    worker : Worker
        Of the run's scenario, or of one that differs in how the base is held.
    client : str
    shared : ndarray of float32, shape (worker.size,)
        The global adapter.

    Returns
    -------
    dict
        Metrics of ``base``, ``global`` and ``personal``.

    Raises
    ------
    DataError
        When the client has no text to be tested on.
    AdapterError
        When it has kept no private adapter for this base.
    """
    if not worker.splits(client).test.tokens:
        raise DataError(f"client {client}", "no test text", "some messages of their own in every split")
    rounds = worker.scenario.federation.rounds
    worker.fleet.of(client).attached.write(SHARED, worker.with_own(client, rounds + 1, shared))
    return {
        "base": _test(worker, client),
        "global": _test(worker, client, SHARED),
        "personal": _test_with(worker, client, client),
    }


def _test_with(worker: Worker, client: str, owner: str) -> dict[str, float]:
    """Score somebody's private adapter on a client's test text, over the global one that is written already."""
    adapter = Adapter.load(worker.states / owner / PRIVATE_FOLDER, worker.base.fingerprint)
    attached, slot = worker.fleet.of(client).attached, _personal_slot(worker)
    if adapter.schema != attached.schemas[slot]:
        raise AdapterError(f"private adapter of {owner}", adapter.schema.digest[:12], "this scenario's schema")
    attached.write(slot, adapter.vector)
    return _test(worker, client, *attached.slots)


def _personal_slot(worker: Worker) -> str:
    """Return where a person's adapter is trained: on top of the shared one if two add up, else in its place."""
    return worker.attached.slots[-1]


def _global(worker: Worker, client: str, change: Vector) -> Vector:
    """Return the last global adapter, with what the client keeps for itself."""
    return worker.start(client, worker.scenario.federation.rounds + 1, change)


def _train(worker: Worker, client: str, slot: str, start: Vector, training: Training) -> Personal:
    own = worker.fleet.of(client)
    own.attached.activate(*((SHARED,) if slot == SHARED else (SHARED, slot)))
    return personalize(
        own.attached,
        slot,
        start,
        own.task,
        worker.splits(client),
        own.kind.thrifty(training),
        worker.scenario.personalization.gate,
        derive(worker.scenario.seed, "personalize", client, slot),
    )


def _test(worker: Worker, client: str, *slots: str) -> dict[str, float]:
    own = worker.fleet.of(client)
    own.attached.activate(*slots)
    return evaluate(own.attached, own.task, worker.splits(client).test).metrics()


def _equal_steps(worker: Worker, client: str) -> Training:
    """Return the private training, lengthened by the client's expected share of the federated steps."""
    scenario, windows = worker.scenario, len(worker.splits(client).train)
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
