"""Federated and on-device personalization: adapters travel, text and base models do not."""

from __future__ import annotations


def __getattr__(name: str) -> str:
    if name == "__version__":
        from importlib.metadata import version

        return version("fedpeft")
    raise AttributeError(name)
