"""People's replies beside what models wrote instead: the figures of all, the sheet of those who are shown.

ROUGE-L is averaged over a person's replies first, then over people, who count alike however many replies they have.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from math import nan
from statistics import fmean
from typing import Any

import numpy as np

from fedpeft.report.bootstrap import mean_ends
from fedpeft.report.record import CONTROLS, Control, HeldOut, Samples
from fedpeft.report.wording import name_of, percent

_SHOWN: tuple[Control, ...] = ("base", "global", "personal")


@dataclass(frozen=True, slots=True)
class Exchange:
    """A reply as the page shows it.

    Parameters
    ----------
    client : str
        Who wrote it.
    context : tuple of (str, str)
        Who spoke before, ``me``, ``you`` or ``system``, and what they said.
    wrote : str
    answers : tuple of (str, str, str)
        Each model's name, its text and its ROUGE-L.
    """

    client: str
    context: tuple[tuple[str, str], ...]
    wrote: str
    answers: tuple[tuple[str, str, str], ...]


_SPEAKER = {"assistant": "me", "user": "you", "system": "system"}


def rouge_l(samples: Samples | None) -> dict[str, Any] | None:
    """Return the mean of each control, how many replies of how many people, and the interval of personal − global.

    Returns
    -------
    dict or None
        ``mean`` by control, null for those without an adapter; ``replies``, ``people``; ``personal-global`` with
        ``mean``, ``low`` and ``high``. None when nothing was written anew.
    """
    if samples is None or not samples.held_out:
        return None
    by_person: dict[str, list[HeldOut]] = defaultdict(list)
    for reply in samples.held_out:
        by_person[reply.client].append(reply)
    rows = [[_mean(by_person[client], control) for control in CONTROLS] for client in sorted(by_person)]
    scores = np.array(rows, np.float64)
    gains = scores[:, [CONTROLS.index("personal")]] - scores[:, [CONTROLS.index("global")]]
    means = [ends["mean"] for ends in mean_ends(scores)]
    return {
        "mean": dict(zip(CONTROLS, means, strict=True)),
        "replies": len(samples.held_out),
        "people": len(by_person),
        "personal-global": mean_ends(gains)[0],
    }


def sheet(samples: Samples | None) -> list[Exchange]:
    """Return the replies of the people who are shown, who completed the prompts too."""
    if samples is None:
        return []
    shown = {each.who for each in samples.completions}
    return [_exchange(reply) for reply in samples.held_out if reply.client in shown]


def _exchange(reply: HeldOut) -> Exchange:
    return Exchange(
        reply.client,
        tuple((_SPEAKER[said.role], said.content) for said in reply.context),
        reply.wrote,
        tuple(
            (name_of(control), reply.answers[control].text.strip(), percent(reply.answers[control].rouge_l, 0))
            for control in _SHOWN
            if control in reply.answers
        ),
    )


def _mean(replies: list[HeldOut], control: Control) -> float:
    scores = [reply.answers[control].rouge_l for reply in replies if control in reply.answers]
    return fmean(scores) if len(scores) == len(replies) else nan
