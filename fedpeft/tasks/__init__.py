"""What is learnt: how a client's text becomes examples, and how a model's output is judged on them."""

from fedpeft.tasks.open import TASKS, open_task
from fedpeft.tasks.task import Batch, Encoded, Splits, Task

__all__ = ["TASKS", "Batch", "Encoded", "Splits", "Task", "open_task"]
