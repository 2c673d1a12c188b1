"""From an adapter to the inputs that it fills in its base's graph; one file per family of methods."""

from fedpeft.export.fill.filling import Filling, Inputs
from fedpeft.export.fill.ground import Ground
from fedpeft.export.fill.table import fill, require_fillable

__all__ = ["Filling", "Ground", "Inputs", "fill", "require_fillable"]
