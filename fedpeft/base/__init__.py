"""The frozen base model: it never changes and never travels in a round."""

from fedpeft.base.base import Base
from fedpeft.base.load import builtin_names, load_base

__all__ = ["Base", "builtin_names", "load_base"]
