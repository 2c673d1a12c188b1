"""Who holds a trainable in a round. A partition is a name here, not an algorithm of its own.

====================== ============================================================================
``all``                everything is trained and averaged (FedIT, Zhang et al. 2023, arXiv:2305.05644)
``ffa``                A keeps its seeded start, B is averaged: the mean is exact
                       (FFA-LoRA, Sun et al. 2024, arXiv:2403.12313)
``alternate``          B in even rounds, A in odd ones (RoLoRA, Chen et al. 2024, arXiv:2409.02346)
``fedsa``              A is averaged, each client keeps its own B (FedSA-LoRA, Guo et al. 2024, arXiv:2410.01463)
====================== ============================================================================

Heads, routers and whatever else a scenario names in ``federation.private`` stay with the client under any of them
(FedPer, Arivazhagan et al. 2019, arXiv:1912.00818).
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum


class Role(StrEnum):
    """What happens to a tensor in a round."""

    SHARED = "shared"
    PRIVATE = "private"
    FROZEN = "frozen"


Partition = Callable[[str, int], Role]
"""(tensor name, round) -> who trains it and who keeps the result."""


def _all(name: str, round_: int) -> Role:
    return Role.SHARED


def _ffa(name: str, round_: int) -> Role:
    return Role.FROZEN if "lora_A" in name else Role.SHARED


def _alternate(name: str, round_: int) -> Role:
    return Role.SHARED if ("lora_A" in name) == (round_ % 2 == 1) else Role.FROZEN


def _fedsa(name: str, round_: int) -> Role:
    return Role.SHARED if "lora_A" in name else Role.PRIVATE


PARTITIONS: dict[str, Partition] = {"all": _all, "ffa": _ffa, "alternate": _alternate, "fedsa": _fedsa}


def keeping(partition: Partition, private: tuple[str, ...]) -> Partition:
    """Return a partition in which tensors whose names contain one of ``private`` stay with the client."""

    def role(name: str, round_: int) -> Role:
        return Role.PRIVATE if any(part in name for part in private) else partition(name, round_)

    return role
