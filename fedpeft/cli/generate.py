"""``fedpeft generate``: complete a text as one person would, from onnxruntime alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from fedpeft.cli.options import AsJson, Run, Runs
from fedpeft.cli.suggest import shown_words
from fedpeft.cli.voice import Threads, Together, User, find_voice
from fedpeft.device.folders import LATEST
from fedpeft.device.generation import Generation


def generate(
    *,
    prompt: Annotated[str, typer.Option(help="The beginning of a message.")],
    user: User = None,
    compose: Together = None,
    run: Run = LATEST,
    runs: Runs = Path("runs"),
    tokens: Annotated[int, typer.Option(min=1, help="Most tokens to add.")] = 24,
    temperature: Annotated[float, typer.Option(min=0, help="0 takes the likeliest; 1 draws freely.")] = 0.0,
    top_k: Annotated[int, typer.Option(min=0, help="Draw among this many likeliest; 0 means all.")] = 0,
    top_p: Annotated[float, typer.Option(help="Draw among the likeliest that sum to this; 1 means all.")] = 1.0,
    repetition_penalty: Annotated[float, typer.Option(help="Above 1, what was said is less likely.")] = 1.0,
    stop: Annotated[list[str] | None, typer.Option(help="End before this text; may be given several times.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws.")] = 0,
    stream: Annotated[bool, typer.Option("--stream", help="Print the completion as it comes, nothing else.")] = False,
    threads: Threads = 1,
    as_json: AsJson = False,
) -> None:
    """Complete a text with a person's adapter and suggest the next three words.

    Example: fedpeft generate --user ada --prompt "I am" --temperature 0.8 --top-p 0.9 --stream
    """
    options = Generation(
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        repetition_penalty=repetition_penalty,
        tokens=tokens,
        stop=tuple(stop or ()),
        seed=seed,
    )
    voice = find_voice(user, compose, run, runs, threads)
    if stream:
        # With --json each part is a line of its own, as a script reads it.
        for part in voice.runtime.stream(prompt, voice.adapter, options):
            typer.echo(json.dumps({"text": part}, ensure_ascii=False) if as_json else part, nl=as_json)
        typer.echo("" if not as_json else json.dumps({"done": True}))
        return
    completion = voice.runtime.complete(prompt, voice.adapter, options)
    suggestions = voice.runtime.suggest(prompt, voice.adapter)
    if as_json:
        words = [{"word": s.word, "probability": s.probability} for s in suggestions]
        answer = {"user": voice.name, "run": str(voice.run), "prompt": prompt, "completion": completion}
        typer.echo(json.dumps({**answer, "suggestions": words}, ensure_ascii=False))
        return
    console = Console()
    console.print(Text(prompt, "bold") + Text(completion))
    console.print(shown_words(suggestions))
