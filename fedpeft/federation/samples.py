"""Text for the report, made on the device side by base, global adapter and people's own: prompts, and replies anew."""

from __future__ import annotations

from typing import Any

from fedpeft.data import load_federation
from fedpeft.device import Runtime
from fedpeft.device.folders import EVERYBODY, NOBODY, adapter_folder, base_folder
from fedpeft.federation.folder import PEOPLE, RunFolder
from fedpeft.federation.held_out import answered, drawn, replies_of
from fedpeft.scenario import Scenario
from fedpeft.tasks.chat import Chat

FILE = "samples.json"


def write_samples(folder: RunFolder, scenario: Scenario) -> None:
    """Complete the scenario's prompts with onnxruntime, reply where people have, and write ``samples.json``.

    The people whose prompts are shown are those whose own adapter lowered the loss on their test text most; replies are
    those of everybody who was scored.
    """
    runtime = Runtime(base_folder(folder.path))
    rows = folder.lines(PEOPLE)
    gains = {row["client"]: row["test"]["global"]["loss"] - row["test"]["personal"]["loss"] for row in rows}
    shown = sorted(gains, key=lambda client: -gains[client])[: scenario.samples.people]
    completions = [_completed(runtime, folder, scenario, who) for who in (NOBODY, EVERYBODY, *shown)]
    held_out = _held_out(runtime, folder, scenario, rows) if scenario.task.kind == Chat.kind else []
    folder.write(FILE, {"prompts": scenario.samples.prompts, "completions": completions, "held_out": held_out})


def _completed(runtime: Runtime, folder: RunFolder, scenario: Scenario, who: str) -> dict[str, Any]:
    adapter = None if who == NOBODY else runtime.load(adapter_folder(folder.path, who))
    prompts, tokens = scenario.samples.prompts, scenario.samples.tokens
    return {
        "who": who,
        "texts": [runtime.complete(prompt, adapter, tokens=tokens) for prompt in prompts],
        "suggestions": [[suggestion.word for suggestion in runtime.suggest(prompt, adapter)] for prompt in prompts],
    }


def _held_out(
    runtime: Runtime, folder: RunFolder, scenario: Scenario, rows: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    if not scenario.samples.held_out:
        return []
    federation, made = load_federation(scenario.data.federation), []
    for row in rows:
        client, other = row["client"], row.get("wrong_user")
        whose = {"global": EVERYBODY, "personal": client} | ({"wrong_user": other} if other else {})
        adapters = {who: runtime.load(adapter_folder(folder.path, name)) for who, name in whose.items()}
        some = drawn(replies_of(federation, client), scenario.samples.held_out, scenario.seed, client)
        replies = answered(runtime, {"base": None, **adapters}, some, scenario.samples.tokens)
        made += [{"client": client, **reply} for reply in replies]
    return made
