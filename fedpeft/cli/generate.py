"""``fedpeft generate``: complete a text as one person would, from onnxruntime alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from fedpeft.device.folders import EVERYBODY, LATEST, NOBODY, adapter_folder, base_folder, find_run, users
from fedpeft.device.runtime import Runtime
from fedpeft.errors import RunError, nearest


def generate(
    *,
    user: Annotated[
        str,
        typer.Option(help=f"Whose adapter; {EVERYBODY!r} for the shared one, {NOBODY!r} for none."),
    ],
    prompt: Annotated[str, typer.Option(help="The beginning of a message.")],
    run: Annotated[str, typer.Option(help="A run's name or folder, or 'latest'.")] = LATEST,
    runs: Annotated[Path, typer.Option(help="Where runs are kept.")] = Path("runs"),
    tokens: Annotated[int, typer.Option(min=1, help="Most tokens to add.")] = 24,
    temperature: Annotated[float, typer.Option(min=0, help="0 takes the likeliest; 1 draws freely.")] = 0.0,
    top_k: Annotated[int, typer.Option(min=0, help="Draw among this many likeliest; 0 means all.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Complete a text with a person's adapter and suggest the next three words.

    Example: fedpeft generate --user ada --prompt "I am"
    """
    folder = find_run(run, runs)
    adapters = users(folder)
    if user != NOBODY and user not in adapters:
        raise RunError("user", user, f"somebody with an adapter in {folder}", _who(user, adapters))
    runtime = Runtime(base_folder(folder))
    adapter = None if user == NOBODY else runtime.load(adapter_folder(folder, user))
    completion = runtime.complete(prompt, adapter, tokens=tokens, temperature=temperature, top_k=top_k, seed=seed)
    suggestions = runtime.suggest(prompt, adapter)
    if as_json:
        words = [{"word": s.word, "probability": s.probability} for s in suggestions]
        answer = {"user": user, "run": str(folder), "prompt": prompt, "completion": completion}
        typer.echo(json.dumps({**answer, "suggestions": words}, ensure_ascii=False))
        return
    console = Console()
    console.print(Text(prompt, "bold") + Text(completion))
    console.print(Text("   ").join(Text(s.word, "cyan") + Text(f" {s.probability:.1%}", "dim") for s in suggestions))


def _who(user: str, adapters: list[str]) -> str:
    if not adapters:
        return "export the run first: `fedpeft export`"
    return nearest(user, [*adapters, NOBODY])
