"""``fedpeft advise``: which method, size and rule fit a base, a device and a link."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedpeft.cli.options import AsJson
from fedpeft.errors import FedpeftError, nearest

if TYPE_CHECKING:
    from rich.console import RenderableType

    from fedpeft.compare.advice import Advice, Proposal

_TASKS = ("next_word", "classification")
_PRIVACIES = ("none", "secure", "dp")
_DEVICES = ("same", "mixed")


def advise(
    base: Annotated[str, typer.Option(help="The base: a builtin name, a folder or a hub id.")] = "keyboard",
    task: Annotated[str, typer.Option(help="next_word or classification.")] = "next_word",
    clients_examples: Annotated[int, typer.Option(min=1, help="Training examples of a typical client.")] = 100,
    memory: Annotated[str | None, typer.Option(help="Memory of a client's process, as in 2GB.")] = None,
    uplink: Annotated[str | None, typer.Option(help="What a client may send in a round, as in 500kB.")] = None,
    privacy: Annotated[str, typer.Option(help="none, secure (only sums) or dp (noised sums).")] = "none",
    devices: Annotated[str, typer.Option(help="same or mixed; the memory is then the weakest one's.")] = "same",
    classes: Annotated[int | None, typer.Option(min=2, help="Of a classification; as measured by default.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Examples per step; as measured by default.")] = None,
    length: Annotated[int | None, typer.Option(min=8, help="Tokens per example; as measured by default.")] = None,
    from_: Annotated[
        Path | None, typer.Option("--from", help="A folder of comparisons; fedpeft's own by default.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Propose a method with its reasons and the measurements behind them; exit code 1 when nothing fits.

    Example: `fedpeft advise --base minilm --task classification --clients-examples 200 --uplink 500kB --privacy dp`
    """
    for option, value, known in (
        ("--task", task, _TASKS),
        ("--privacy", privacy, _PRIVACIES),
        ("--devices", devices, _DEVICES),
    ):
        if value not in known:
            raise FedpeftError(option, value, " or ".join(known), nearest(value, known))
    if classes is not None and task != "classification":
        raise FedpeftError("--classes", classes, "--task classification", f"{task} has none")
    from fedpeft.training.amounts import amount

    limits = {
        "memory": None if memory is None else amount(memory, "--memory"),
        "uplink": None if uplink is None else amount(uplink, "--uplink"),
    }
    from rich.console import Console

    from fedpeft.compare.advice import PRIVACIES, Wish
    from fedpeft.compare.advise import advise as choose
    from fedpeft.compare.evidence import MEASURED, read_comparisons

    comparisons = read_comparisons(from_ or MEASURED)
    wish = Wish(
        base=base,
        task=task,
        examples=clients_examples,
        privacy=PRIVACIES[_PRIVACIES.index(privacy)],
        mixed=devices == "mixed",
        classes=classes,
        batch=batch,
        length=length,
        **limits,
    )
    with Console(stderr=True, quiet=json).status("counting every method on the base"):
        advice = choose(wish, comparisons)
    if json:
        typer.echo(advice.model_dump_json())
    else:
        Console(highlight=False).print(_shown(advice))
    if not advice.fits:
        raise typer.Exit(1)


def _shown(advice: Advice) -> RenderableType:
    from rich.console import Group
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    from fedpeft.report.wording import percent, size

    title = _named(advice.plan) if advice.fits else f"nothing fits; nearest is {_named(advice.plan)}"
    parts: list[RenderableType] = [Text(title, style="bold" if advice.fits else "bold yellow")]
    parts += [Padding(Text(f"· {text}"), (0, 0, 0, 1)) for text in advice.reasons]
    table = Table(box=None, padding=(0, 2, 0, 1), header_style="dim")
    for head in ("measured", "quality", "share of the gain", "trained", "sent a round"):
        table.add_column(head, justify="left" if head == "measured" else "right")
    for row in advice.evidence:
        score = row.measured
        cells = (percent(score.quality), percent(score.loss_share, 0), f"{row.trainable:,}", size(row.bytes_up))
        table.add_row(row.method, *cells)
    parts.append(Padding(table, (1, 0)))
    if advice.others:
        others = (f"{_named(p)}, {size(p.bytes_up)}, gain {percent(p.gain, 0)}" for p in advice.others)
        parts.append(Text(f"next, memory not counted: {'; '.join(others)}", style="dim"))
    return Group(*parts, Padding(Text(advice.scenario.rstrip()), (1, 1)))


def _named(plan: Proposal) -> str:
    settings = [f"{key} {value}" for key, value in plan.method.items() if key in ("rank", "size", "length")]
    rule = [] if plan.partition == "all" else [f"partition {plan.partition}"]
    head = ["private head"] if plan.head == "private" else []
    return ", ".join([str(plan.method["name"]), *settings, *rule, *head])
