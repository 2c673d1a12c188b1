"""Whoever watches a run: a progress display, a tracker, or nobody."""

from __future__ import annotations

from typing import Any, Protocol


class Watcher(Protocol):
    """Hears what happens, while it happens."""

    def stage(self, name: str, done: int, total: int) -> None:
        """Hear that ``done`` of ``total`` clients have finished a stage (``round 3``, ``personalize``, …)."""

    def round(self, row: dict[str, Any], rounds: int) -> None:
        """Hear a finished round: its line of ``metrics.jsonl``."""


class Silent:
    """Nobody."""

    def stage(self, name: str, done: int, total: int) -> None:
        """Say nothing."""

    def round(self, row: dict[str, Any], rounds: int) -> None:
        """Say nothing."""
