"""One scenario, many methods, side by side: what each costs, what it reaches, and which to choose."""

from fedpeft.compare.row import Comparison, Failure, Reference, Row, Score

__all__ = ["Comparison", "Failure", "Reference", "Row", "Score"]
