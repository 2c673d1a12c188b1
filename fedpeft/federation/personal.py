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

import numpy as np

from fedpeft.adapters import Adapter
from fedpeft.adapters.algebra import cat
from fedpeft.adapters.schema import Vector
from fedpeft.adapters.update import Update
from fedpeft.codecs import RingCodec, WireCodec
from fedpeft.codecs.ring import Ring
from fedpeft.errors import AdapterError, DataError
from fedpeft.federation.worker import Worker
from fedpeft.files import private_folder, write_private
from fedpeft.methods.attached import SHARED
from fedpeft.personalization import Personal, personalize
from fedpeft.seeds import derive
from fedpeft.training import Training, evaluate
from fedpeft.training.evaluate import LANES, Tally

PERSONAL_FOLDER, PRIVATE_FOLDER, _RESULT, _SCORES = "personal", "private", "result.json", "scores.json"
CONTROLS, FEWEST = ("base", "global", "personal"), 3
PEOPLE_LANES = (*(f"{control}.{lane}" for control in CONTROLS for lane in LANES), "people", "better", "opened")
"""What devices say of themselves in a sum: totals on test text; whether their own adapter helps, and is let through."""


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
    folder, key = private_folder(worker.states / client), {"model": model, "scenario": worker.scenario.digest}
    done = _finished(folder / _RESULT, key)
    if done is not None:
        return done
    personal, tallies = _keep(worker, client, change, folder)
    test = {control: tally.metrics() for control, tally in tallies.items()}
    _train(worker, client, SHARED, worker.fleet.of(client).attached.initial[SHARED], _equal_steps(worker, client))
    test["local"] = _test(worker, client, SHARED).metrics()
    result = {
        "client": client,
        "gate": personal.gate,
        "steps": personal.steps,
        "messages": worker.splits(client).messages,
        "test": test,
    }
    _finish(folder / _RESULT, key, result)
    return result


def keep_own(worker: Worker, client: str, change: Vector, model: str) -> Ring:
    """Personalize a device's client, keep its adapters there, and return its scores as integers to be summed.

    As in :func:`keep_personal`, without the control that serves studies only; nothing of the result leaves the device
    but as a part of a sum.

    Returns
    -------
    ndarray
        A payload of :func:`people_codec`, yet unprotected.
    """
    folder, key = private_folder(worker.states / client), {"model": model, "scenario": worker.scenario.digest}
    lanes = _finished(folder / _SCORES, key)
    if lanes is None:
        personal, tallies = _keep(worker, client, change, folder)
        lanes = {f"{name}.{lane}": value for name, tally in tallies.items() for lane, value in tally.lanes().items()}
        better = tallies["personal"].loss < tallies["global"].loss
        lanes |= {"people": 1.0, "better": float(better), "opened": float(personal.gate > 0)}
        _finish(folder / _SCORES, key, lanes)
    update = Update(np.zeros(0, np.float32), {name: float(lanes[name]) for name in PEOPLE_LANES})
    return people_codec(worker).encode(update, np.random.default_rng(0))


def people_codec(worker: Worker) -> WireCodec:
    """Return how people's scores are written on a device, and their sum read."""
    people = max(worker.fewer(worker.scenario.personalization.people), FEWEST)
    return WireCodec(RingCodec(worker.scenario.channel.bits, 1.0, people), 0, PEOPLE_LANES)


def _keep(worker: Worker, client: str, change: Vector, folder: Path) -> tuple[Personal, dict[str, Tally]]:
    """Personalize a client, keep its adapters in its folder, and score base, global and personal adapter."""
    own = worker.splits(client)
    for part, text in (("train", own.train), ("test", own.test)):
        if not text.tokens:
            raise DataError(f"client {client}", f"no {part} text", "some messages of their own in every split")
    attached, start = worker.fleet.of(client).attached, _global(worker, client, change)
    tallies = {"base": _test(worker, client)}
    attached.write(SHARED, start)
    tallies["global"] = _test(worker, client, SHARED)
    slot = _personal_slot(worker)
    first = start if slot == SHARED else attached.initial[slot]
    personal = _train(worker, client, slot, first, worker.scenario.personalization.training)
    tallies["personal"] = _test(worker, client, *attached.slots)
    mine = attached.adapter(slot, personal.vector)
    mine.save(folder / PRIVATE_FOLDER)
    whole = mine if slot == SHARED else cat([attached.adapter(SHARED, start), mine], [1.0, 1.0])
    whole.save(folder / PERSONAL_FOLDER)
    return personal, tallies


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
        "base": _test(worker, client).metrics(),
        "global": _test(worker, client, SHARED).metrics(),
        "personal": _test_with(worker, client, client),
    }


def _test_with(worker: Worker, client: str, owner: str) -> dict[str, float]:
    """Score somebody's private adapter on a client's test text, over the global one that is written already."""
    adapter = Adapter.load(worker.states / owner / PRIVATE_FOLDER, worker.base.fingerprint)
    attached, slot = worker.fleet.of(client).attached, _personal_slot(worker)
    if adapter.schema != attached.schemas[slot]:
        raise AdapterError(f"private adapter of {owner}", adapter.schema.digest[:12], "this scenario's schema")
    attached.write(slot, adapter.vector)
    return _test(worker, client, *attached.slots).metrics()


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


def _test(worker: Worker, client: str, *slots: str) -> Tally:
    own = worker.fleet.of(client)
    own.attached.activate(*slots)
    return evaluate(own.attached, own.task, worker.splits(client).test)


def _equal_steps(worker: Worker, client: str) -> Training:
    """Return the private training, lengthened by the client's expected share of the federated steps."""
    scenario, windows = worker.scenario, len(worker.splits(client).train)
    rounds = scenario.federation.rounds * scenario.federation.cohort / len(worker.client_ids)
    private = scenario.personalization.training
    steps = private.total_steps(windows) + round(rounds * scenario.training.total_steps(windows))
    return private.model_copy(update={"steps": steps, "epochs": None})


def _finish(file: Path, key: dict[str, str], result: dict[str, Any]) -> None:
    """Keep a result for the global adapter that it belongs to."""
    write_private(file, json.dumps({"key": key, "result": result}).encode())


def _finished(file: Path, key: dict[str, str]) -> dict[str, Any] | None:
    """Return the client's earlier result for the same global adapter, if there is one."""
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return dict(stored["result"]) if stored["key"] == key else None
