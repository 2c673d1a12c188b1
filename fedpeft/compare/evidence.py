"""The measured comparisons that advice rests on: those shipped with fedpeft, or those in a folder.

The shipped ones lie in ``measured/`` as ``fedpeft compare`` wrote them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from fedpeft.compare.row import FORMAT, Comparison
from fedpeft.errors import RunError

MEASURED = Path(__file__).parent / "measured"


def read_comparisons(folder: Path = MEASURED) -> list[Comparison]:
    """Read every comparison in a folder, in order of file name.

    Raises
    ------
    RunError
        When there is none, or one is damaged.
    """
    found = []
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else []:
        text = path.read_text(encoding="utf-8")
        if FORMAT not in text:
            continue
        try:
            found.append(Comparison.model_validate_json(text))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            field = ".".join(str(part) for part in first["loc"])
            raise RunError(f"{path}: {field}", first["type"], "what `fedpeft compare --out` writes") from error
    if not found:
        raise RunError(f"folder {folder}", "no comparison", "files written by `fedpeft compare --out`")
    return found


def closest(comparisons: Sequence[Comparison], task: str, base: str) -> Comparison:
    """Return the comparison of a task, on the same base if there is one.

    Raises
    ------
    RunError
        When none is of this task.
    """
    alike = [c for c in comparisons if c.task == task and c.rows]
    if not alike:
        known = ", ".join(sorted({c.task for c in comparisons}))
        raise RunError(
            f"comparison for {task}", f"only {known}", "a measured one", "run `fedpeft compare` on a scenario of yours"
        )
    return next((c for c in alike if c.base == base), alike[0])
