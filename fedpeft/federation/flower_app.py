"""A Flower app of a few lines, made where it is needed: it names what is installed, and carries no code of its own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

_PROJECT = """\
[project]
name = "fedpeft-{name}"
version = "0.1.0"

[tool.flwr.app]
publisher = "fedpeft"

[tool.flwr.app.components]
serverapp = "{name}.server:app"
clientapp = "{name}.client:app"

[tool.flwr.app.config]
{config}"""
_MODULE = "from {module} import {function}\n\napp = {function}()\n"
_CLIENT = ("fedpeft.federation.client", "client_app")


def write_app(folder: Path, name: str, server: tuple[str, str], config: Sequence[str]) -> Path:
    """Write an app that ``flwr run`` takes.

    Parameters
    ----------
    folder : Path
    name : str
        Of its package.
    server : tuple of str
        Module and function that builds its ServerApp.
    config : sequence of str
        Keys of its run configuration; Flower takes no others.

    Returns
    -------
    Path
        The folder.
    """
    (folder / name).mkdir(parents=True, exist_ok=True)
    keys = "".join(f"{key} = {json.dumps('')}\n" for key in config)
    for path, text in {
        "pyproject.toml": _PROJECT.format(name=name, config=keys),
        f"{name}/__init__.py": "",
        f"{name}/server.py": _MODULE.format(module=server[0], function=server[1]),
        f"{name}/client.py": _MODULE.format(module=_CLIENT[0], function=_CLIENT[1]),
    }.items():
        (folder / path).write_text(text)
    return folder
