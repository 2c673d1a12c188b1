"""After the rounds: some clients personalize, are scored, and each tries a stranger's adapter."""

from __future__ import annotations

import json
from typing import Any

from flwr.app import Message

from fedpeft.adapters.schema import Vector
from fedpeft.errors import ProtocolError, RunError
from fedpeft.federation.cohort import choose, strangers
from fedpeft.federation.exchange import exchange
from fedpeft.federation.folder import PEOPLE, SKIPPED
from fedpeft.federation.messages import read_facts
from fedpeft.federation.rounds import Rounds


def score_people(rounds: Rounds, change: Vector) -> list[dict[str, Any]]:
    """Personalize and score clients; write ``people.jsonl`` and ``skipped.json``.

    Parameters
    ----------
    rounds : Rounds
        Of the finished run.
    change : ndarray of float32
        The published global change.

    Returns
    -------
    list of dict
        One row per person, in order of name.

    Raises
    ------
    RunError
        When a client failed for another reason than lacking text.
    """
    scenario = rounds.scenario
    skipped = dict(rounds.roll.skipped)
    people = choose(rounds.roll.clients, scenario.personalization.people, scenario.seed, "people")
    answers = _ask(rounds, "train.personalize", "personalize", change, {client: {} for client in people})
    results: dict[str, dict[str, Any]] = {}
    for client, values in sorted(answers.items()):
        if "skipped" in values:
            skipped[client] = str(values["skipped"])
        else:
            results[client] = json.loads(str(values["result"]))
    pairs = strangers(list(results)) if len(results) > 1 else {}
    tried = _ask(rounds, "evaluate.stranger", "wrong user", change, {c: {"other": other} for c, other in pairs.items()})
    for client, values in tried.items():
        results[client]["wrong_user"] = pairs[client]
        results[client]["test"]["wrong_user"] = json.loads(str(values["result"]))
    rows = [results[client] for client in sorted(results)]
    if scenario.devices:
        # By the draw that everybody can make, not by a client's word.
        rows = [{**row, "device": rounds.worker.fleet.classes[row["client"]]} for row in rows]
    rounds.folder.write_lines(PEOPLE, rows)
    rounds.folder.write(SKIPPED, [{"client": c, "reason": r} for c, r in sorted(skipped.items())])
    return rows


def _ask(
    rounds: Rounds, message_type: str, stage: str, change: Vector, extras: dict[str, dict[str, str]]
) -> dict[str, dict[str, Any]]:
    """Ask clients for plain values and insist on an answer from each."""
    plan = rounds.plan(rounds.scenario.federation.rounds + 1, change)
    answers: dict[str, dict[str, Any]] = {}

    def take(client: str, message: Message) -> None:
        values = read_facts(message)
        if values.get("client") != client:
            raise ProtocolError("reply client", values.get("client"), client)
        answers[client] = dict(values)

    requests = {client: rounds.request(plan, change, extra) for client, extra in extras.items()}
    sent = exchange(
        rounds.grid,
        message_type,
        rounds.roll.nodes,
        requests,
        take,
        lambda done, total: rounds.watcher.stage(stage, done, total),
    )
    for client, reason in sorted(sent.failures.items()):
        raise RunError(f"{stage} of {client}", reason, "a result", "mend it and resume the run")
    return answers
