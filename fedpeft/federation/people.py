"""After a real federation's rounds: people personalize at home, and the server learns what that gave them together.

Each person's adapters and scores stay on their device; what leaves are totals over test text, summed through the
channel like an update. ``people.json`` says what the sum says: means over all pieces of text of those people, how many
there are, how many are better off, and for how many the gate let something of their own through.
"""

from __future__ import annotations

from typing import Any

from fedpeft.adapters.schema import Vector
from fedpeft.errors import FedpeftError, ProtocolError, RunError
from fedpeft.federation.cohort import choose
from fedpeft.federation.collect import Collected, collect
from fedpeft.federation.messages import COHORT
from fedpeft.federation.personal import CONTROLS, FEWEST, people_codec
from fedpeft.federation.rounds import Rounds
from fedpeft.federation.session_keys import PEOPLE_PURPOSE
from fedpeft.scenario import Scenario
from fedpeft.secagg import Asked
from fedpeft.secagg.pairwise.parameters import parameters
from fedpeft.training.evaluate import LANES, Tally

PEOPLE_SUM = "people.json"


def require_summable(scenario: Scenario) -> None:
    """Refuse to ask so few people that a sum would tell one person's scores, or people whose devices decide themselves.

    Raises
    ------
    RunError
    """
    people = scenario.personalization.people
    if people and scenario.enrolled:
        remedy = "a device with a store of its own personalizes when its person likes: `fedpeft client personalize`"
        raise RunError("personalization.people", people, "0", remedy)
    if not people or not scenario.secure:
        return
    expected, remedy = f"0, or at least {FEWEST}", "a real server sees nothing of people's scores but their sum"
    if people < FEWEST:
        raise RunError("personalization.people", people, expected, remedy)
    try:
        parameters(people, scenario.channel.corrupt, scenario.vanishing)
    except ProtocolError as error:
        raise RunError("personalization.people", people, "as many as can be summed", str(error)) from error


def sum_people(rounds: Rounds, change: Vector) -> dict[str, Any]:
    """Let people personalize, and write down what the sum of their scores says.

    Parameters
    ----------
    rounds : Rounds
        Finished, its session not yet ended.
    change : ndarray of float32
        The published global change.

    Returns
    -------
    dict
        ``asked``, ``failures`` and ``people``, ``better``, ``opened`` and ``test`` or, where the sum was not opened,
        ``unscored``.
    """
    scenario = rounds.scenario
    people = choose(rounds.roll.clients, scenario.personalization.people, scenario.seed, "people")
    found: dict[str, Any] = {"asked": len(people)}
    if people:
        try:
            got = _collect(rounds, change, people)
            found |= {"failures": got.failures, **_read(got)}
        except FedpeftError as error:
            # The rounds are done and kept, and so is what people made of them.
            found["unscored"] = str(error)
        rounds.folder.write(PEOPLE_SUM, found)
    return found


def _collect(rounds: Rounds, change: Vector, people: list[str]) -> Collected:
    last, codec = rounds.scenario.federation.rounds, people_codec(rounds.worker)
    plan = rounds.plan(last + 1, change)
    asked = Asked(last, PEOPLE_PURPOSE, plan.digest, tuple(sorted(people)))
    return collect(
        rounds.grid,
        rounds.roll.nodes,
        "train.keep",
        rounds.request(plan, change, {COHORT: ",".join(asked.cohort)}),
        people,
        rounds.end.collect(asked, codec.ring, codec.length),
        codec,
        lambda done, total: rounds.watcher.stage("personalize", done, total),
    )


def _read(got: Collected) -> dict[str, Any]:
    """Read a sum of scores; one that cannot be is somebody's false word, and is not used."""
    if got.total is None:
        return {"unscored": got.burnt}
    lanes = got.total.lanes
    counts = {name: round(lanes[name]) for name in ("people", "better", "opened")}
    tallies = {control: Tally(**{lane: lanes[f"{control}.{lane}"] for lane in LANES}) for control in CONTROLS}
    alike = len({round(tally.tokens) for tally in tallies.values()}) == 1
    if counts["people"] != got.contributors or not alike or not 0 <= counts["better"] <= counts["people"]:
        return {"unscored": f"{counts} from {got.contributors} people, who cannot all have said the truth"}
    return {**counts, "test": {control: tally.metrics() for control, tally in tallies.items()}}
