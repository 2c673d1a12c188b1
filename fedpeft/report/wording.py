"""How names and numbers are written, the same in the terminal, in Markdown and on the page."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

from fedpeft.report.record import Control

NOTHING = "–"

GLOSSARY: dict[Control, str] = {
    "base": "the frozen model alone",
    "global": "base + the federation’s adapter",
    "local": "base + own adapter, no federation",
    "wrong_user": "another person’s personal adapter",
    "personal": "global + own training, gated",
}


@dataclass(frozen=True, slots=True)
class Terms:
    """How a task's scores are called.

    Parameters
    ----------
    metric : {"top1", "top3"}
        The accuracy that is quoted first.
    label : str
        Its name.
    unit : str
        What is predicted.
    does : str
        What the models do, as a headline says it.
    typed : bool
        Whether keystrokes can be saved.
    """

    metric: Literal["top1", "top3"]
    label: str
    unit: str
    does: str
    typed: bool


_WRITING = Terms("top3", "Top-3", "token", "predict the next token in three suggestions", typed=True)
_TERMS = {
    "classification": Terms("top1", "Accuracy", "text", "name the class of a text rightly", typed=False),
    "reply_ranking": Terms("top1", "Recall@1", "reply", "find a person’s own reply among ten of theirs", typed=False),
    "caption": replace(_WRITING, typed=False),
    "chat": Terms("top1", "Top-1", "token", "predict the next token of a reply", typed=False),
}


def terms_of(task: str) -> Terms:
    """Return the words for a task; those of next-word prediction for one that is not known."""
    return _TERMS.get(task, _WRITING)


def name_of(control: str) -> str:
    """Return a control's name in prose."""
    return control.replace("_", " ")


def number(value: float | None, digits: int = 1) -> str:
    """Write a number with a fixed count of decimals; past a million, in powers of ten."""
    if value is None:
        return NOTHING
    return f"{value:.1e}" if abs(value) >= 1e6 else f"{value:,.{digits}f}"


def signed(value: float | None, digits: int = 1) -> str:
    """Write a difference with its sign; zero has none."""
    if value is None:
        return NOTHING
    text = f"{abs(value):.{digits}f}"
    if float(text) == 0.0:
        return text
    return f"{'+' if value > 0 else '−'}{text}"


def percent(value: float | None, digits: int = 1) -> str:
    """Write a share as a percentage."""
    return NOTHING if value is None else f"{number(100 * value, digits)}%"


def points(value: float | None) -> str:
    """Write a difference of shares in percentage points."""
    return signed(None if value is None else 100 * value)


def interval(low: float | None, high: float | None, scale: float = 1.0, digits: int = 1) -> str:
    """Write the two ends of an interval."""
    if low is None or high is None:
        return NOTHING
    return f"{signed(scale * low, digits)} to {signed(scale * high, digits)}"


def size(count: float | None) -> str:
    """Write a count of bytes in decimal units."""
    if count is None:
        return NOTHING
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count:.0f} bytes"


def duration(seconds: float) -> str:
    """Write a length of time with two units at most."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def moment(iso: str) -> str:
    """Write an ISO 8601 time to the minute, in UTC; anything else as it is."""
    try:
        found = datetime.fromisoformat(iso)
    except ValueError:
        return iso
    zone = " UTC" if found.tzinfo else ""
    return f"{found.astimezone(UTC) if found.tzinfo else found:%Y-%m-%d %H:%M}{zone}"


def counted(count: int, one: str, many: str) -> str:
    """Write a count with its noun."""
    return f"{count:,} {one if count == 1 else many}"
