"""``fedpeft pretrain``: make the builtin base again, from the package's public text."""

from __future__ import annotations

import json as json_module
import platform
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer


def pretrain(
    out: Annotated[Path, typer.Option(help="Folder for the weights, tokenizer and model card.")],
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the public text.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Decides every choice of chance.")] = 0,
    device: Annotated[str, typer.Option(help="A torch device: cpu or cuda.")] = "cpu",
    conversations: Annotated[
        int | None, typer.Option(min=64, help="Use only so many public conversations: a quick trial.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the resulting figures as JSON.")] = False,
) -> None:
    """Train the tokenizer and the `keyboard` base on text no client took part in, then score it on theirs.

    About half an hour on two cores; the same seed on the same machine gives the same file.

    Example: `fedpeft pretrain --out my-base --epochs 1 --conversations 200`
    """
    import torch
    from rich.console import Console

    from fedpeft.base.card import write_card
    from fedpeft.base.load import load_base
    from fedpeft.base.pretrain import PretrainConfig, Progress
    from fedpeft.base.pretrain import pretrain as train
    from fedpeft.bench.base import WINDOW, score
    from fedpeft.data import load_federation
    from fedpeft.tasks.next_word import NextWord

    console = Console(stderr=True, highlight=False)
    config = PretrainConfig(seed=seed)
    config = replace(config, epochs=epochs) if epochs else config
    history: list[Progress] = []

    def listen(progress: Progress) -> None:
        history.append(progress)
        console.print(
            f"  epoch {progress.epoch:>2}/{progress.epochs}  train loss {progress.train_loss:.3f}  "
            f"public perplexity {progress.public_perplexity:.1f}"
        )

    train(config, out, device, listen, conversations)
    task = NextWord(load_base(str(out.resolve())), load_federation("keyboard"), WINDOW)
    figures = score(task, [task.splits(client).test for client in task.client_ids()])
    write_card(out, config, history, figures, f"{platform.machine()}, torch {torch.__version__}, {device}")
    if json:
        typer.echo(json_module.dumps(figures))
    else:
        console.print(f"  {out}: perplexity {figures['perplexity']:.1f} on the clients' test text")
