"""The round, and the engines that run it. Flower is imported here and in the entry points only."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

# Flower reads this once, when it is first imported; nothing of ours calls home, nor do the libraries below us.
for _variable, _value in {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
}.items():
    os.environ.setdefault(_variable, _value)

if TYPE_CHECKING:
    from fedpeft.federation.inprocess import simulate

__all__ = ["simulate"]


def __getattr__(name: str) -> Any:
    if name == "simulate":
        from fedpeft.federation.inprocess import simulate

        return simulate
    raise AttributeError(name)
