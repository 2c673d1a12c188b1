"""Adapters as values: their schema, their flat vector, their files, what is shared of them."""

from fedpeft.adapters.adapter import Adapter
from fedpeft.adapters.schema import Schema
from fedpeft.adapters.update import Update

__all__ = ["Adapter", "Schema", "Update"]
