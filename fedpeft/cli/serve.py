"""``fedpeft serve``: personal adapters over HTTP, and the tokens that open them."""

from __future__ import annotations

import json
import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from fedpeft.cli.options import AsJson, Run, Runs, require_extra
from fedpeft.device.bundle import Bundle
from fedpeft.device.folders import LATEST, NOBODY, PERSON, base_folder, find_run, rows_folder, users
from fedpeft.errors import RunError, ServeError, nearest
from fedpeft.serve.bases import stale
from fedpeft.serve.tokens import TokenStore, tokens_file

serve = typer.Typer(invoke_without_command=True, add_completion=False, rich_markup_mode="markdown")
token = typer.Typer(
    help="Make, list and revoke the tokens that open adapters.", no_args_is_help=True, rich_markup_mode="markdown"
)
serve.add_typer(token, name="token")


_NEEDED = ("starlette", "uvicorn", "prometheus_client")


@serve.callback()
def start(
    context: typer.Context,
    *,
    run: Run = LATEST,
    runs: Runs = Path("runs"),
    host: Annotated[str, typer.Option(help="Where to listen; others than this machine need --certfile.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any that is free.")] = 8000,
    slots: Annotated[int, typer.Option(min=1, max=256, help="Texts written at the same time.")] = 8,
    threads: Annotated[int, typer.Option(min=1, help="For the arithmetic of one step.")] = 2,
    queue: Annotated[int, typer.Option(min=1, help="Requests in all, waiting or being answered.")] = 128,
    per_user: Annotated[int, typer.Option(min=1, help="Of these, one person's.")] = 4,
    tokens: Annotated[int, typer.Option(min=1, help="Most tokens of an answer.")] = 256,
    context_tokens: Annotated[
        int, typer.Option("--context", min=2, help="Most tokens of prompt and answer together.")
    ] = 2048,
    timeout: Annotated[float, typer.Option(help="Seconds until a request is given up.")] = 60.0,
    drain: Annotated[float, typer.Option(help="Seconds for answers under way when the service ends.")] = 20.0,
    certfile: Annotated[Path | None, typer.Option(help="PEM certificate: HTTPS.")] = None,
    keyfile: Annotated[Path | None, typer.Option(help="Its PEM key.")] = None,
) -> None:
    """Serve a run's adapters: OpenAI's completions and chats, where `model` is whose adapter; and the next words.

    Example: fedpeft serve --run latest --port 8000 --slots 8
    """
    if context.invoked_subcommand is not None:
        return
    require_extra("fedpeft serve", "serve", *_NEEDED)
    from fedpeft.serve.https import listen, require_pair
    from fedpeft.serve.limits import Limits
    from fedpeft.serve.server import serve as answer
    from fedpeft.serve.service import Service

    folder = find_run(run, runs)
    limits = Limits(
        slots=slots,
        queue=queue,
        per_user=per_user,
        tokens=tokens,
        context=context_tokens,
        timeout_s=timeout,
        drain_s=drain,
    )
    require_pair(certfile, keyfile)
    if certfile is None and host not in ("127.0.0.1", "::1", "localhost"):
        remedy = "give --certfile and --keyfile, or listen on 127.0.0.1 behind a proxy that speaks TLS"
        raise ServeError("host", host, "127.0.0.1 where there is no TLS: texts would travel in the open", remedy)
    _require_bases(folder)
    sock = listen(host, port)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    service = Service(folder, limits, threads)
    console = Console(stderr=True, highlight=False)
    if not service.tokens.entries():
        console.print("nobody has a token yet: `fedpeft serve token add --user NAME`")
    address = f"{'http' if certfile is None else 'https'}://{host}:{sock.getsockname()[1]}"
    console.print(f"{folder}: {len(users(folder))} adapters, {slots} at a time, at {address}/v1")
    answer(service, sock, certfile, keyfile)


@token.command("add")
def add(
    *,
    user: Annotated[str, typer.Option(help="Whose token; requests are counted by this name.")],
    adapter: Annotated[
        list[str] | None,
        typer.Option(help=f"What it opens, repeatable; 'global' and {NOBODY!r} too. By default the user's own."),
    ] = None,
    operator: Annotated[bool, typer.Option("--operator", help="Opens /metrics, and by default no adapter.")] = False,
    run: Run = LATEST,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Make a token and print it, once: only its hash is kept.

    Example: fedpeft serve token add --user ada
    """
    store, folder = _store(run, runs)
    known = [*users(folder), NOBODY]
    wanted = adapter if adapter is not None else ([] if operator else [user])
    if not PERSON.fullmatch(user):
        raise ServeError("user", user, "letters, digits and . _ @ + -")
    for name in wanted:
        if name not in known:
            raise RunError("adapter", name, f"one of {folder}", nearest(name, known))
    caller, secret = store.add(user, frozenset(wanted), operator=operator)
    if as_json:
        typer.echo(json.dumps({"id": caller.token_id, "user": user, "adapters": sorted(wanted), "token": secret}))
        return
    Console(stderr=True, highlight=False).print(f"{user} may use {', '.join(wanted) or 'no adapter'}; shown only now:")
    typer.echo(secret)


@token.command("list")
def entries(*, run: Run = LATEST, runs: Runs = Path("runs"), as_json: AsJson = False) -> None:
    """List tokens by their ids; the tokens themselves are not known any more.

    Example: fedpeft serve token list
    """
    found = _store(run, runs)[0].entries()
    if as_json:
        rows = [
            {"id": c.token_id, "user": c.user, "adapters": sorted(c.adapters), "operator": c.operator, "created": made}
            for c, made in found
        ]
        typer.echo(json.dumps({"tokens": rows}))
        return
    table = Table("id", "user", "adapters", "metrics", "made")
    for caller, made in found:
        table.add_row(
            caller.token_id, caller.user, ", ".join(sorted(caller.adapters)), "yes" if caller.operator else "", made
        )
    Console().print(table)


@token.command("revoke")
def revoke(
    identity: Annotated[str, typer.Argument(help="From `fedpeft serve token list`.")],
    *,
    run: Run = LATEST,
    runs: Runs = Path("runs"),
) -> None:
    """Forget a token; a running service refuses it from now on.

    Example: fedpeft serve token revoke 0123456789ab
    """
    _store(run, runs)[0].revoke(identity)


def _store(run: str, runs: Path) -> tuple[TokenStore, Path]:
    folder = find_run(run, runs)
    return TokenStore(tokens_file(folder)), folder


def _require_bases(run: Path) -> None:
    """Make the base for serving if it is not there, or not like the base."""
    if not base_folder(run).is_dir():
        raise RunError("base bundle", "none", f"{base_folder(run)}", "export the run first: `fedpeft export`")
    manifest = Bundle.open(base_folder(run), "base").manifest
    if manifest.decoder is None or manifest.precision == "dynamic-int8":
        kind = "an encoder" if manifest.decoder is None else manifest.precision
        raise RunError("base bundle", kind, "a decoder in float32, int8 or int4", "`fedpeft classify` runs an encoder")
    if not stale(run):
        return
    if find_spec("torch") is None:
        remedy = "run `fedpeft serve` once where fedpeft[train] is installed, and copy the folder"
        found = "that of another export" if rows_folder(run).is_dir() else "none"
        raise RunError("base for serving", found, f"{rows_folder(run)}", remedy)
    from fedpeft.export.rows import export_rows

    with Console(stderr=True).status("exporting the base for serving, once"):
        export_rows(run)
