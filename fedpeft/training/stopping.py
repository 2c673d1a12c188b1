"""Early stopping (Prechelt 1998): look at validation text after every pass, and keep what did best there."""

from __future__ import annotations

from typing import Any

import numpy as np

from fedpeft.methods import Attached
from fedpeft.tasks import Encoded, Task
from fedpeft.training.evaluate import mean_loss


class Patience:
    """Remembers the best values of a slot.

    Parameters
    ----------
    attached : Attached
    slot : str
        Being trained.
    task : Task
    validation : Encoded
        At least one example; not trained on.
    passes : int
        How many in a row may fail to improve.
    """

    def __init__(self, attached: Attached, slot: str, task: Task[Any], validation: Encoded, passes: int) -> None:
        self._attached, self._slot, self._task, self._validation = attached, slot, task, validation
        self._passes, self._failed, self._best = passes, 0, np.inf
        self._kept = attached.read(slot)
        self.exhausted()

    def exhausted(self) -> bool:
        """Look at the validation text, and say whether it is time to stop."""
        loss = mean_loss(self._attached, self._task, self._validation)
        if loss < self._best:
            self._best, self._failed, self._kept = loss, 0, self._attached.read(self._slot)
        else:
            self._failed += 1
        return self._failed >= self._passes

    def restore(self) -> None:
        """Put the best values back; the start counts as one of them."""
        self._attached.write(self._slot, self._kept)
