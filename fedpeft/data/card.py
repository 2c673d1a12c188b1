"""Counts of a federation: how much there is, and how unevenly it is spread. Never any text."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from fedpeft.data.federation import Client, Federation


def card(federation: Federation, clients: Sequence[str]) -> dict[str, Any]:
    """Describe clients by numbers.

    Parameters
    ----------
    federation : Federation
    clients : sequence of str

    Returns
    -------
    dict
        ``federation``, ``clients``, and for ``messages`` and ``words`` of each split the total and the least, median
        and most of a client.
    """
    splits = [Client.of(federation, client).split for client in clients]
    described: dict[str, Any] = {
        "federation": federation.name,
        "clients": len(clients),
        "split": "by time: 70 % train, 15 % validation, 15 % test of each person's own messages",
    }
    for part in ("train", "validation", "test"):
        texts = [[text for e in getattr(split, part) for text in e.mine()] for split in splits]
        described[part] = {
            "messages": spread([len(own) for own in texts]),
            "words": spread([sum(len(text.split()) for text in own) for own in texts]),
        }
    return described


def spread(counts: list[int]) -> dict[str, float]:
    """Return the total, and the least, median and most of a client."""
    return {"total": sum(counts), "least": min(counts), "median": median(counts), "most": max(counts)}
