"""``fedpeft client``, the device's own side: consent, text, training, words, forgetting. Nothing needs a network."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fedpeft.cli.options import AsJson, Runs
from fedpeft.cli.suggest import shown_words
from fedpeft.data.lines import check_keys, records, seconds, text_of
from fedpeft.device.edge.client import EdgeClient
from fedpeft.device.edge.example import Written
from fedpeft.device.edge.home import Home
from fedpeft.device.edge.policy import ANYTIME, Policy
from fedpeft.device.edge.training import Learned, Trainer
from fedpeft.device.folders import EVERYBODY, LATEST, NOBODY, adapter_folder, base_folder, find_run
from fedpeft.device.versions.installed import Installed
from fedpeft.errors import FedpeftError

AtHome = Annotated[Path, typer.Option("--home", help="The device's private folder; made when missing.")]
OverRun = Annotated[
    str | None,
    typer.Option("--run", help="A run to stand on; else what joining left in the home, or the latest run."),
]
Start = Annotated[str, typer.Option("--user", help=f"Whose adapter of the run to start from; {NOBODY!r} for none.")]
_KEYS = ("text", "time", "conversation", "mine")


def open_client(home: Path, run: str | None = LATEST, runs: Path = Path("runs"), user: str = EVERYBODY) -> EdgeClient:
    """Open a device over a run's bundles; without a run over what was fetched, what joining left, or the latest run's.

    Raises
    ------
    FedpeftError
        When there is no such run, or a bundle or the store is refused.
    """
    fetched = Installed(home).current() if run is None else None
    if fetched is not None:
        return EdgeClient(home, fetched.base, None if user == NOBODY else fetched.adapter, trusted=fetched.trusted)
    if run is None and Home(home).base.current() is not None:
        return EdgeClient(home)
    folder = find_run(run or LATEST, runs)
    start = None if user == NOBODY else adapter_folder(folder, user)
    return EdgeClient(home, base_folder(folder), start)


def torch_trainer() -> Trainer:
    """Return what trains with torch.

    Raises
    ------
    FedpeftError
        When torch is not installed.
    """
    try:
        from fedpeft.personalization.on_device import OnDevice
    except ImportError as error:
        raise FedpeftError(
            "training", f"no {error.name}", "the libraries that train", "pip install 'fedpeft[train]'"
        ) from error
    return OnDevice()


def consent(
    home: AtHome,
    given: Annotated[bool, typer.Option("--give/--withdraw", help="Agree, or take it back.")],
    as_json: AsJson = False,
) -> None:
    """Agree that this device keeps what you write and learns from it, or take that back.

    Example: fedpeft client consent --home me --give
    """
    kept = Home(home).store()
    if given:
        kept.agree()
    else:
        kept.withdraw()
    line = "what you write is kept here and learnt from" if given else "nothing more is kept or learnt from"
    say({"consent": given}, line, as_json)


def add(
    home: AtHome,
    file: Annotated[Path, typer.Argument(help="JSONL with text, time, conversation, mine, as in docs/data.md.")],
    as_json: AsJson = False,
) -> None:
    """Keep messages of a file, all or none; a line without a time is of now.

    Example: fedpeft client add chat.jsonl --home me
    """
    ids = Home(home).store().extend(messages_in(file))
    say({"kept": len(ids)}, f"{len(ids)} messages are kept in {home}", as_json)


def store(home: AtHome, as_json: AsJson = False) -> None:
    """Say what this device keeps, without its text.

    Example: fedpeft client store --home me --json
    """
    found = Home(home).store().contents()
    span = " to ".join(f"{datetime.fromtimestamp(t, UTC):%Y-%m-%d}" for t in (found.oldest, found.newest) if t)
    key = {"keyring": "the system's keyring", "file": "a file", "": "none yet"}[found.keychain]
    line = (
        f"{found.messages} messages, {found.bytes / 1000:.1f} kB sealed{', ' if span else ''}{span}; "
        f"key: {key}; consent: {'given' if found.consent else 'none'}"
    )
    say(asdict(found), line, as_json)


def personalize(
    home: AtHome,
    user: Start = EVERYBODY,
    run: OverRun = None,
    runs: Runs = Path("runs"),
    now: Annotated[bool, typer.Option("--now", help="Whatever the policy says.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train the personal adapter on what this device keeps, on top of a run's adapter.

    Example: fedpeft client personalize --home me --now
    """
    learned = learn(open_client(home, run, runs, user), ANYTIME if now else None)
    say(asdict(learned), told(learned), as_json)


def learn(client: EdgeClient, policy: Policy | None) -> Learned:
    """Train the personal adapter, and show that it takes time."""
    with Console(stderr=True).status("learning"):
        return client.personalize(torch_trainer(), policy)


def told(learned: Learned) -> str:
    """Return what training came to, in one line."""
    return (
        f"learnt from {learned.messages} messages in {learned.seconds:.0f} s: "
        f"loss on the latest {learned.before:.3f} → {learned.after:.3f} nats a token, gate {learned.gate:g}"
    )


def suggest(
    home: AtHome,
    text: Annotated[str, typer.Argument(help="What was typed so far; within a word, completions of it.")],
    count: Annotated[int, typer.Option(min=1, max=100, help="How many words.")] = 3,
    user: Start = EVERYBODY,
    run: OverRun = None,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Suggest the next words with the adapter that this device has now.

    Example: fedpeft client suggest "see you at the " --home me
    """
    found = open_client(home, run, runs, user).suggest(text, count)
    if as_json:
        typer.echo(json.dumps({"suggestions": [asdict(s) for s in found]}, ensure_ascii=False))
    else:
        Console().print(shown_words(found))


def forget(home: AtHome, as_json: AsJson = False) -> None:
    """Delete every message, its key, and what was learnt from them. Consent stays as it is.

    Example: fedpeft client forget --home me
    """
    gone = Home(home).store().forget()
    Home(home).unlearn()
    say({"forgotten": gone}, f"{gone} messages and what was learnt from them are gone", as_json)


def messages_in(file: Path) -> list[Written]:
    """Read messages of a file."""
    return [_written(record, where) for _, where, record in records(file)]


def _written(record: dict[str, object], where: str) -> Written:
    check_keys(record, _KEYS, where)
    time = seconds(record["time"], where) if "time" in record else None
    return Written(text_of(record, where), record.get("mine", True), str(record.get("conversation", "")), time)  # type: ignore[arg-type]  # the store checks


def say(facts: dict[str, object], line: str, as_json: bool) -> None:
    """Print facts as one JSON object for scripts, or a line for people."""
    if as_json:
        typer.echo(json.dumps(facts))
    else:
        Console(highlight=False, soft_wrap=True).print(line)
