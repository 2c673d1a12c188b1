"""How a sum of updates becomes the next global adapter."""

from fedpeft.aggregation.optimizers import RULES, State, advance

__all__ = ["RULES", "State", "advance"]
