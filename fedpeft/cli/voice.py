"""Whose words the device verbs speak: a run's base, and one person's adapter or several together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from fedpeft.device.compose import parse_weights
from fedpeft.device.folders import EVERYBODY, NOBODY, adapter_folder, base_folder, find_run, require_owner, users
from fedpeft.device.loaded import LoadedAdapter
from fedpeft.device.runtime import Runtime
from fedpeft.errors import FedpeftError, RunError, nearest

User = Annotated[
    str | None, typer.Option(help=f"Whose adapter; {EVERYBODY!r} for the shared one, {NOBODY!r} for none.")
]
Together = Annotated[str | None, typer.Option("--compose", help="Several adapters, weighted: ada=0.7,bob=0.3.")]
Threads = Annotated[int, typer.Option(min=1, help="For the arithmetic.")]


@dataclass(frozen=True)
class Voice:
    """A runtime and an adapter on it.

    Parameters
    ----------
    name : str
        As it was asked for.
    run : Path
    runtime : Runtime
    adapter : LoadedAdapter or None
    """

    name: str
    run: Path
    runtime: Runtime
    adapter: LoadedAdapter | None


def find_voice(user: str | None, together: str | None, run: str, runs: Path, threads: int) -> Voice:
    """Load what was asked for.

    Raises
    ------
    FedpeftError
        When both or neither a user and a composition are given, or the composition is none.
    RunError
        When there is no such run, or nobody of that name in it.
    BundleError
        When a bundle is refused, or an adapter is somebody else's.
    """
    if (user is None) == (together is None):
        raise FedpeftError("--user", user, "either --user or --compose")
    folder = find_run(run, runs)
    weights = parse_weights(together) if together is not None else {}
    adapters = users(folder)
    for name in weights or [str(user)]:
        if name not in adapters and (weights or name != NOBODY):
            raise RunError("user", name, f"somebody with an adapter in {folder}", _who(name, adapters))
    runtime = Runtime(base_folder(folder), threads)
    if weights:
        loaded = [_load(runtime, folder, name) for name in weights]
        return Voice(str(together), folder, runtime, runtime.compose(loaded, list(weights.values())))
    adapter = None if user in (None, NOBODY) else _load(runtime, folder, str(user))
    return Voice(str(user), folder, runtime, adapter)


def _load(runtime: Runtime, run: Path, user: str) -> LoadedAdapter:
    adapter = runtime.load(adapter_folder(run, user))
    require_owner(adapter.manifest, user)
    return adapter


def _who(user: str, adapters: list[str]) -> str:
    if not adapters:
        return "export the run first: `fedpeft export`"
    return nearest(user, [*adapters, NOBODY])
