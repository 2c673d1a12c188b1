"""Options that several verbs have, with one name and one help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Run = Annotated[str, typer.Option(help="A run's name or folder, or 'latest'.")]
Runs = Annotated[Path, typer.Option(help="Where runs are kept.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
