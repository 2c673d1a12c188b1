"""Several seeds of one scenario: first the mean over seeds for each person, then statistics over people.

Seeds are repetitions of one experiment, people are its sample. Pooling (person, seed) pairs instead would
count each person as often as there are seeds and make every interval too narrow.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean

from fedpeft.report.record import CONTROLS, Person, Score


def pooled(seeds: Iterable[Sequence[Person]]) -> tuple[Person, ...]:
    """Average each person over the seeds in which they were scored.

    Parameters
    ----------
    seeds : iterable of sequences of Person
        The people of each seed.

    Returns
    -------
    tuple of Person
        One per client, in order of their names.
    """
    repeats: dict[str, list[Person]] = defaultdict(list)
    for people in seeds:
        for person in people:
            repeats[person.client].append(person)
    return tuple(_mean_person(repeats[client]) for client in sorted(repeats))


def _mean_person(repeats: Sequence[Person]) -> Person:
    others = {person.wrong_user for person in repeats}
    return Person(
        client=repeats[0].client,
        gate=fmean(p.gate for p in repeats),
        steps=round(fmean(p.steps for p in repeats)),
        messages=round(fmean(p.messages for p in repeats)),
        test={c: _mean_score([p.test[c] for p in repeats]) for c in CONTROLS if all(c in p.test for p in repeats)},
        wrong_user=others.pop() if len(others) == 1 else None,
    )


def _mean_score(scores: Sequence[Score]) -> Score:
    return Score(
        loss=fmean(s.loss for s in scores),
        top1=fmean(s.top1 for s in scores),
        top3=fmean(s.top3 for s in scores),
        keystrokes_saved=fmean(s.keystrokes_saved for s in scores),
        tokens=round(fmean(s.tokens for s in scores)),
    )
