"""``fedpeft suggest``: the words a person would type next, from onnxruntime alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from fedpeft.cli.options import AsJson, Run, Runs
from fedpeft.cli.voice import Threads, Together, User, find_voice
from fedpeft.device.folders import LATEST
from fedpeft.device.suggest import Suggestion


def suggest(
    *,
    text: Annotated[str, typer.Option(help="What was typed so far; within a word, completions of it.")],
    user: User = None,
    compose: Together = None,
    count: Annotated[int, typer.Option(min=1, max=100, help="How many words.")] = 3,
    run: Run = LATEST,
    runs: Runs = Path("runs"),
    threads: Threads = 1,
    as_json: AsJson = False,
) -> None:
    """Suggest the next words with a person's adapter.

    Example: fedpeft suggest --user ada --text "I am g"
    """
    voice = find_voice(user, compose, run, runs, threads)
    suggestions = voice.runtime.suggest(text, voice.adapter, count=count)
    if as_json:
        words = [{"word": s.word, "probability": s.probability} for s in suggestions]
        answer = {"user": voice.name, "run": str(voice.run), "text": text, "suggestions": words}
        typer.echo(json.dumps(answer, ensure_ascii=False))
        return
    Console().print(shown_words(suggestions))


def shown_words(suggestions: Sequence[Suggestion]) -> Text:
    """Return words with their probabilities on one line."""
    return Text("   ").join(Text(s.word, "cyan") + Text(f" {s.probability:.1%}", "dim") for s in suggestions)
