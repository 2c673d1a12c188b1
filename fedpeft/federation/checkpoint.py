"""The state between two rounds, in one file that is replaced at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fedpeft.adapters.schema import Vector
from fedpeft.aggregation import State
from fedpeft.errors import FolderError
from fedpeft.files import write_whole

FILE = "checkpoint.safetensors"
_FORMAT = "fedpeft-checkpoint/1"


@dataclass(frozen=True)
class Checkpoint:
    """Where a run stands.

    Parameters
    ----------
    round : int
        Last finished round; 0 before the first.
    change : ndarray of float32, shape (d,)
        The global adapter's change since its seeded start.
    state : State
        The server optimizer's vectors.
    """

    round: int
    change: Vector
    state: State

    def write(self, folder: Path, scenario: str) -> None:
        """Replace the folder's checkpoint.

        Parameters
        ----------
        folder : Path
        scenario : str
            Digest of the scenario it belongs to.
        """
        tensors = {"change": self.change, **{f"state.{name}": v for name, v in self.state.items()}}
        metadata = {"format": _FORMAT, "round": str(self.round), "scenario": scenario}
        write_whole(folder / FILE, save(tensors, metadata))

    @classmethod
    def read(cls, folder: Path, scenario: str, size: int) -> Checkpoint | None:
        """Read the folder's checkpoint, if it has one.

        Raises
        ------
        FolderError
            When it is damaged or belongs to another scenario.
        """
        path = folder / FILE
        if not path.exists():
            return None
        try:
            with safe_open(path, "np") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise FolderError(f"checkpoint {path}", str(error), "a whole checkpoint", "start a new run") from error
        if metadata.get("format") != _FORMAT or tensors.get("change", np.zeros(0)).shape != (size,):
            raise FolderError(f"checkpoint {path}", metadata.get("format"), f"{_FORMAT} of size {size}")
        if metadata.get("scenario") != scenario:
            raise FolderError(
                f"checkpoint {path}", "another scenario", "the scenario the run began with", "start a new run"
            )
        change = tensors.pop("change")
        return cls(int(metadata["round"]), change, {n.removeprefix("state."): t for n, t in tensors.items()})
