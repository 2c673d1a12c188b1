"""Text for the report: prompts completed on the device side by base, global adapter and people's own."""

from __future__ import annotations

from typing import Any

from fedpeft.device import Runtime
from fedpeft.device.folders import EVERYBODY, NOBODY, adapter_folder, base_folder
from fedpeft.federation.folder import PEOPLE, RunFolder
from fedpeft.scenario import Scenario

FILE = "samples.json"


def write_samples(folder: RunFolder, scenario: Scenario) -> None:
    """Complete the scenario's prompts with onnxruntime and write ``samples.json``.

    The people shown are those whose own adapter lowered the loss on their test text most.
    """
    runtime = Runtime(base_folder(folder.path))
    rows = folder.lines(PEOPLE)
    gains = {row["client"]: row["test"]["global"]["loss"] - row["test"]["personal"]["loss"] for row in rows}
    shown = sorted(gains, key=lambda client: -gains[client])[: scenario.samples.people]
    completions: list[dict[str, Any]] = []
    for who in (NOBODY, EVERYBODY, *shown):
        adapter = None if who == NOBODY else runtime.load(adapter_folder(folder.path, who))
        completions.append(
            {
                "who": who,
                "texts": [
                    runtime.complete(prompt, adapter, tokens=scenario.samples.tokens)
                    for prompt in scenario.samples.prompts
                ],
                "suggestions": [
                    [suggestion.word for suggestion in runtime.suggest(prompt, adapter)]
                    for prompt in scenario.samples.prompts
                ],
            }
        )
    folder.write(FILE, {"prompts": scenario.samples.prompts, "completions": completions})
