"""The frozen base model: it never changes and never travels in a round."""

from fedpeft.base.base import Base
from fedpeft.base.load import load_base
from fedpeft.base.locate import builtin_names, known_names

__all__ = ["Base", "builtin_names", "known_names", "load_base"]
