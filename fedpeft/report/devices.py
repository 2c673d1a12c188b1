"""How each class of devices fared: the means of those of its people who were scored."""

from __future__ import annotations

from statistics import fmean
from typing import Any

from fedpeft.report.record import Control, Record

PARTS: tuple[Control, ...] = ("base", "global", "personal")
"""The models that are compared across classes."""


def devices(record: Record) -> list[dict[str, Any]] | None:
    """Reduce a record to one entry per class; None where all clients are alike.

    Returns
    -------
    list of dict
        ``name``, ``held`` (precision and dtype of the base), ``clients`` of the class, ``people`` of them who were
        scored, and their mean ``loss`` in nats by control, null where nobody was. Over the seeds of a study, where a
        person's class is drawn anew, people are counted seed by seed.
    """
    parts = list(record.seeds.values()) or [record]
    classes = parts[0].run.devices
    if not classes:
        return None
    people = [person for part in parts for person in part.people]
    found = []
    for kind in classes:
        own = [person for person in people if person.device == kind.name]
        held = kind.dtype if kind.precision == "full" else f"{kind.precision}, {kind.dtype}"
        loss = {c: fmean(person.test[c].loss for person in own) if own else None for c in PARTS}
        entry = {"name": kind.name, "held": held, "clients": kind.clients, "people": len(own), "loss": loss}
        found.append(entry)
    return found
